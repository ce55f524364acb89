"""Model cards and the README's table of methods, generated from the index, the claims and the results.

A card that differs from its regeneration fails a test, so no number on a page can drift from what was measured.
Pictures are drawn on demand (`zoo card ID --images`), since they need the weights; everything else needs neither torch
nor lightning.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo import claims as evidence
from zoo import index
from zoo.card.classes import measure, out_of_date
from zoo.card.eval import FOLDER, eval_results
from zoo.card.text import BLOCKS, card_text, hand_written, metrics_text, table
from zoo.errors import BadInput
from zoo.files import PACKAGE, write_whole
from zoo.index import Entry
from zoo.studies import import_beside
from zoo.text import human_bytes, human_count

__all__ = [
    "BLOCKS",
    "check",
    "check_readme",
    "draw",
    "has_card",
    "measure",
    "readme_table",
    "render",
    "write",
    "write_readme",
]

_START, _END = "<!-- methods:start -->", "<!-- methods:end -->"


def has_card(entry: Entry) -> bool:
    """Whether a method belongs to our own index, or has a card of its own elsewhere."""
    return Path(entry.source) == index.index_path() or (evidence.card_folder(entry) / "README.md").is_file()


def render(entry: Entry) -> str:
    """The card as it should be, with the hand-written parts of the one that is there."""
    folder = evidence.card_folder(entry)
    path = folder / "README.md"
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    return card_text(entry, evidence.claims_of(entry), evidence.results_of(entry), old, folder)


def write(entry: Entry) -> list[Path]:
    """Write a card and its `.eval_results`, after bringing results.json up to date; returns the files that changed.

    Raises:
        BadInput: if the zoo is installed, not checked out.
    """
    if PACKAGE in evidence.card_folder(entry).resolve().parents:
        raise BadInput("Cards are written in a checkout of the zoo; this one is installed. Clone the repository.")
    folder = evidence.card_folder(entry)
    written = evidence.rejudge(entry) + _replace(folder / "README.md", render(entry))
    wanted = eval_results(entry)
    for name, text in wanted.items():
        written += _replace(folder / FOLDER / name, text)
    for path in _stale(folder / FOLDER, wanted):
        path.unlink()
        written.append(path)
    return written


def _stale(folder: Path, wanted: Iterable[str]) -> list[Path]:
    """Results of weights that are not published any more."""
    return sorted(path for path in folder.glob("*.yaml") if path.name not in set(wanted))


def check(entry: Entry) -> list[str]:
    """What is wrong with a card: out of date, verdicts that do not follow from the raw values, parts not written."""
    path = evidence.card_folder(entry) / "README.md"
    fresh = render(entry)
    problems = [f"{entry.id}: {problem.partition(': ')[2]}" for problem in evidence.drifted(entry)]
    if not path.is_file() or path.read_text(encoding="utf-8") != fresh:
        problems.append(f"{entry.id}: README.md is out of date; run: zoo card {entry.id}")
    wanted = eval_results(entry)
    folder = path.parent / FOLDER
    old = {name: (folder / name).read_text(encoding="utf-8") for name in wanted if (folder / name).is_file()}
    if old != wanted or _stale(folder, wanted):
        problems.append(f"{entry.id}: {FOLDER} is out of date; run: zoo card {entry.id}")
    if out_of_date(entry, path.parent):
        problems.append(f"{entry.id}: classes.json is of other weights; run: zoo card {entry.id} --classes")
    missing = [
        name for name in BLOCKS if not hand_written(fresh).get(name) or f"*To be written:* {BLOCKS[name]}" in fresh
    ]
    problems += [f"{entry.id}: the part {name!r} is not written yet: {BLOCKS[name]}" for name in missing]
    return problems


def _replace(path: Path, text: str) -> list[Path]:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return [path]


# The README's table -----------------------------------------------------------------------------------------------


def readme_table(entries: Iterable[Entry] | None = None) -> list[str]:
    """One row per method: what it is, which weights there are, and how many of its claims hold."""
    if entries is None:
        entries = [e for e in index.entries().values() if Path(e.source) == index.index_path()]
    rows = [_row(entry) for entry in entries]
    head = ("id", "method", "task", "weights", "parameters", "size", "headline", "claims held", "licence")
    return table(head, rows)


def _row(entry: Entry) -> tuple[str, ...]:
    ready = [w for w in entry.weights.values() if w.sha256]
    ready.sort(key=lambda w: w.tag != entry.default)
    claims = evidence.claims_of(entry)
    verdicts = evidence.results_of(entry).get("claims", {})
    held = sum(_said(verdicts, c.id) == "holds" for c in claims)
    untested = {name: sum(_said(verdicts, c.id) == name for c in claims) for name in ("premise not met", "not run")}
    rest = [f"{count} {name}" for name, count in untested.items() if count]
    score = ", ".join([f"{held} of {len(claims) - sum(untested.values())} run", *rest]) if claims else "-"
    return (
        f"[{entry.id}](model_cards/{entry.id}/README.md)",
        entry.summary,
        entry.tag().task,
        "<br>".join(w.tag for w in ready) or "-",
        "<br>".join(human_count(w.params) for w in ready) or "-",
        "<br>".join(human_bytes(w.bytes) for w in ready) or "-",
        "<br>".join(metrics_text(w).split(", ")[0] for w in ready) or "-",
        score,
        ", ".join(sorted({w.licence for w in ready})) or entry.licence,
    )


def _said(verdicts: dict[str, Any], name: str) -> str:
    return str(verdicts.get(name, {}).get("verdict", "not run"))


def _readme() -> tuple[Path, str, str]:
    """The README of a checkout, as it is and as it should be.

    Raises:
        BadInput: if there is none, or it lacks the markers.
    """
    path = index.index_path().parent / "README.md"
    if index.index_path().parent.resolve() == PACKAGE or not path.is_file():
        raise BadInput("There is no README.md beside the index: this works in a checkout of the zoo only.")
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise BadInput(f"{path}: expected the lines {_START} and {_END}, between which the table of methods goes.")
    return path, text, "\n".join([before + _START, *readme_table(), _END]).replace("\n\n" + _END, "\n" + _END) + after


def write_readme() -> list[Path]:
    """Fill in the README's table; returns its path if that changed anything."""
    path, _, fresh = _readme()
    return _replace(path, fresh)


def check_readme() -> list[str]:
    """A problem, if the table is out of date."""
    _, text, fresh = _readme()
    return [] if text == fresh else ["README.md: the table of methods is out of date; run: zoo card --all"]


# Pictures ---------------------------------------------------------------------------------------------------------


def draw(entry: Entry) -> list[Path]:
    """Draw what the method draws itself, the output of the default weights, and the curves of claims that have any.

    Raises:
        MissingExtra: if there are curves and matplotlib is not installed.
    """
    from zoo.card.plots import draw_claims
    from zoo.pictures.axes import save_png
    from zoo.pictures.card import CardFiles, card_pictures

    folder = evidence.card_folder(entry) / "images"
    module = import_beside(entry.id, "pictures")
    functions = {} if module is None else card_pictures(module)
    files = CardFiles(entry.id, folder.parent)
    functions.setdefault(f"output-{entry.default}", lambda card: _output(entry))
    drawn = []
    for name, function in functions.items():
        picture = function(files)
        if picture is not None:
            drawn.append(folder / f"{name}.png")
            save_png(picture, drawn[-1])
    return drawn + draw_claims(entry, evidence.claims_of(entry), evidence.results_of(entry), folder)


def _output(entry: Entry) -> Any:
    """`show` of `predict` on test samples of the default data; None while there are no weights."""
    default = entry.weights.get(entry.default or "")
    if default is None or default.sha256 is None:
        return None
    from zoo.pictures.tiles import tiled
    from zoo.store import datamodule, load

    model, data = load(entry.id), datamodule(entry.id)
    own = model.init_args
    try:
        facts = data.facts()
    except BadInput:
        return None  # its data are not embedded but must be fetched
    if any(own.get(name, value) != value for name, value in facts.items() if name != "class_names"):
        return None  # trained on data of another kind than the embedded ones
    source: Any = data
    samples = _samples(source.split("test"))
    try:
        pictures = [model.show(x, result) for x, result in zip(samples, model.predict(samples), strict=True)]
    except NotImplementedError:
        return None
    return tiled(pictures)


_TOGETHER = 4  # pictures of a card, where there are no classes to show one by one
_SEARCHED = 300  # samples among which they are chosen, from the whole split: many are sorted by class


def _samples(part: Any) -> list[Any]:
    """Inputs of `predict` from a split: one of each class, or some that show as many classes as possible."""
    import torch

    count = min(_SEARCHED, len(part))
    items = [part[i * len(part) // count] for i in range(count)]
    labels = [item["labels" if "labels" in item else "label"] for item in items if {"label", "labels"} & item.keys()]
    if labels and all(torch.as_tensor(label).ndim == 0 for label in labels):
        firsts = {int(label): item for label, item in reversed(list(zip(labels, items, strict=True)))}
        chosen = [firsts[label] for label in sorted(firsts)][:10]
    elif labels:
        chosen = [items[i] for i in _covering([set(torch.as_tensor(label).tolist()) for label in labels], _TOGETHER)]
    else:
        chosen = items[:_TOGETHER]
    return [_input_of(item) for item in chosen]


def _covering(sets: list[set[int]], count: int) -> list[int]:
    """Positions of a few sets which together hold as many different members as possible, chosen one by one."""
    chosen: list[int] = []
    held: set[int] = set()
    while len(chosen) < min(count, len(sets)):
        left = [i for i in range(len(sets)) if i not in chosen]
        best = max(left, key=lambda i: (len(sets[i] - held), -i))
        chosen.append(best)
        held |= sets[best]
    return chosen


def _input_of(item: dict[str, Any]) -> Any:
    """What `predict` takes of an item: its image, or its first tensor that is no label."""
    import torch

    if "image" in item:
        return item["image"]
    return next(v for k, v in item.items() if isinstance(v, torch.Tensor) and v.ndim and not k.startswith("label"))
