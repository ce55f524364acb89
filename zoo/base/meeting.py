"""Where a model meets data: its classes and picture sizes against theirs, in one place for all loops and commands.

Training takes what the data say, scoring holds both to be of the same classes and size. Nothing is compared that one
side does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from zoo.base.arguments import without_downloads
from zoo.base.modes import single_precision
from zoo.errors import InvalidConfig

__all__ = [
    "check_resumed",
    "check_size",
    "class_order",
    "data_of",
    "facts_of",
    "fit_to",
    "meet",
    "meet_checkpoint",
    "reading",
    "relabelled",
    "size_problem",
]


def data_of(trainer: Any) -> Any:
    """The data module of a run; where a loader was given instead, the one that made it; None if neither is known."""
    if getattr(trainer, "datamodule", None) is not None:
        return trainer.datamodule
    loops = {"fit": "fit_loop", "validate": "validate_loop", "test": "test_loop", "predict": "predict_loop"}
    loop = getattr(trainer, loops.get(trainer.state.fn or "", ""), None)
    given = getattr(getattr(loop, "_data_source", None), "instance", None)  # public once `setup` is over, too late here
    made = [loader.made_by for loader in _loaders(given) if getattr(loader, "made_by", None) is not None]
    return made[0] if made else None  # of several loaders a module would need `dataloader_idx`


def _loaders(given: Any) -> list[Any]:
    """The loaders in what a Trainer was given: one, or lists and mappings of them."""
    given = getattr(given, "iterables", given)  # a CombinedLoader
    if isinstance(given, Mapping):
        given = list(given.values())
    return [one for part in given for one in _loaders(part)] if isinstance(given, (list, tuple)) else [given]


def facts_of(data: Any) -> dict[str, Any]:
    """What data say about a model's arguments; nothing if they cannot say anything."""
    return dict(data.facts()) if hasattr(data, "facts") else {}


def class_order(model: Mapping[str, Any], data: Any, what: str = "The model") -> list[int] | None:
    """Which label of a model each label of data stands for, by the names of the classes.

    Args:
        model: its arguments.
        data: a data module.
        what: how a message calls the model.

    Returns:
        The model's label of each label of the data; None if they are the same, or one side has no names.

    Raises:
        InvalidConfig: if the names or their number differ: a score would mean nothing.
    """
    facts = facts_of(data)
    advice = "score it on data with the same classes, or fine-tune it on these first"
    known, here = model.get("num_classes"), facts.get("num_classes")
    if known is not None and here is not None and known != here:
        raise InvalidConfig(f"{what} was trained with num_classes {known}, the data have {here}: {advice}.")
    ours, theirs = model.get("class_names"), facts.get("class_names")
    if not ours or not theirs or not getattr(data, "has_class_names", True) or list(ours) == list(theirs):
        return None
    spelt = _spelling(ours, theirs)
    place = {spelt(name): label for label, name in enumerate(ours)}
    if sorted(place) != sorted(map(spelt, theirs)):
        raise InvalidConfig(
            f"{what} knows the classes {listed(ours)}, the data have {listed(theirs)}: a score would mean "
            f"nothing. To use it all the same, {advice}; if only names differ, give the data the model's."
        )
    order = [place[spelt(name)] for name in theirs]
    return order if order != list(range(len(order))) else None


def _spelling(*lists: Sequence[str]) -> Callable[[str], str]:
    """How names are compared: by letters and digits alone, if that keeps them apart; `T-shirt/top` is no folder."""

    def plain(name: str) -> str:
        return "".join(c for c in name.casefold() if c.isalnum())

    return plain if all(len({*map(plain, names)} - {""}) == len(names) for names in lists) else str


def size_problem(model: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """What is wrong if a model takes pictures of another size or number of channels than the data give."""
    if model.get("img_size") is None:
        return None
    for key, word in (("img_size", "pictures of side"), ("channels", "pictures with colour channels:")):
        ours, theirs = model.get(key), facts.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            return (
                f"The data give {word} {theirs}, the model takes {ours}: give the data {key}={ours} "
                f"(--data.{key} {ours}), or fine-tune the model on them."
            )
    return None


def check_size(model: Mapping[str, Any], data: Any) -> None:
    """Compare sizes and channels of pictures.

    Raises:
        InvalidConfig: if the data give others than the model takes.
    """
    if problem := size_problem(model, facts_of(data)):
        raise InvalidConfig(problem)


def reading(model: Mapping[str, Any], facts: Mapping[str, Any], accepted: Container[str]) -> dict[str, int]:
    """The arguments of a data module with which it reads pictures as a model takes them; empty if it does already.

    Args:
        model: its arguments.
        facts: of the data.
        accepted: arguments that the data module takes and the user left open.
    """
    keys = [key for key in ("img_size", "channels") if key in accepted and model.get("img_size") is not None]
    return {k: model[k] for k in keys if model.get(k) is not None and facts.get(k, model[k]) != model[k]}


def meet(module: Any, data: Any) -> list[int] | None:
    """Compare a model with the data that it is to be scored on; return the order of labels as `class_order` does.

    A model whose classes have no names takes those of the data.

    Raises:
        InvalidConfig: if they do not belong together.
    """
    check_size(module.hparams, data)
    order = class_order(module.hparams, data)
    names = facts_of(data).get("class_names")
    if names and "class_names" in module.hparams and not module.hparams["class_names"]:
        module.class_names = names  # of as many classes: a model without names loses nothing
    if order is not None:
        rank_zero_info("The classes of the data are the model's in another order: their labels are reordered.")
    return order


def relabelled(batch: dict[str, Any], order: Sequence[int] | None) -> dict[str, Any]:
    """A batch with the model's labels in place of the data's.

    Raises:
        InvalidConfig: if it has no labels that could be reordered.
    """
    if order is None:
        return batch
    key = next((key for key in ("label", "labels") if key in batch), None)
    if key is None:
        raise InvalidConfig(
            "The classes of the data are the model's in another order, and their batches have no label to reorder: "
            "give the data the model's class names in the model's order."
        )
    labels = batch[key]
    new = _reordered(labels, order) if isinstance(labels, Tensor) else [_reordered(part, order) for part in labels]
    return {**batch, key: new}


def _reordered(labels: Tensor, order: Sequence[int]) -> Tensor:
    return torch.as_tensor(order, dtype=labels.dtype, device=labels.device)[labels.long()]


def fit_to(module: Any, data: Any) -> None:
    """Make a model that is to be trained take over the class names and the picture size of the data.

    Where the model knows its classes by other names, or by these in another order, its head is for those: it is made
    new, as `zoo.load(..., class_names=...)` would.

    Raises:
        InvalidConfig: for another number of classes or channels, or a size that the network cannot take.
    """
    facts, options = facts_of(data), module.hparams
    wanted, here = facts.get("num_classes"), options.get("num_classes")
    if wanted is not None and here is not None and wanted != here:
        raise InvalidConfig(
            f"The data have {wanted} classes and the model {here}: zoo.load(..., num_classes={wanted}) makes a new "
            "head, or choose the data's classes."
        )
    _take_size(module, facts)
    names, known = facts.get("class_names"), options.get("class_names")
    if not names or "class_names" not in options:
        return
    module.class_names = list(names)  # so that they travel with the weights
    if known and list(known) != list(names):
        made = _renew_head(module)
        rank_zero_info(
            f"The classes are those of the data now, {listed(names)} (they were {listed(known)}), and the head is new: "
            f"{made} tensors re-initialised."
        )


def _take_size(module: Any, facts: Mapping[str, Any]) -> None:
    options = module.hparams
    size = facts.get("img_size")
    if size is None or options.get("img_size") is None:
        return
    if size != options["img_size"]:
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        other = {name: tensor.shape for name, tensor in _another(module, img_size=size).state_dict().items()}
        if shapes != other:
            raise InvalidConfig(
                f"The data give pictures of side {size}, and the network takes {options['img_size']} alone: give the "
                f"data img_size={options['img_size']}, or build a new model with img_size={size}."
            )
        rank_zero_info(f"img_size is {size} now, as the data have it (it was {options['img_size']}).")
        options["img_size"] = size
    if problem := size_problem(options, facts):
        raise InvalidConfig(problem)


def _renew_head(module: Any) -> int:
    """Give the head the values of a new module; return how many tensors that are."""
    head = {k: v for k, v in _another(module).state_dict().items() if module.role_of(k) == "head"}
    module.load_state_dict(head, strict=False)
    if module.report is not None:
        module.report.loaded = [key for key in module.report.loaded if key not in head]
        new = {*module.report.reinitialised, *head}
        module.report.reinitialised = [key for key in module.state_dict() if key in new]
    return len(head)


def _another(module: Any, **changes: Any) -> Any:
    """A new module with the same arguments; the random state stays."""
    given = {**module.init_args, **changes}
    with isolate_rng(), single_precision():
        return type(module)(**{**given, **without_downloads(type(module), given)})


def check_resumed(saved: Mapping[str, Any], facts: Mapping[str, Any], what: str = "The checkpoint") -> None:
    """Compare the arguments of a checkpoint whose training is to go on with what the data say.

    Raises:
        InvalidConfig: for other classes or another size.
    """
    for key in ("num_classes", "class_names", "img_size"):
        theirs, ours = saved.get(key), facts.get(key)
        if theirs is not None and ours is not None and _plain(theirs) != _plain(ours):
            raise InvalidConfig(
                f"{what} was trained with {key} {listed(theirs)}, the data have {listed(ours)}: resume with the same "
                "data, or start a new training from these weights (zoo.load, or --weights)."
            )


def meet_checkpoint(module: Any, checkpoint: Mapping[str, Any]) -> None:
    """Compare a checkpoint that a Trainer reads with the data, or give the module its names and size for scoring.

    Raises:
        InvalidConfig: if training would go on with other classes or another size.
    """
    saved = checkpoint.get("hyper_parameters") or {}
    if module.trainer.state.fn == "fit":
        check_resumed(saved, facts_of(data_of(module.trainer)))
        return
    for key in ("class_names", "img_size"):
        if key in module.hparams and saved.get(key) is not None:
            module.hparams[key] = _plain(saved[key])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def listed(names: Any) -> str:
    """Names on one line, shortened."""
    if not isinstance(names, (list, tuple)):
        return str(names)
    text = ", ".join(map(str, names))
    return text if len(text) <= 80 else text[:77] + "..."
