"""The fault matrix: what goes wrong, in which operation, and the test that shows what happens then.

    python tests/faults/matrix.py            run every test of the matrix, the slow ones too, and write the page
    python tests/faults/matrix.py --new      run only tests that have no outcome yet
    python tests/faults/matrix.py --render   only write the page from the outcomes of the last run

The page is docs/reliability.md; the outcomes lie in reliability.json beside this file, the counts of kills.py in
kills.json, and those of fuzz/campaign.py in fuzz/results.json.
"""

from __future__ import annotations

import ast
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
OUTCOMES = Path(__file__).with_name("reliability.json")
KILLS = Path(__file__).with_name("kills.json")
DAMAGED = Path(__file__).parents[1] / "fuzz" / "results.json"

D, U, S = "hub/test_download.py", "hub/test_upload.py", "hub/test_share.py"
N, K, F, X = "faults/test_network.py", "faults/test_kill.py", "faults/test_disk.py", "faults/test_data_sources.py"
C, M = "faults/test_closed_network.py", "faults/test_memory_and_warnings.py"
R, T, P = "faults/test_training_ranks.py", "faults/test_training_disk.py", "faults/test_training_processes.py"
V, L, W = "training/test_nonfinite.py", "training/test_checkpoints.py", "faults/test_kill_commands.py"

COLUMNS = ("load", "load hf://", "pull", "push", "publish", "data fetch")

_LOCAL = "local: no Hub is asked"
_NO_TAG = "no tags there"

# A cell is a list of tests, `file::test` or `file::test with WORD ...` (words of the parameters' id), or a reason.


def _pull(fault: str) -> tuple[list[str], list[str], list[str]]:
    """Cells of the three reading columns for a fault that the same tests go through."""
    index, anybody = f"{N}::test_pull with toy-net {fault}", f"{N}::test_pull with hf: {fault}"
    return [index], [anybody], [index, anybody]


def _refused(status: str) -> tuple[list[str], list[str]]:
    return [f"{N}::test_push_refused_at_each_step with {status}"], [
        f"{N}::test_publish_refused_at_each_step with {status}"
    ]


def _unchecked(fault: str) -> tuple[list[str], list[str]]:
    return (
        [f"{N}::test_push_that_cannot_be_checked with {fault}"],
        [f"{N}::test_publish_that_cannot_be_checked with {fault}"],
    )


ROWS: dict[str, tuple[list[str] | str, ...]] = {
    "corrupt, same size": (*_pull("corrupt"), *_unchecked("corrupt"), [f"{X}::test_wrong_contents"]),
    "truncated": (*_pull("truncate"), *_unchecked("truncate"), [f"{X}::test_damaged_archive_is_fetched_anew"]),
    "reset in the middle": (
        *_pull("reset"),
        *_unchecked("reset"),
        [f"{X}::test_transfer_that_breaks_off_is_continued", f"{X}::test_publisher_that_cannot_continue_starts_anew"],
    ),
    "stall": (*_pull("stall"), *_unchecked("stall"), "the package clients have time limits of their own"),
    "slow link": (
        [f"{D}::test_slow_link", f"{N}::test_slow_link"],
        [f"{N}::test_slow_link"],
        [f"{K}::test_killed_pull with quick"],
        [f"{N}::test_slow_link"],
        "same transfers as push",
        [f"{X}::test_two_at_once"],
    ),
    "401": (*_pull("401"), *_refused("401"), "package clients hold their own credentials"),
    "403, gated": (*_pull("403"), *_unchecked("403"), "package clients hold their own credentials"),
    "404": (*_pull("404"), *_unchecked("404"), [f"{X}::test_both_fail", f"{X}::test_clients_that_fail with absent"]),
    "429 with Retry-After": (
        [f"{D}::test_busy_server_is_asked_again", f"{N}::test_pull with toy-net 429"],
        [f"{N}::test_pull_from_a_busy_hub with hf: 429", f"{N}::test_pull with hf: 429"],
        [f"{N}::test_pull_from_a_busy_hub with 429"],
        *_refused("429"),
        "as 503",
    ),
    "503": (*_pull("503"), *_refused("503"), [f"{X}::test_package_where_the_publisher_cannot_be_reached"]),
    "server gone": (
        [f"{D}::test_server_gone", f"{D}::test_server_gone_names_what_loads"],
        [f"{D}::test_server_gone"],
        [f"{N}::test_server_gone"],
        [f"{N}::test_server_gone"],
        [f"{N}::test_server_gone"],
        [f"{X}::test_clients_that_fail with offline", f"{X}::test_torchvision_is_told_apart"],
    ),
    "offline mode": (
        [f"{D}::test_offline"],
        [f"{D}::test_offline"],
        [f"{N}::test_offline_mode"],
        [f"{N}::test_offline_mode"],
        [f"{N}::test_offline_mode"],
        "the mode is the Hub client's",
    ),
    "no sockets at all": (
        [f"{C}::test_checkout", f"{C}::test_wheel", f"{C}::test_one_without_a_socket"],
        "as server gone",
        "as server gone",
        "as server gone",
        "as server gone",
        "as server gone",
    ),
    "moved tag": (
        [f"{D}::test_moved_tag_cannot_change_pinned_weights", f"{N}::test_moved_tag_and_rewritten_branch"],
        [f"{D}::test_moved_tag_is_followed_as_one_commit"],
        [f"{N}::test_moved_tag_and_rewritten_branch"],
        [f"{U}::test_push_again_sends_nothing"],
        [f"{U}::test_publish_again_sends_nothing"],
        _NO_TAG,
    ),
    "stale parent commit": (
        "reads only",
        "reads only",
        "reads only",
        [f"{U}::test_push_onto_somebody_elses_commit", f"{N}::test_push_meets_another_commit"],
        [f"{N}::test_publish_meets_another_commit"],
        "reads only",
    ),
    "altered cache": (
        [f"{D}::test_altered_cache", f"{D}::test_altered_cache_falls_back_to_the_bundled_file"],
        [f"{D}::test_altered_cache"],
        "as load",
        _LOCAL,
        [f"{U}::test_publish_one_failure_does_not_stop_the_others"],
        [f"{X}::test_other_files_in_the_way", f"{X}::test_restores_what_is_missing"],
    ),
    "disk full": (
        [f"{F}::test_load_on_a_full_disk with toy-net", f"{D}::test_disk with full"],
        [f"{F}::test_load_on_a_full_disk with hf:"],
        [f"{F}::test_pull_on_a_full_disk"],
        [f"{F}::test_push_on_a_full_disk", f"{F}::test_save_on_a_full_disk"],
        [f"{F}::test_publish_on_a_full_disk", f"{F}::test_index_on_a_full_disk_keeps_its_text"],
        [f"{X}::test_disk_full", f"{X}::test_clients_that_fail with full"],
    ),
    "read-only disk": (
        [f"{F}::test_read_only_cache with toy-net", f"{D}::test_disk with read-only"],
        [f"{F}::test_read_only_cache with hf:"],
        "as load",
        [f"{F}::test_read_only_targets"],
        [f"{F}::test_read_only_targets"],
        [f"{X}::test_read_only_folder"],
    ),
    "no home directory": (
        [f"{F}::test_no_home with toy-net", f"{F}::test_no_home_in_a_process_of_its_own"],
        [f"{F}::test_no_home with hf:"],
        "as load",
        "temporary files only",
        "temporary files only",
        "the folder is the user's choice",
    ),
    "two at once": (
        [f"{K}::test_processes_at_once with toy-net 2", f"{D}::test_two_threads_at_once"],
        [f"{K}::test_processes_at_once with hf: 2"],
        "as load",
        [f"{U}::test_push_onto_somebody_elses_commit"],
        [f"{N}::test_publish_meets_another_commit"],
        [f"{X}::test_two_at_once"],
    ),
    "eight at once": (
        [f"{K}::test_processes_at_once with toy-net 8", f"{K}::test_threads_at_once"],
        [f"{K}::test_processes_at_once with hf: 8"],
        "as load",
        "as two at once",
        "as two at once",
        "as two at once",
    ),
    "kill -9 at random moments": (
        [f"{K}::test_killed_load with toy-net", f"{K}::test_one_is_killed_while_others_load"],
        [f"{K}::test_killed_load with hf:"],
        [f"{K}::test_killed_pull"],
        [f"{K}::test_killed_push", f"{K}::test_killed_save"],
        [f"{K}::test_killed_publish"],
        [f"{X}::test_killed_then_repeated"],
    ),
}

TRAINING_COLUMNS = ("one process", "two ranks", "rounds and clients")

_LIKE_RANKS = "the ranks are those of the column before"
_ONE = "there is one process only"
_NO_RANK = "each rank writes nothing of its own"

TRAINING: dict[str, tuple[list[str] | str, ...]] = {
    "loss, gradients or weights are not finite": (
        [f"{V}::test_step_is_kept_and_replayed", f"{V}::test_gradients_of_an_unfinished_step"],
        [f"{V}::test_two_ranks"],
        [f"{V}::test_federated", f"{V}::test_closed_form"],
    ),
    "samples that are not finite": (
        [f"{V}::test_bad_sample_is_named"],
        "as one process, and two ranks of the row before",
        "clients' updates are looked at as a whole",
    ),
    "a rank without labels": (_ONE, [f"{R}::test_rank_without_labels"], "clients without data send nothing"),
    "unequal batches": (
        _ONE,
        [f"{R}::test_unequal_batches"],
        "rounds sum over samples, whatever the batches; compared in the row on other ranks",
    ),
    "a process raises": (
        [f"{T}::test_mistakes_of_a_program_keep_their_traceback with 1"],
        [f"{R}::test_rank_that_raises", f"{T}::test_errors_of_ranks_are_named with 2"],
        [f"{P}::test_clients_that_ignore_sigterm_are_killed"],
    ),
    "a process is killed": (
        [f"{W}::test_killed_train with 1 quick"],
        [f"{R}::test_rank_that_is_killed", f"{W}::test_killed_train with 2 quick"],
        [f"{P}::test_killed_client", f"{P}::test_killed_trainer_leaves_no_clients"],
    ),
    "Ctrl-C and SIGTERM": (
        [f"{P}::test_signal_in_a_step", f"{P}::test_signal_in_a_validation", f"{P}::test_second_signal_stops_at_once"],
        [f"{P}::test_signal_with_two_ranks"],
        [f"{P}::test_signal_while_clients_train", f"{P}::test_signal_within_a_fork"],
    ),
    "spawn and forkserver": (
        [f"{R}::test_readers_by_start_method"],
        [f"{R}::test_spawned_ranks_give_what_forked_ones_give"],
        "clients are forked: they inherit model and data; elsewhere they train in one process",
    ),
    "disk full": (
        [f"{T}::test_disk_full", f"{T}::test_disk_that_fills_up_under_the_loggers"],
        [f"{T}::test_errors_of_ranks_are_named with full 2"],
        "checkpoints are written as in one process",
    ),
    "read-only folder": ([f"{T}::test_folder_that_cannot_be_written"], "the first rank makes it", "as one process"),
    "TMPDIR on another device, or full": (
        [f"{T}::test_disk_full with other-tmpdir", f"{T}::test_other_disk_for_temporary_files_is_full"],
        _NO_RANK,
        "as one process",
    ),
    "memory runs out": (
        [f"{T}::test_no_memory with 1", f"{T}::test_killed_reader_is_named"],
        [f"{T}::test_no_memory with 2"],
        [f"{P}::test_killed_client"],
    ),
    "clock set back": ([f"{L}::test_clock_that_was_set_back"], "the same folders", "the same folders"),
    "resumed with other ranks": (
        [f"{R}::test_steps_go_on_with_other_ranks with 2-then-1"],
        [f"{R}::test_steps_go_on_with_other_ranks with 1-then-2"],
        [f"{R}::test_rounds_go_on_with_other_ranks"],
    ),
    "averaged weights, resumed": (
        [f"{V}::test_averaged_weights_stay_finite"],
        [f"{R}::test_averaged_weights_go_on_with_two_ranks"],
        "rounds have no steps to average over",
    ),
    "looking for unused parameters": (
        _ONE,
        [f"{R}::test_looking_for_unused_parameters_changes_nothing"],
        "no gradients are reduced",
    ),
    "sanity check as the best": (
        [f"{R}::test_sanity_check_is_never_the_best with 1"],
        [f"{R}::test_sanity_check_is_never_the_best with 2"],
        _LIKE_RANKS,
    ),
}

TEXT = """\
# Reliability

What happens when something goes wrong, and the test that shows it. Written by `python tests/faults/matrix.py` from the
outcomes of the tests; edit the matrix there, not this page.

The rule behind every cell: an operation ends in the right result or in one named error (`zoo.errors`) whose message
says what to do next; no wrong byte is accepted, no partial file takes the name of a complete one, and repeating the
call resumes it or starts it again. After each fault the tests load the weights once more and compare every tensor.

✓ tested{marks}

{table}

Columns: `load` is `zoo.load` of a name in the index, whose hash is pinned; `load hf://` of anybody's repository; `data
fetch` is `zoo data fetch`.

{notes}

## Training

A run ends in the right result, in a named error or with the exit code of a signal; `last.ckpt` is whole and finite,
what was started ends with it, and `--ckpt_path last` goes on to what the run would have been. Tests compare weights.

{training}

{training_notes}

## Kills

`kill -9` at a random moment of each command. Then what it had finished is compared, the same call is made again and its
result compared, too; processes that it had started must have ended, and no lock may be held or lie in the way. Counted
by `python tests/faults/kills.py`.

{kills}

## Damaged files

{damaged}

## Limits

- `zoo.save` replaces an earlier folder by two renames. A power cut between them leaves the earlier one under a hidden
  name beside it.
- `zoo bundle --replace` writes weights, golden outputs and index one after the other. Killed between them, it leaves
  weights that the index does not pin, which no call accepts; the same call again completes it.
- A killed `push` or `publish` leaves its temporary folder to the operating system.
- A repository outside the index has no pin: its files are compared with what the Hub lists for that commit, so its
  owner decides what they are. The load report says "unpinned".
- The tests run against a Hub on the loopback interface with the real client, at both ends of its supported versions,
  and with the JavaScript client. Transfers through Xet are switched off in them: a plain server does not speak it.
"""


def tests_of(cell: list[str] | str) -> list[str]:
    return cell if isinstance(cell, list) else []


def named_tests() -> list[str]:
    """Every test that the matrix names, once."""
    rows = [*ROWS.values(), *TRAINING.values()]
    return list(dict.fromkeys(t for cells in rows for cell in cells for t in tests_of(cell)))


def _split(test: str) -> tuple[str, list[str]]:
    name, _, words = test.partition(" with ")
    return f"tests/{name}", words.split()


def matches(test: str, node: str) -> bool:
    """Whether a pytest node id is (one of the parameters of) a named test."""
    name, words = _split(test)
    base, _, parameters = node.partition("[")
    return base == name and all(word in parameters for word in words)


def missing_tests() -> list[str]:
    """Named tests whose function does not exist."""
    found: dict[str, set[str]] = {}
    gone = []
    for test in named_tests():
        file, _, function = _split(test)[0].partition("::")
        if file not in found:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            found[file] = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        if function not in found[file]:
            gone.append(test)
    return gone


def run(wanted: list[str]) -> dict[str, str]:
    """Outcome of each wanted test: passed, failed, skipped or not found; the worst of its parameters counts."""
    import pytest

    class Recorder:
        def __init__(self) -> None:
            self.nodes: dict[str, str] = {}

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            worse = report.outcome != "passed" or report.when == "call"
            if worse and self.nodes.get(report.nodeid) != "failed":
                self.nodes[report.nodeid] = report.outcome

    recorder = Recorder()
    files = sorted({_split(test)[0].partition("::")[0] for test in wanted})
    names = " or ".join(sorted({_split(test)[0].partition("::")[2] for test in wanted}))
    words = ["-q", "-m", "slow or not slow", "-k", names, *(str(ROOT / file) for file in files)]
    pytest.main(words, plugins=[recorder])
    outcomes = {}
    for test in wanted:
        found = {outcome for node, outcome in recorder.nodes.items() if matches(test, node)}
        worst = next((o for o in ("failed", "skipped", "passed") if o in found), "not found")
        outcomes[test] = worst
    return outcomes


MARKS = {"passed": "✓", "failed": "✗", "skipped": "skipped", "not found": "?"}


def table(
    rows: dict[str, tuple[list[str] | str, ...]], columns: tuple[str, ...], outcomes: dict[str, str]
) -> tuple[str, str]:
    """A table, and the reasons of its cells without tests."""
    reasons: list[str] = []
    lines = ["| fault | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for fault, cells in rows.items():
        shown = []
        for cell in cells:
            if isinstance(cell, str):
                if cell not in reasons:
                    reasons.append(cell)
                shown.append(f"[{reasons.index(cell) + 1}]")
            else:
                found = {outcomes.get(test, "not found") for test in cell}
                shown.append(MARKS[next(o for o in ("failed", "not found", "skipped", "passed") if o in found)])
        lines.append(f"| {fault} | " + " | ".join(shown) + " |")
    notes = "Why a cell has no test:\n\n" + "\n".join(f"- [{i}] {reason}" for i, reason in enumerate(reasons, start=1))
    return "\n".join(lines), notes


def kills_table(counts: dict[str, dict[str, Any]]) -> str:
    """The kills of each command, and what was wrong after them."""
    kinds = {"lost": "lost", "orphans": "processes left", "locks": "locks left"}
    rows = [(name, c["killed"], *(len(c[kind]) for kind in kinds)) for name, c in counts.items()]
    rows.append(("all", *(sum(int(row[i]) for row in rows) for i in range(1, 5))))
    lines = ["| command | killed | " + " | ".join(kinds.values()) + " |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def damaged_text(found: dict[str, Any]) -> str:
    """What came of the damaged files."""
    about = found["summary"]
    return (
        f"{about['files']:,} damaged files of {len(found['done'])} kinds: bits turned, parts cut out, doubled "
        "or exchanged, numbers and words of the format put in. Each was read or refused by a named error within "
        f"{found['seconds']} seconds and 1 GiB, but for {about['raw exceptions']} other exceptions, {about['hang']} "
        f"that took longer, {about['memory']} that asked for more memory, and {about['ended']} that ended the process. "
        f"{found.get('repaired', 0)} others had failed before a repair and were then tried again. Counted by `python "
        "-m fuzz.campaign` in tests/."
    )


def render(outcomes: dict[str, str]) -> str:
    """The page."""
    hub, notes = table(ROWS, COLUMNS, outcomes)
    training, training_notes = table(TRAINING, TRAINING_COLUMNS, outcomes)
    used = f"{hub} {training}"
    extra = "".join(f", {mark} {name}" for name, mark in MARKS.items() if name != "passed" and f" {mark} " in used)
    return TEXT.format(
        marks=extra,
        table=hub,
        notes=notes,
        training=training,
        training_notes=training_notes,
        kills=kills_table(json.loads(KILLS.read_text(encoding="utf-8"))),
        damaged="\n".join(textwrap.wrap(damaged_text(json.loads(DAMAGED.read_text(encoding="utf-8"))), 120)),
    )


def write_page() -> None:
    """Write the page from what was last counted."""
    PAGE.write_text(render(json.loads(OUTCOMES.read_text(encoding="utf-8"))), encoding="utf-8")


def main() -> int:
    known: dict[str, str] = {}
    if {"--render", "--new"} & set(sys.argv):
        known = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    wanted = [test for test in named_tests() if test not in known]
    if wanted and "--render" not in sys.argv:
        known |= run(wanted)
    outcomes = {test: known.get(test, "not found") for test in named_tests()}
    if "--render" not in sys.argv:
        OUTCOMES.write_text(json.dumps(outcomes, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(outcomes), encoding="utf-8")
    bad = {test: outcome for test, outcome in outcomes.items() if outcome != "passed"}
    for test, outcome in bad.items():
        print(f"{outcome}: {test}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
