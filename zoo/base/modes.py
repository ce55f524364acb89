"""How a module stands: training or evaluation mode, who predicts meanwhile, and the type of its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from zoo.errors import UnknownName, nearest

__all__ = [
    "evaluating",
    "frozen_parameters",
    "in_type_of",
    "is_under",
    "parameters_under",
    "rest",
    "single_precision",
    "train_as_a_whole",
]


@contextmanager
def frozen_parameters(module: nn.Module) -> Iterator[None]:
    """No parameter is trained inside; those that were are again afterwards, also after an error."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def train_as_a_whole(module: nn.Module) -> None:
    """Put a module that is in evaluation mode as a whole, as loading leaves it, into training mode.

    Lightning leaves modes as they are, and batch statistics and dropout would rest through the whole training. Within
    a module that is in training mode already, the parts in evaluation mode are the user's choice and stay so.
    """
    if not module.training:
        module.train()


@dataclass
class _Use:
    modes: dict[str, bool]
    users: int = 0


_lock = Lock()
_in_use: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()
"""Not an attribute of the module, which is copied, pickled and sent to processes."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and the former mode back when the last of several threads has left."""
    with _lock:
        use = _in_use.get(module)
        if use is None:
            use = _in_use[module] = _Use({name: part.training for name, part in module.named_modules()})
            module.eval()
        use.users += 1
    try:
        yield
    finally:
        with _lock:
            use.users -= 1
            if not use.users:
                del _in_use[module]
                for name, part in module.named_modules():
                    part.training = use.modes.get(name, False)


@contextmanager
def single_precision() -> Iterator[None]:
    """What is built inside has float32 parameters, whatever the user's default is: that is what files hold.

    They can be trained, too, if the caller is in inference mode, which would mark them for good.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(before)


def in_type_of(network: nn.Module, x: Tensor) -> Tensor:
    """Inputs in the type of a network's parameters, which `.half()` or a precision of the Trainer may have changed.

    Under autocast they stay as they are.
    """
    kind = next((p.dtype for p in network.parameters() if p.is_floating_point()), x.dtype)
    return x if kind == x.dtype or torch.is_autocast_enabled(x.device.type) else x.to(kind)


def is_under(key: str, prefix: str) -> bool:
    """Whether a dotted name is a prefix, or below it; everything is below the empty one."""
    return not prefix or key == prefix or key.startswith(prefix if prefix.endswith(".") else prefix + ".")


def rest(module: nn.Module, *prefixes: str) -> None:
    """Let parts of a module rest in a phase of its training, and wake those that rested before.

    Their parameters get no gradients, and their batch statistics stay. What was frozen before stays frozen, and parts
    whose mode was evaluation stay in it. A prefix without parameters is left out. For `on_train_epoch_start`; a module
    holds the names of what rests, so that copies and other processes know them.

    Args:
        module: whose parts are named.
        prefixes: of the parts that rest from now on; none wakes all.
    """
    parameters, parts = dict(module.named_parameters()), dict(module.named_modules())
    for name in module.__dict__.get("resting_parameters", ()):
        parameters[name].requires_grad_(True)
    for name in module.__dict__.get("resting_parts", ()):
        parts[name].training = True
    under = [name for name in parameters if any(is_under(name, prefix) for prefix in prefixes)]
    module.__dict__["resting_parameters"] = [name for name in under if parameters[name].requires_grad]
    still = [name for name in parts if any(is_under(name, prefix) for prefix in prefixes)]
    module.__dict__["resting_parts"] = [name for name in still if parts[name].training]
    for name in module.__dict__["resting_parameters"]:
        parameters[name].requires_grad_(False)
        parameters[name].grad = None  # of the former phase: an optimiser would go on with it
    for name in module.__dict__["resting_parts"]:
        parts[name].training = False


def parameters_under(module: nn.Module, prefix: str) -> list[nn.Parameter]:
    """Parameters below a prefix.

    Raises:
        UnknownName: if there are none.
    """
    under = [p for name, p in module.named_parameters() if is_under(name, prefix)]
    if not under:
        known = {name.split(".")[0] for name, _ in module.named_parameters()}
        raise UnknownName(
            f"{type(module).__name__} has no parameters under {prefix!r}.{nearest(prefix, known)} "
            f"Top-level parts: {', '.join(sorted(known))}."
        )
    return under
