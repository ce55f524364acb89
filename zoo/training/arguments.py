"""Which arguments a model gets when recipe, flags, starting weights, a checkpoint and the data all have a say."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidConfig, ZooError
from zoo.store.build import check_foreign
from zoo.store.foreign import own_arguments
from zoo.store.hub import Hub
from zoo.store.reference import Reference, reference_of
from zoo.store.sources import Checkpoint, find

if TYPE_CHECKING:
    from zoo.index import Entry

__all__ = [
    "Source",
    "apply_checkpoint",
    "apply_facts",
    "apply_source",
    "check_channels",
    "describe_source",
    "drop_other_channels",
    "resumable",
    "shapes_differ",
]


@dataclass(frozen=True)
class Source:
    """Where weights come from and what their module was built with.

    Attributes:
        name: as given by the user.
        reference: the name, resolved.
        checkpoint: what is known without reading tensors.
    """

    name: str
    reference: Reference
    checkpoint: Checkpoint

    @property
    def id(self) -> str:
        """Index id of the method."""
        return self.checkpoint.entry.id

    @property
    def init(self) -> dict[str, Any]:
        """Constructor arguments."""
        return self.checkpoint.init


def describe_source(name: str) -> Source:
    """Find out whose weights they are and what their module was built with; of tensors nothing is read."""
    reference = reference_of(name)
    return Source(name, reference, find(reference, Hub(), weights=False))


def apply_source(
    model: dict[str, Any],
    source: Source,
    *,
    explicit: Iterable[str],
    recipe: Mapping[str, Any],
    shapes_differ: Callable[[str, Any], bool],
) -> list[str]:
    """Let the weights' arguments replace those that the user did not choose, in place.

    What the recipe sets and the shapes do not depend on (a learning rate) stays: it belongs to the new training.

    Args:
        model: the model arguments so far.
        source: the weights.
        explicit: arguments that the user chose; they stay.
        recipe: what the recipe says about the model.
        shapes_differ: whether changing one argument changes the parameters.

    Returns:
        Lines that say what was taken.
    """
    chosen = set(explicit)
    notes = []
    for key, value in source.init.items():
        if key not in model or key in chosen or _plain(model[key]) == _plain(value):
            continue
        if key in recipe and not shapes_differ(key, value):
            continue
        notes.append(f"{key}={_short(value)} (was {_short(model[key])})")
        model[key] = value
    return notes


def resumable(
    path: str | Path, saved: Mapping[str, Any], model: Mapping[str, Any], entry: Entry, *, runs: Path
) -> dict[str, Any]:
    """What of a checkpoint's arguments a resumed run takes.

    All of it, if the checkpoint lies among this method's own runs. One from elsewhere is judged as weights are, and of
    another network that it names, the user must say that it is wanted.

    Args:
        path: of the checkpoint.
        saved: its arguments.
        model: arguments that flags, files and recipe give.
        entry: the method.
        runs: folder of its runs.

    Raises:
        InvalidConfig: if it names another network than `model` does.
        UnsafeFile: if its arguments ask for more than the file explains.
    """
    place = Path(path).resolve()
    if place.is_relative_to(runs.resolve()):
        return dict(saved)
    known = {key: value for key, value in saved.items() if key in model}
    own, left_out = own_arguments(entry.model_class(), known, str(path))
    for name, value in left_out.items():
        if model.get(name) != value:
            raise InvalidConfig(
                f"{path} was trained with the {name} {value[:200]!r}, which is fetched or read only if you say so: add "
                f"--model.{name} {value[:200]}"
            )
        own[name] = value
    check_foreign(Checkpoint(entry, str(path), {**own, **dict.fromkeys(left_out)}, size=place.stat().st_size))
    return own


def apply_checkpoint(model: dict[str, Any], saved: Mapping[str, Any], *, explicit: Iterable[str]) -> list[str]:
    """Let a checkpoint that is resumed decide every argument, in place; return the flags it overrides."""
    overridden = []
    for key, value in saved.items():
        if key not in model:
            continue
        if key in set(explicit) and model[key] != value:
            overridden.append(f"--model.{key} {_short(model[key])} (the checkpoint has {_short(value)})")
        model[key] = value
    return overridden


def apply_facts(
    model: dict[str, Any],
    facts: Mapping[str, Any],
    *,
    explicit: Iterable[str],
    saved_facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Fill the arguments that the data decide, in place; return what was filled.

    Raises:
        InvalidConfig: if the user chose another value.
    """
    chosen = set(explicit)
    filled = {}
    for key, value in facts.items():
        if key not in model or value is None:
            continue
        value = list(value) if isinstance(value, tuple) else value
        if key in chosen and model[key] is not None and model[key] != value and model[key] != saved_facts.get(key):
            raise InvalidConfig(
                f"--model.{key} {_short(model[key])} contradicts the data, where {key} is {_short(value)}. "
                f"Leave --model.{key} out (it is taken from the data), or correct the data."
            )
        model[key] = value
        filled[key] = value
    return filled


def check_channels(source: Source, model: Mapping[str, Any]) -> None:
    """Compare the colour channels of starting weights with those of the data.

    Raises:
        InvalidConfig: if they differ: the first layer would not fit, whatever the arguments.
    """
    usual = inspect.signature(source.checkpoint.entry.model_class()).parameters.get("channels")
    theirs = source.checkpoint.init.get("channels", usual.default if usual is not None else None)
    ours = model.get("channels")
    if isinstance(theirs, int) and ours is not None and theirs != ours:
        raise InvalidConfig(
            f"The weights {source.name} take pictures with {theirs} colour channel{'s' * (theirs != 1)}, the data give "
            f"{ours}. Read the data as the weights take them (--data.channels {theirs}), or leave --weights out."
        )


def drop_other_channels(model: dict[str, Any], *, explicit: Iterable[str]) -> list[str]:
    """Leave out means and deviations that are not one for each channel of the data, in place; return their names."""
    dropped = []
    for key in ("mean", "std"):
        values = model.get(key)
        if isinstance(values, (list, tuple)) and len(values) != model.get("channels") and key not in set(explicit):
            model[key] = None
            dropped.append(key)
    return dropped


def shapes_differ(model_class: Callable[..., Any], model: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether one argument changes names or shapes of the state dict; True where that is unknown."""
    import torch
    from lightning.pytorch.utilities.seed import isolate_rng

    def shapes(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        with isolate_rng(), torch.device("meta"):
            return {name: tuple(t.shape) for name, t in model_class(**arguments).state_dict().items()}

    try:
        return shapes(model) != shapes({**model, key: value})
    except ZooError:
        raise
    except Exception:  # a constructor that cannot run without real tensors: better the trained value than a wrong one
        return True


def _plain(value: Any) -> Any:
    """A default may be a tuple, which files keep as a list."""
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (list, dict)) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
