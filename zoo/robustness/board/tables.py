"""The board as people read it: tables of a group of rows, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.robustness.board.row import BoardRow
from zoo.text import aligned, human_count, markdown

__all__ = ["groups_of", "page", "shown"]

_INTRO = """# Leader board: robustness

<!-- written by `zoo leaderboard robustness --write`; do not edit -->

Classifiers of the zoo that were trained against perturbations, and networks trained plainly beside them, on the same
test pictures. The order is that of the **worst case**: the share of the pictures that withstands every attack that ran
on them, with its 95 % interval for the choice of pictures. Rows whose intervals overlap are not distinguished by it.

- **AutoAttack** ran on the first pictures only, where that is said: it costs far more than all others
  together. What it beats there counts in the worst case too.
- **adaptive** attacks are those that a model declares against itself, since its author knows where its gradient leads
  astray; a dash means that it declares none. Which ones they are stands below the table.
- **multiply-adds** are those of one picture, counted by `torch.utils.flop_counter`; **training** is what the recipe
  states, in minutes on two CPU cores, without that of a teacher.
- **signs of masking** are checks that failed, on the first pictures (see
  [How robust is my model?](../robustness.md#signs-of-masked-gradients)): do not quote such a row without its reason.

The files beside this page, in [robustness/](robustness/), hold each verdict, the hash of the weights, versions,
hardware and commit. Any row is measured again by one command, and a network of yours is entered by another; its row
stays on your machine, and is shown between the published ones:

```bash
zoo leaderboard robustness
```

<!-- not run (zoo leaderboard): minutes to hours; tests/robustness/test_board.py runs such lines on a toy -->
```bash
zoo leaderboard robustness --measure robust-wrn:fmnist-16-1 --again
zoo leaderboard robustness --own runs/NAME-TAG/version_0/checkpoints/last.ckpt
zoo leaderboard robustness --own my-weights --n 200 --autoattack 50      # cheaper, with a wider interval
```

Any function of images in [0, 1] that returns logits can be entered from Python:

<!-- not run: minutes; tests/robustness/test_board.py -->
```python
from zoo.robustness import board

row = board.enter("mine", my_network, "robust-wrn:fmnist-16-1", eps=0.1)  # the test pictures of these weights
print(board.shown([*board.published(), row]))
```
"""


def groups_of(rows: Iterable[BoardRow]) -> list[list[BoardRow]]:
    """Rows that may be compared, best first; larger groups first."""
    grouped: dict[tuple[object, ...], list[BoardRow]] = {}
    for row in rows:
        grouped.setdefault(row.group, []).append(row)
    groups = [sorted(group, key=lambda row: (-row.worst, -row.clean.share, row.name)) for group in grouped.values()]
    return sorted(groups, key=lambda group: (-len(group), group[0].data["name"], group[0].eps))


def title_of(group: Sequence[BoardRow]) -> str:
    """Data, ball and pictures of a group."""
    first = next((row for row in group if not row.own), group[0])
    counts = sorted({row.clean.seen for row in group})
    pictures = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return (
        f"{first.data['name']}, {first.norm} {first.eps:.4g}, {pictures} of {first.data['total']:,} test pictures, "
        f"seed {first.seed}"
    )


HEAD = ("", "weights", "worst case", "95 %", "clean", "PGD-20", "APGD-CE", "GAMA-100", "adaptive", "AutoAttack",
        "parameters", "multiply-adds", "training", "signs of masking")  # fmt: skip


def cells_of(number: int, row: BoardRow) -> list[str]:
    """One row of the table, in the order of `HEAD`."""
    low, high = row.interval
    declared = [row.attacks[name] for name in row.declared]
    least = min(declared, key=lambda verdicts: verdicts.share, default=None)

    def of(name: str) -> str:
        verdicts = row.attacks.get(name)
        if verdicts is None or not verdicts.seen:
            return "-"
        there = "" if verdicts.seen == row.clean.seen else f" of {verdicts.seen}"
        return f"{verdicts.share:.1%}{there}"

    flags = ", ".join(row.suspicious) if row.checks else "not checked"
    ran = sum(check["ok"] is not None for check in row.checks.get("results", []))
    return [
        str(number), row.name + (" (yours)" if row.own else ""), f"{row.worst:.1%}", f"{low:.1%} to {high:.1%}",
        f"{row.clean.share:.1%}", of("pgd-20"), of("apgd-ce"), of("gama-100"),
        "-" if least is None else f"{least.share:.1%}", of("autoattack"), human_count(row.params),
        human_count(row.macs), "-" if row.minutes is None else f"{row.minutes:g} min",
        flags or f"none in {ran}",
    ]  # fmt: skip


def shown(rows: Iterable[BoardRow]) -> str:
    """The board on a terminal."""
    parts = []
    for group in groups_of(rows):
        table = [HEAD, *(cells_of(number, row) for number, row in enumerate(group, 1))]
        parts.append("\n".join([title_of(group), "", *aligned(table)]))
    return "\n\n".join(parts)


def page(rows: Iterable[BoardRow]) -> str:
    """The page of the documentation."""
    lines = [_INTRO]
    for group in groups_of(rows):
        lines += [f"## {title_of(group)}", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
        for number, row in enumerate(group, 1):
            cells = [markdown(cell) for cell in cells_of(number, row)]
            cells[1] = f"[`{row.name}`](robustness/{file_of(row)})"
            cells[2] = f"**{cells[2]}**"
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
        lines += [line for row in group for line in _notes(row)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def file_of(row: BoardRow) -> str:
    """Name of the row's file."""
    from pathlib import Path

    from zoo.robustness.board.row import place_of

    return place_of(Path(), row.name, row.norm, row.eps).name


def _notes(row: BoardRow) -> list[str]:
    """What the attacks of a row are, what failed, and what measuring it took."""
    autoattack = row.attacks.get("autoattack")
    parts = []
    if row.declared:
        parts.append("adaptive: " + ", ".join(f"{name} {row.attacks[name].share:.1%}" for name in row.declared))
    if autoattack is not None:
        parts.append(f"AutoAttack on {autoattack.seen:,} pictures: {autoattack.about}")
    for check in row.checks.get("results", []):
        if check["ok"] is False:
            parts.append(f"sign of masking, {check['name']}: {check['measured']}")
    parts.append(f"measured in {row.made.get('seconds', 0) / 60:.0f} minutes: `{row.command}`")
    return [f"- `{row.name}`: {'; '.join(parts)}."]
