"""One row of the board as a file: verdicts of pictures, and what is derived from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import BadInput
from zoo.files import write_whole
from zoo.index import index_path
from zoo.robustness.report import wilson

__all__ = ["BoardRow", "Verdicts", "place_of", "published", "rows_in"]

_FORMAT = 1


@dataclass
class Verdicts:
    """Which pictures withstand one attack.

    Attributes:
        about: settings of the attack, with the package that ran it.
        seen: it has run on the first so many pictures.
        bits: hexadecimal; the first picture is the highest of `seen` bits, 1 where it is still classified correctly.
        seconds: it took.
        declared: whether the model declares this attack against itself.
    """

    about: str = ""
    seen: int = 0
    bits: str = ""
    seconds: float = 0.0
    declared: bool = False

    @property
    def flags(self) -> list[bool]:
        """One for each picture seen."""
        return [digit == "1" for digit in f"{int(self.bits, 16):0{self.seen}b}"] if self.seen else []

    def add(self, flags: Iterable[bool], seconds: float) -> None:
        """Append the verdicts of the next pictures."""
        digits = "".join("01"[flag] for flag in (*self.flags, *flags))
        self.seen, self.bits = len(digits), f"{int(digits, 2):x}" if digits else ""
        self.seconds = round(self.seconds + seconds, 1)

    @property
    def share(self) -> float:
        """Of the pictures seen that withstand."""
        return sum(self.flags) / self.seen if self.seen else 0.0


@dataclass
class BoardRow:
    """A checkpoint, or a network of a user's, on the board.

    Attributes:
        name: `id:tag`, or what a user calls it.
        sha256: of the weights; None for a callable.
        data: `name`, `pictures` (hash of the first pictures and labels), `total` (size of the test set).
        eps: radius.
        norm: `linf` or `l2`.
        seed: of the choice of pictures and of the attacks.
        n: pictures asked for.
        params: parameters; None if unknown.
        macs: multiply-adds of one picture; None if unknown.
        minutes: of the training, as its recipe states them; None if unknown.
        own: whether it is a user's.
        clean: verdicts without attack.
        attacks: name -> verdicts, in the order in which they ran.
        checks: of the battery against masked gradients: `n` pictures, `attacks` whose verdicts it used, and `results`,
            each with `name`, `ok`, `measured`.
        made: versions, hardware, commit, and the minutes that measuring took.
        command: that measures it again.
    """

    name: str
    sha256: str | None
    data: dict[str, Any]
    eps: float
    norm: str
    seed: int
    n: int
    params: int | None = None
    macs: int | None = None
    minutes: float | None = None
    own: bool = False
    clean: Verdicts = field(default_factory=Verdicts)
    attacks: dict[str, Verdicts] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What must be equal for verdicts to belong together."""
        return self.name, self.sha256, self.data.get("pictures"), self.eps, self.norm, self.seed

    @property
    def group(self) -> tuple[Any, ...]:
        """What must be equal for rows to be compared."""
        return self.data.get("pictures"), self.norm, self.eps, self.seed

    @property
    def standing(self) -> list[bool]:
        """Which pictures withstand everything that ran on them."""
        left = self.clean.flags
        for verdicts in self.attacks.values():
            for number, flag in enumerate(verdicts.flags):
                left[number] &= flag
        return left

    @property
    def worst(self) -> float:
        """Share of the pictures that withstands every attack: what the rows are ordered by."""
        return sum(self.standing) / max(1, self.clean.seen)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `worst`, for the choice of pictures."""
        return wilson(self.worst, max(1, self.clean.seen))

    @property
    def declared(self) -> list[str]:
        """Names of the attacks that the model declares against itself."""
        return [name for name, verdicts in self.attacks.items() if verdicts.declared]

    @property
    def suspicious(self) -> list[str]:
        """Checks that failed."""
        return [check["name"] for check in self.checks.get("results", []) if check["ok"] is False]

    def save(self, path: Path) -> None:
        """Write it whole; verdicts that another process has added meanwhile stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and (known := read_row(path)).key == self.key:
            for name, theirs in known.attacks.items():
                ours = self.attacks.setdefault(name, theirs)
                if ours.about == theirs.about and ours.seen < theirs.seen:
                    self.attacks[name] = theirs
            self.clean = max(self.clean, known.clean, key=lambda verdicts: verdicts.seen)
        write_whole(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n")


def read_row(path: Path) -> BoardRow:
    """A row from its file.

    Raises:
        BadInput: naming the file, if it is none.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("format") != _FORMAT:
            raise ValueError("another format")
        raw["clean"] = Verdicts(**raw["clean"])
        raw["attacks"] = {name: Verdicts(**about) for name, about in raw["attacks"].items()}
        row = BoardRow(**raw)
        for verdicts in (row.clean, *row.attacks.values()):
            if len(verdicts.flags) != verdicts.seen or verdicts.seen > row.clean.seen:
                raise ValueError("verdicts do not fit the number of pictures")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path}: no row of a leader board ({type(error).__name__}: {str(error)[:120]}). Remove it, and measure it "
            "again."
        ) from None
    return row


def rows_in(folder: Path) -> list[BoardRow]:
    """Rows of a folder, by name; none if it does not exist."""
    return [read_row(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []


def home() -> Path:
    """Folder of the published rows, in a checkout or in the installed package."""
    return index_path().parent / "docs" / "leaderboards" / "robustness"


def published() -> list[BoardRow]:
    """What the zoo publishes."""
    return rows_in(home())


def place_of(folder: Path, name: str, norm: str, eps: float) -> Path:
    """File of a row."""
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '--', name).strip('-.') or 'row'}--{norm}-{eps:.4g}.json"
