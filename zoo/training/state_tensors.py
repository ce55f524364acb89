"""The tensors of a module's state, step after step: asking for the dict takes longer than copying a small network."""

from __future__ import annotations

from itertools import chain
from operator import is_

from torch import Tensor, nn
from torchmetrics import Metric

__all__ = ["StateTensors"]


class StateTensors:
    """What `state_dict(keep_vars=True)` holds of tensors, looked up where the layers keep them.

    The places are those of the last call, as long as the layers are the same ones and hold as many tensors. What is
    not stored in a layer under its name (a state dict with hooks of its own) is asked for each time.

    Args:
        module: whose state it is.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._names: list[str] = []
        self._places: list[tuple[dict[str, Tensor | None], str]] | None = None
        self._find()

    @property
    def plain(self) -> bool:
        """Whether layers hold all of the state, and all of it is tensors."""
        return self._places is not None

    def get(self) -> tuple[list[str], list[Tensor]]:
        """Names and tensors, in the order of the state dict."""
        if self._places is not None and not self._same():
            self._find()
        if self._places is None:
            return self._ask()
        return self._names, [held[key] for held, key in self._places]  # type: ignore[misc]

    def _ask(self) -> tuple[list[str], list[Tensor]]:
        state = self.module.state_dict(keep_vars=True)
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        return list(tensors), list(tensors.values())

    def _find(self) -> None:
        """Look for the places; there are none to rely on where a layer makes its part of the dict by itself."""
        modules = list(self.module.modules())
        self._parts = [module._modules for module in modules]
        self._tree = list(chain.from_iterable(part.values() for part in self._parts))
        self._dicts = [held for module in modules for held in (module._parameters, module._buffers)]
        self._count = sum(map(len, self._dicts))
        self._hidden = [module._non_persistent_buffers_set for module in modules]
        self._hidden_count = sum(map(len, self._hidden))
        self._places = None
        if any(map(_makes_its_own, modules)):
            return
        places, layers = [], dict(self.module.named_modules(remove_duplicate=False))
        state = self.module.state_dict(keep_vars=True)
        self._names = list(state)
        for name, value in state.items():
            path, _, key = name.rpartition(".")
            owner = layers.get(path)
            held = [] if owner is None else [d for d in (owner._parameters, owner._buffers) if d.get(key) is value]
            if not isinstance(value, Tensor) or not held:
                return
            places.append((held[0], key))
        self._places = places

    def _same(self) -> bool:
        """Whether the layers are those that were looked at, with as many entries."""
        tree = list(chain.from_iterable(part.values() for part in self._parts))
        return (
            len(tree) == len(self._tree)
            and all(map(is_, tree, self._tree))
            and sum(map(len, self._dicts)) == self._count
            and sum(map(len, self._hidden)) == self._hidden_count
            and all(held.get(key) is not None for held, key in self._places or ())
        )


def _makes_its_own(module: nn.Module) -> bool:
    kind = type(module)
    usual = kind.state_dict is nn.Module.state_dict
    if isinstance(module, Metric):  # adds its counts, where it was asked to
        usual = kind.state_dict is Metric.state_dict and not any(module._persistent.values())
    usual = usual and kind._save_to_state_dict is nn.Module._save_to_state_dict
    return not usual or bool(module._state_dict_hooks or module._state_dict_pre_hooks)
