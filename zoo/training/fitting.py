"""Settings that fit a user's own data, in place of what a recipe sets for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidConfig
from zoo.index.recipes import section_of
from zoo.index.schema import OWN
from zoo.training.request import Request

if TYPE_CHECKING:
    from zoo.index import Entry

__all__ = ["fitting_settings", "without_own"]


def without_own(request: Request) -> str:
    """The name of the method, where `NAME:own` is that of the default tag.

    Raises:
        InvalidConfig: if there are no own data, or nothing was trained on them that could be scored.
    """
    name, _, tag = str(request.zoo).partition(":")
    if tag != OWN:
        return str(request.zoo)
    if "root" not in request.explicit_data and not request.help:
        raise InvalidConfig(f"{request.zoo} is trained on your own data: give their folder with --data.root DIR.")
    if request.command != "fit" and not (request.weights or request.ckpt_path):
        raise InvalidConfig(f"{request.zoo} is no trained model: say which is meant with --ckpt_path or --weights.")
    return name


def fitting_settings(
    entry: Entry, tag: str | None, request: Request, recipe: dict[str, Any], own: Any, data: Any
) -> dict[str, Any]:
    """What the data suggest and the user has not chosen: `data.NAME`, `model.NAME` or `trainer.NAME` -> value.

    Args:
        entry: of the method.
        tag: of the recipe.
        request: what was asked for.
        recipe: of the tag.
        own: the resolved settings.
        data: the data module that they make.
    """
    if request.command != "fit" or request.saved_facts or "root" not in request.explicit_data:
        return {}
    from zoo.store.recipe_data import are_the_recipes  # imports lightning: a misspelt name is answered before

    cls = entry.data_class()
    suggest = getattr(data, "fitting", None)
    if suggest is None or are_the_recipes(entry, tag, cls, section_of(recipe, "data", cls), own.data["root"]):
        return {}
    trained = own.get("weights") is not None

    def is_open(setting: str) -> bool:
        section, _, name = setting.partition(".")
        if request.chose(setting):
            return False
        if section == "model":  # what a method leaves out it does without, and trained weights know their own
            return own.model.get(name) is not None and not trained
        return name != "max_epochs" or entry.learns in ("gradient", "rounds")

    return {k: v for k, v in suggest(own.trainer.max_epochs or 1).items() if is_open(k)}
