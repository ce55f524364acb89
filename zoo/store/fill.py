"""Putting a state into a module: strict, except for what `parameter_roles` declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.base.compiled import plain_name, plain_names
from zoo.base.report import LoadReport
from zoo.errors import KeyMismatch, ShapeMismatch

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["fill"]


def fill(module: ZooModule, state: Mapping[str, Tensor], report: LoadReport, *, remake: bool) -> LoadReport:
    """Copy a state into a module; nothing is copied unless all of it fits.

    Args:
        module: the module.
        state: names and tensors of the file.
        report: gets the lists of keys.
        remake: keep the module's own new head instead of the file's.

    Raises:
        KeyMismatch: if keys are missing or unexpected, or a dtype differs.
        ShapeMismatch: if only shapes differ.
    """
    own = {k: v for k, v in plain_names(module.state_dict(keep_vars=True)).items() if isinstance(v, Tensor)}
    parameters = {plain_name(name) for name, _ in module.named_parameters(remove_duplicate=False)}
    accepted: dict[str, Tensor] = {}
    keys: list[str] = []
    shapes: list[str] = []
    for name, tensor in state.items():
        role = module.role_of(name)
        if role == "head" and remake:
            continue  # listed below, with the module's own keys
        if name not in own:
            report.unexpected.append(name)
            if role not in ("training", "private"):
                keys.append(f"{name}: in the file, not in the module")
        elif problem := _dtype_problem(tensor, own[name], name in parameters):
            keys.append(f"{name}: {problem}")
        elif tensor.shape == own[name].shape or role == "elastic":
            accepted[name] = tensor
        elif not (remake and role in ("training", "private")):
            shapes.append(f"{name}: the file has {list(tensor.shape)}, the module {list(own[name].shape)}")
    tied = {_memory(own[name]) for name in state if name in own}
    for name, tensor in own.items():
        role = module.role_of(name)
        if name in accepted:
            report.loaded.append(name)
        elif remake and (role == "head" or (name in state and role in ("training", "private"))):
            report.reinitialised.append(name)
        elif name in state:
            continue  # already a problem
        elif tensor.numel() and _memory(tensor) in tied:
            report.loaded.append(name)  # shares memory with a tensor that is in the file
        elif role in ("training", "private"):
            report.missing.append(name)
        else:
            keys.append(f"{name}: in the module, not in the file")
    _raise(module, report.name, keys, shapes)
    _resize(module, {n: t for n, t in accepted.items() if t.shape != own[n].shape})
    module.load_state_dict(accepted, strict=False)
    stored = {str(accepted[n].dtype).removeprefix("torch.") for n in accepted if accepted[n].is_floating_point()}
    report.dtype = "float16" if "float16" in stored else next(iter(sorted(stored)), "")
    return report


def _dtype_problem(tensor: Tensor, target: Tensor, is_parameter: bool) -> str | None:
    """Half precision may stand for float32 parameters; a buffer may hold counts or limits that it would spoil."""
    if tensor.dtype == target.dtype:
        return None
    if tensor.dtype == torch.float16 and target.dtype == torch.float32 and is_parameter:
        return None
    return f"the file has {tensor.dtype}, the module {target.dtype}" + (
        " (half precision is for parameters only)" if tensor.dtype == torch.float16 else ""
    )


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _raise(module: nn.Module, name: str, keys: list[str], shapes: list[str]) -> None:
    problems = keys + shapes
    if not problems:
        return
    shown = "\n  ".join(problems[:12]) + (f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else "")
    kind, what = (KeyMismatch, "keys") if keys else (ShapeMismatch, "shapes")
    raise kind(
        f"{name} does not fit {type(module).__name__}: {len(problems)} {what} differ, and nothing was loaded."
        f"\n  {shown}\nBuild the module with the arguments the weights were made with; only the class count may differ "
        "(num_classes=)."
    )


def _resize(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give elastic buffers and parameters the shape of the file."""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        old = getattr(owner, leaf)
        new = torch.empty(tensor.shape, dtype=old.dtype, device=old.device)
        if leaf in owner._parameters:
            setattr(owner, leaf, nn.Parameter(new, requires_grad=old.requires_grad))
        else:
            setattr(owner, leaf, new)
