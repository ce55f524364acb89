"""Pictures of a model card: the module `pictures` beside a method's model draws those that only the method can draw.

Such a picture is a function marked with `@card_picture(name)`. It takes the card's files and returns a PIL image or a
matplotlib figure, or None where what it needs is missing. `zoo card ID --images` calls them all and writes
`model_cards/<id>/images/<name>.png`. There is no registry: the module's name is the link, as for studies.

    @card_picture("attacked")
    def attacked(card: CardFiles) -> Any: ...
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from zoo.errors import BadData, BadInput

__all__ = ["CardFiles", "card_picture", "card_pictures"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class CardFiles:
    """What the pictures of a card are drawn from.

    Args:
        method: id in the index.
        folder: with the card and its results.
    """

    method: str
    folder: Path

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file of the card; None if there is none.

        Args:
            name: of the file.

        Raises:
            BadData: if it is no JSON.
        """
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadData(f"{path}: not valid JSON ({error}). Restore the file from version control.") from None
        return content

    def runs(self, study: str | None = None) -> list[dict[str, Any]]:
        """The runs behind the claims, each with `spec`, `metrics` and `curves`, in the order of the file.

        Args:
            study: only those of this study.
        """
        runs = (self.read("results.json") or {}).get("runs", {}).values()
        return [run for run in runs if study is None or run["spec"].get("study") == study]


def card_picture(name: str) -> Callable[[F], F]:
    """Mark a function as a picture of the card.

    Args:
        name: of the PNG file, without its ending. `output-<tag>` of the default weights replaces the picture that is
            drawn from the first samples of the default data.
    """
    if not name or Path(name).name != name or name.endswith(".png"):
        raise BadInput(f"card_picture: expected the name of a file without its ending, got {name!r}.")

    def mark(function: F) -> F:
        function.card_picture = name  # type: ignore[attr-defined]
        return function

    return mark


def card_pictures(module: ModuleType) -> dict[str, Callable[[CardFiles], Any]]:
    """The pictures that a module draws: name -> function.

    Args:
        module: of a method.

    Raises:
        BadInput: if two of its functions have the same name for their picture.
    """
    pictures: dict[str, Callable[[CardFiles], Any]] = {}
    for function in vars(module).values():
        name = getattr(function, "card_picture", None) if inspect.isfunction(function) else None
        if name is None:
            continue
        if name in pictures:
            raise BadInput(f"{module.__name__}: expected one function for the picture {name!r}, got two.")
        pictures[name] = function
    return pictures
