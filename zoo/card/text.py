"""The text of a model card: from index, recipe, claims and results, with the hand-written parts kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo import index
from zoo.card.classes import FILE, kept
from zoo.card.header import header
from zoo.claims.results import after_holm
from zoo.claims.schema import Claim
from zoo.index import Entry, Weights
from zoo.index.recipes import read_recipe, section_of
from zoo.text import human_bytes, human_count

__all__ = ["BLOCKS", "card_text", "hand_written", "usage"]

BLOCKS = {
    "about": "What it does, in three sentences.",
    "inputs": "Inputs and outputs: shapes, units, ranges.",
    "data": "Which data the weights were trained on, where they come from, and what is wrong with them.",
    "limits": "Known limits.",
    "choices": "Where the paper is silent, and what was chosen.",
}
"""Parts that people write. `zoo card` keeps what stands between their markers."""

_HAND = re.compile(r"<!-- hand:(\w+) -->\n(.*?)<!-- /hand -->", re.DOTALL)
_TODO = "*To be written:* "


def hand_written(text: str) -> dict[str, str]:
    """The hand-written parts of a card, by name."""
    return {name: body.strip() for name, body in _HAND.findall(text)}


def _hand(name: str, kept: dict[str, str]) -> list[str]:
    body = kept.get(name) or f"{_TODO}{BLOCKS[name]}"
    return [f"<!-- hand:{name} -->", body, "<!-- /hand -->", ""]


def card_text(entry: Entry, claims: Sequence[Claim], results: dict[str, Any], old: str, folder: Path) -> str:
    """A whole card.

    Args:
        entry: the method.
        claims: its claims.
        results: content of its results.json.
        old: the card as it is, whose hand-written parts stay.
        folder: of the card, to see which pictures there are.
    """
    kept = hand_written(old)
    view = entry.tag()
    lines = [*header(entry), "", f"# {entry.id}", ""]
    lines += ["<!-- Written by `zoo card`. Only what stands between the hand: markers is edited by hand. -->", ""]
    lines += [entry.summary, "", *_hand("about", kept)]
    lines += _picture(folder, f"output-{entry.default}", f"Output of {entry.id}:{entry.default} on test samples")
    lines += ["## Use", "", *usage(entry), *_hand("inputs", kept)]
    lines += ["## Weights", "", *_weights(entry), *_classes(entry, folder), "## Training", "", *_training(entry)]
    lines += ["## Claims", "", *_claims(entry, claims, results, folder)]
    lines += ["## Data", "", *_data(entry), *_hand("data", kept)]
    lines += ["## Known limits", "", *_hand("limits", kept)]
    lines += ["## Where the paper is silent", "", *_hand("choices", kept)]
    lines += ["## Licence", "", f"Code: {entry.licence}. Weights: {_licences(entry)}.", ""]
    lines += ["## Citation", "", *_citation(view)]
    return "\n".join(lines).rstrip() + "\n"


def _picture(folder: Path, stem: str, text: str) -> list[str]:
    path = folder / "images" / f"{stem}.png"
    return [f"![{text}](images/{path.name})", ""] if path.is_file() else []


def _licences(entry: Entry) -> str:
    return ", ".join(sorted({w.licence for w in entry.weights.values() if w.licence})) or "-"


# Use --------------------------------------------------------------------------------------------------------------


def usage(entry: Entry) -> list[str]:
    """Code that a test executes as it stands, in a folder with a `picture.jpg`."""
    default = entry.weights.get(entry.default or "")
    ready = default is not None and default.sha256 is not None
    call = f'zoo.load("{entry.id}")' if ready else f'zoo.load("{entry.id}", weights=False)'
    lines = ["```python", "import zoo", "", f"model = {call}" + ("" if ready else "  # no weights yet: untrained")]
    task = index.TASKS[entry.tag().task]
    if file := task.example_file:
        shown = ", ".join(f'result["{key}"]' for key in task.prints) or "result"
        lines += [f'result = model.predict("{file}")[0]', f"print({shown})"]
        lines += [f'model.show("{file}", result).save("result.png")']
    else:
        lines += ["print(model(*model.example_input()))"]
    lines += ["```", ""]
    if ready:
        lines += ["```bash", f"zoo predict {entry.id} {file or 'INPUT'} --out results"]
        lines += [f"zoo train {entry.id} --weights {entry.id} --data.root DIR      # fine-tune on your own data"]
        lines += ["```", ""]
    return lines


# Weights and training ---------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table, or nothing without rows."""
    body = [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body, ""] if body else []


def metrics_text(weights: Weights) -> str:
    """All headline numbers of a checkpoint."""
    return ", ".join(f"{key} {value:.4g}" for key, value in weights.metrics.items()) or "-"


def _weights(entry: Entry) -> list[str]:
    ready = [w for w in entry.weights.values() if w.sha256]
    rows = []
    for w in ready:
        name = f"`{entry.id}:{w.tag}`" + (" (default)" if w.tag == entry.default else "")
        rows.append(
            (name, human_count(w.params), human_bytes(w.bytes), metrics_text(w), f"`{str(w.sha256)[:12]}`", w.licence)
        )
    lines = table(("name", "parameters", "size", "measured", "sha256", "licence"), rows)
    others = [f"`{w.tag}`" for w in entry.weights.values() if not w.sha256]
    if others:
        listed = f"{', '.join(others)}."
        word = "recipe" if len(others) == 1 else "recipes"
        lines += folded(f"{len(others)} {word} without published weights", [listed, ""], when=len(others) > _LONG)
    return lines


def _classes(entry: Entry, folder: Path) -> list[str]:
    """The scores of each class, worst first."""
    stored = kept(folder)
    if stored is None:
        return []
    rows = sorted(stored["classes"].items(), key=lambda pair: float(pair[1]))
    about = f"Each class of `{entry.id}:{stored['tag']}`, {stored['score']} on {stored['samples']:,} test samples"
    listed = table(("class", "score"), [(name, f"{value:.3f}") for name, value in rows])
    return [f"{about} ([classes.json]({FILE}), written by `zoo card {entry.id} --classes`):", "", *listed]


_LONG = 5
"""Rows of a table that is still read at a glance."""


def folded(title: str, lines: list[str], *, when: bool = True) -> list[str]:
    """Lines behind a title that opens them, if they are long; else below the title."""
    if not when:
        return [f"{title}: {lines[0]}", *lines[1:]]
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "</details>", ""]


def _training(entry: Entry) -> list[str]:
    shown: list[tuple[Any, ...]] = []
    hidden: list[tuple[Any, ...]] = []
    for tag, weights in entry.weights.items():
        if recipe := read_recipe(entry, tag):
            row = _recipe_row(entry, tag, weights, recipe)
            (shown if weights.sha256 or tag == entry.default else hidden).append(row)
    if not shown and not hidden:
        return ["No recipe.", ""]
    head = ("command", "what", "epochs", "batch", "on", "cost", "a re-run may differ by")
    if len(shown) + len(hidden) <= _LONG:
        lines = table(head, [*shown, *hidden])
    else:
        lines = table(head, shown)
        lines += folded(f"{len(hidden)} more recipes", table(head, hidden)) if hidden else []
    return [*lines, "Costs are wall-clock minutes on two CPU cores.", ""]


def _recipe_row(entry: Entry, tag: str, weights: Weights, recipe: dict[str, Any]) -> tuple[Any, ...]:
    trainer, data = recipe.get("trainer") or {}, section_of(recipe, "data")
    devices = trainer.get("devices", 1) if trainer.get("accelerator") == "gpu" else "CPU"
    cost = f"{recipe['minutes']} min" if recipe.get("minutes") else "-"
    about = str(recipe.get("description", "")).rstrip(".")
    tolerance = "-" if weights.tolerance is None else json.dumps(weights.tolerance)
    place = f"{devices} GPUs" if devices != "CPU" else "CPU"
    epochs, batch = trainer.get("max_epochs", "-"), data.get("batch_size", "-")
    return f"`zoo train {entry.id}:{tag}`", about, epochs, batch, place, cost, tolerance


# Claims -----------------------------------------------------------------------------------------------------------

_WHERE = """\
How verdicts are reached stands in [claims.md](../../docs/claims.md). Raw values, versions, hardware and code hashes are
in [results.json](results.json), the settings of all arms in [claims.yaml](claims.yaml)."""


def _claims(entry: Entry, claims: Sequence[Claim], results: dict[str, Any], folder: Path) -> list[str]:
    if not claims:
        return ["None yet.", ""]
    outcomes = results.get("claims", {})
    rows = [
        (
            c.promise,
            c.paper.get("value", "-"),
            _wanted(c),
            _measured(c, outcomes),
            _verdict(c, outcomes),
            _holm(c, outcomes),
        )
        for c in claims
    ]
    lines = [_WHERE, "", *table(("promise", "the paper", "wanted", "measured", "verdict", "after Holm"), rows)]
    lines += _made_by(entry, results)
    lines += ["```bash", f"zoo reproduce {entry.id} --dry-run          # the plan and its cost"]
    lines += [f"zoo reproduce {entry.id} --claim CLAIM --fresh  # your own runs beside the published ones", "```", ""]
    for claim in claims:
        lines += _detail(claim, outcomes.get(claim.id), folder)
    return lines


def _made_by(entry: Entry, results: dict[str, Any]) -> list[str]:
    """Which states of the code made the runs, and which confirmed them; nothing where there are no runs."""
    made: dict[str, int] = {}
    confirmed: dict[str, int] = {}
    for run in results.get("runs", {}).values():
        commit = str(run.get("commit") or "an unknown commit")
        made[commit] = made.get(commit, 0) + 1
        if "confirmed" in run:
            commit = str(run["confirmed"].get("commit") or "an unknown commit")
            confirmed[commit] = confirmed.get(commit, 0) + 1
    if not made:
        return []
    count = sum(made.values())
    text = f"{count} {'runs' if count > 1 else 'run'}, by the code of {_commits(made)}"
    if confirmed:
        text += f"; {sum(confirmed.values())} of them confirmed digit by digit by that of {_commits(confirmed)}"
    return [f"{text}. `zoo reproduce {entry.id} --recheck --dry-run` lists those of earlier code than yours.", ""]


def _commits(counts: dict[str, int]) -> str:
    most = sorted(counts, key=lambda commit: (-counts[commit], commit))
    return ", ".join(f"{commit} ({counts[commit]})" if len(counts) > 1 else commit for commit in most)


def _wanted(claim: Claim) -> str:
    """What would be called holds, with the margin that decides."""
    margin = number(claim.margin)
    if claim.expect in ("higher", "lower"):
        return claim.expect + (f" by more than {margin}" if claim.margin else "")
    if claim.expect == "not-worse":
        return f"not {'lower' if claim.better == 'higher' else 'higher'} by {margin} or more"
    if claim.expect == "within":
        return f"within {margin}" + (f" of {number(claim.value)}" if claim.value is not None else "")
    return f"{claim.expect.replace('-', ' ')} {number(claim.value)}" + (f", give or take {margin}" * bool(claim.margin))


def _verdict(claim: Claim, outcomes: dict[str, Any]) -> str:
    """In bold, with what belongs to it: why, at which look, what could have been seen."""
    about = outcomes.get(claim.id, {"verdict": "not run", "reason": claim.reason or "not run yet"})
    parts = [about["reason"]] if about.get("reason") else []
    if look := about.get("look"):
        parts.append(f"look {look['number']} of {look['of']}, {look['seeds']} seeds")
    if about.get("detectable") is not None:
        parts.append(f"could have seen {number(about['detectable'])}")
    return f"**{about['verdict']}**" + (f" ({'; '.join(parts)})" if parts else "")


def _holm(claim: Claim, outcomes: dict[str, Any]) -> str:
    """What is left of a verdict among all of the card's, with its adjusted p-value."""
    about = outcomes.get(claim.id, {})
    stands = after_holm(about)
    if stands is None:
        return "-"
    return f"{stands} (p {'< 0.0001' if about['p_holm'] < 1e-4 else number(round(about['p_holm'], 4))})"


def number(value: float | None) -> str:
    """Four significant digits, as people write them."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 and value == int(value) else f"{value:.4g}"


def _measured(claim: Claim, outcomes: dict[str, Any]) -> str:
    about = outcomes.get(claim.id, {})
    parts = []
    for c in about.get("comparisons", []):
        if c["against"] == "value":
            ours = _means(about["values"])[claim.of_role("ours")[0].name]
            seeds = f", {c['n']} seeds" if c["n"] else ""
            parts.append(f"{number(ours)} {claim.metric}{seeds}")
            continue
        spread = (
            "" if c["n"] == 0 or c["low"] is None else f" [{number(c['low'])}, {number(c['high'])}], {c['n']} seeds"
        )
        against = "" if c["against"] in ("baseline", "contrast") else f" against {c['against']}"
        parts.append(f"{'+' if c['mean'] > 0 else ''}{number(c['mean'])} {claim.metric}{against}{spread}")
    if parts and claim.judge:
        parts[-1] += f" (scored by {claim.judge})"
    return "; ".join(parts) or "-"


def _means(values: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for arm, by_seed in values.items():
        given = [v for v in by_seed.values() if v is not None]
        means[arm] = sum(given) / len(given) if given else None
    return means


def _detail(claim: Claim, about: dict[str, Any] | None, folder: Path) -> list[str]:
    """Raw values of a claim that has been run, and its plot."""
    if about is None or about["verdict"] == "not run":
        return []
    values = about["values"]
    seeds = list(next(iter(values.values())))
    means = _means(values)
    head = ("arm", *([f"seed {s}" for s in seeds] if seeds != ["exact"] else []), "mean" if len(seeds) > 1 else "value")
    rows = []
    for arm, by_seed in values.items():
        raw = [number(by_seed.get(s)) for s in seeds] if seeds != ["exact"] else []
        rows.append((arm, *raw, number(means[arm])))
    at = f" after {claim.at:.0%} of the epochs" if claim.at is not None else ""
    lines = [f"### {claim.id}", "", claim.promise, ""]
    lines += [claim.note, ""] if claim.note else []
    lines += [
        f"`{claim.metric}`{at}; {about['minutes']:.0f} minutes in all." if not claim.exact else f"`{claim.metric}`",
        "",
    ]
    source = claim.paper.get("source")
    lines += [f"The paper: {claim.paper.get('value', '-')} ({source}).", ""] if source else []
    lines += _premises(about)
    return [*lines, *table(head, rows), *_picture(folder, f"claim-{claim.id}", f"Curves of {claim.id}")]


def _premises(about: dict[str, Any]) -> list[str]:
    """What had to be so, as measured."""
    lines = []
    for p in about.get("premises", []):
        measured = "no finite value" if p["measured"] is None else number(p["measured"])
        met = "met" if p["met"] else "**not met**"
        lines.append(f"- Premise {met}: {p['says']} (`{p['metric']}` {measured}, wanted {p['wanted']}).")
    return [*lines, ""] if lines else []


# Data and citation ------------------------------------------------------------------------------------------------


def _data(entry: Entry) -> list[str]:
    rows = []
    for tag, weights in entry.weights.items():
        about = weights.trained_on
        if about:
            rows.append((f"`{tag}`", about.get("data", "-"), about.get("licence", "-")))
    return table(("weights", "trained on", "licence of the data"), rows)


def _citation(view: Entry) -> list[str]:
    paper = view.paper
    first = str(paper.get("authors", "paper")).split(",")[0].split()[-1].lower()
    rows = [("title", f"{{{paper.get('title', '')}}}")]
    rows += (
        [("author", " and ".join(a.strip() for a in str(paper["authors"]).split(",")))] if "authors" in paper else []
    )
    rows += [("booktitle", paper["venue"])] if "venue" in paper else []
    rows += [("year", paper["year"])] if "year" in paper else []
    rows += [("eprint", paper["arxiv"]), ("archivePrefix", "arXiv")] if "arxiv" in paper else []
    rows += [(key, paper[key]) for key in ("doi", "url") if key in paper]
    kind = "inproceedings" if "venue" in paper else "misc"
    body = [f"  {key} = {{{value}}}," for key, value in rows]
    lines = ["```bibtex", f"@{kind}{{{first}{paper.get('year', '')},", *body, "}", "```", ""]
    if code := paper.get("code"):
        lines += [f"The authors' code: https://github.com/{code}. Nothing of it is used here.", ""]
    return lines
