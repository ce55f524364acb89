"""What surrounds the package fits it: continuous integration, issue forms, citation, changelog."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository by wildcard; outside a checkout (an unpacked sdist), files of the folder."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        names = [Path(name) for name in done.stdout.split("\0") if name]
    else:
        names = [p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file() and ".venv" not in p.parts]
    return sorted(ROOT / n for n in names if any(n.match(pattern) for pattern in patterns) and (ROOT / n).is_file())


def settings() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        content: dict[str, Any] = tomllib.load(file)
    return content


def project() -> dict[str, Any]:
    return settings()["project"]  # type: ignore[no-any-return]


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_every_yaml_file_parses() -> None:
    paths = tracked("*.yaml", "*.yml", "*.cff")
    assert {WORKFLOW, ROOT / "CITATION.cff", ROOT / "checkpoints.yaml", ROOT / ".pre-commit-config.yaml"} <= set(paths)
    for path in paths:
        assert read_yaml(path), f"{path.relative_to(ROOT)} is empty"


# Continuous integration -------------------------------------------------------------------------------------------


def matrix_rows() -> list[tuple[str, str]]:
    """(Python, dependencies) of the jobs that the workflow's matrix makes."""
    matrix = read_yaml(WORKFLOW)["jobs"]["test"]["strategy"]["matrix"]
    rows = [(p, d) for p in matrix["python"] for d in matrix["dependencies"]]
    left_out = [(row["python"], row["dependencies"]) for row in matrix.get("exclude", [])]
    assert set(left_out) <= set(rows)
    return [row for row in rows if row not in left_out]


def test_ci_runs_both_ends_of_what_is_supported() -> None:
    about = project()
    stated = [c.rpartition(" ")[2] for c in about["classifiers"] if re.search(r":: 3\.\d+$", c)]
    oldest = about["requires-python"].removeprefix(">=")
    assert oldest == stated[0]
    assert {p for p, _ in matrix_rows()} == {stated[0], stated[-1]}
    assert {(stated[0], "lowest"), (stated[0], "newest"), (stated[-1], "newest")} <= set(matrix_rows())


def test_ci_checks_what_every_change_has_to_pass() -> None:
    workflow = read_yaml(WORKFLOW)
    events = workflow[True]  # YAML 1.1 reads the key `on` as a truth value
    assert {"push", "pull_request", "schedule"} <= set(events)
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", events["schedule"][0]["cron"]), "once a week"
    commands = "\n".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])
    assert "make lint" in commands
    assert "make test" in commands
    assert "--resolution lowest-direct" in commands
    assert workflow["permissions"] == {"contents": "read"}


def test_every_dependency_has_a_lower_bound() -> None:
    """Without one, `lowest` would install a version of another decade, and users could, too."""
    about = project()
    extras = [d for group in about["optional-dependencies"].values() for d in group]
    for text in [*about["dependencies"], *extras]:
        assert ">=" in text or text.startswith(about["name"]), text


@pytest.mark.parametrize(("lint", "test", "code"), [(0, 0, 0), (1, 0, 1), (0, 2, 2), (1, 2, 2)])
def test_ci_run(lint: int, test: int, code: int, tmp_path: Path) -> None:
    """Both parts run, lint first, and either fails it; a stand-in for make says what it was asked for."""
    stand_in = tmp_path / "make"
    script = f"for part; do :; done\necho make $part\n[ $part = lint ] && exit {lint}\nexit {test}\n"
    stand_in.write_text(f"#!/bin/sh\n{script}")
    stand_in.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", str(ROOT / ".ci" / "run")]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["make lint", "make test", ""]
    assert done.returncode == code


def test_the_source_distribution_holds_what_belongs_in_it() -> None:
    """Every file and folder at the top is included, comes by itself, or is of use to git only."""
    included = set(settings()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert all((ROOT / name.lstrip("/")).exists() for name in included)
    by_itself = {"LICENSE", "README.md", "pyproject.toml"}
    for_git = {".gitattributes", ".git-blame-ignore-revs", ".gitignore"}
    tops = {p.relative_to(ROOT).parts[0] for p in tracked("*")}
    assert tops - by_itself - for_git == {name.lstrip("/") for name in included}


# Issue forms ------------------------------------------------------------------------------------------------------


def fields(name: str) -> dict[str, dict[str, Any]]:
    """Fields of an issue form by id."""
    body = read_yaml(FORMS / f"{name}.yml")["body"]
    return {field["id"]: field for field in body if field["type"] != "markdown"}


@pytest.mark.parametrize("name", ["bug", "new_claim", "new_method"])
def test_issue_forms_are_complete(name: str) -> None:
    form = read_yaml(FORMS / f"{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("markdown", "input", "textarea", "dropdown", "checkboxes")
        if field["type"] != "markdown":
            assert field["attributes"]["label"]
        if field["type"] == "dropdown":
            assert field["attributes"]["options"]


def test_the_form_for_a_method_asks_for_its_index_block() -> None:
    from zoo.index import LEARNS

    blocks = read_yaml(ROOT / "checkpoints.yaml")
    everywhere = set.intersection(*(set(block) for block in blocks.values()))
    made_here = {"model", "tiny", "default", "weights"}  # whoever proposes a method cannot know these yet
    assert everywhere - made_here <= set(fields("new_method"))
    assert fields("new_method")["learns"]["attributes"]["options"] == list(LEARNS)


def test_the_form_for_a_claim_asks_for_its_block() -> None:
    from zoo.claims import EXPECTATIONS

    form = fields("new_claim")
    assert {"promise", "paper", "arms", "metric", "expect", "premise"} <= set(form)
    assert form["expect"]["attributes"]["options"] == list(EXPECTATIONS)


# Citation ---------------------------------------------------------------------------------------------------------


def test_citation_file() -> None:
    """The keys that version 1.2.0 of the format requires, and the same facts as the package."""
    import zoo

    citation = read_yaml(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert citation["version"] == zoo.__version__
    assert citation["license"] == project()["license"]


# Changelog --------------------------------------------------------------------------------------------------------

CHANGES = ROOT / "changelog.d"


def fragments() -> list[Path]:
    return sorted(p for p in CHANGES.iterdir() if p.name != "README.md")


def test_fragments_are_named_as_their_readme_says() -> None:
    sections = [kind["directory"] for kind in settings()["tool"]["towncrier"]["type"]]
    listed = re.findall(r"^\| `(\w+)` \|", (CHANGES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == sections
    for path in fragments():
        name = re.fullmatch(r"(?:\+[a-z0-9]+(?:-[a-z0-9]+)*|\d+)\.(\w+)\.md", path.name)
        assert name, f"{path.name}: expected +TOPIC.SECTION.md or NUMBER.SECTION.md"
        assert name[1] in sections, f"{path.name}: expected a section of {', '.join(sections)}"


def test_fragments_are_sentences() -> None:
    for path in fragments():
        text = path.read_text(encoding="utf-8")
        assert text.strip().endswith("."), f"{path.name}: expected sentences"
        assert "\n\n" not in text.strip(), f"{path.name}: expected one paragraph"
        assert not text.startswith(("-", "*", "#")), f"{path.name}: the section and the bullet are added at the release"


def test_the_changelog_knows_this_version() -> None:
    """It was released, or fragments wait for its release."""
    import zoo

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", text, re.MULTILINE)
    assert settings()["tool"]["towncrier"]["start_string"] in text
    assert zoo.__version__ in released or fragments(), f"CHANGELOG.md says nothing about {zoo.__version__}"


def test_the_changelog_repeats_no_list_of_the_index() -> None:
    """A list kept by hand goes out of date, and every method's branch would edit the same line."""
    from zoo.index import entries

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    assert not [entry.id for entry in entries().values() if f"`{entry.id}" in newest]


def test_each_promise_of_security_names_the_tests_that_hold_it() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = text.partition("## What is promised")[2].partition("## What is not promised")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| for |")]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"\[(test_\w+)\]\(([\w/.]+)\)", row)
        assert named, row[:80]
        for test, file in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (test, file)
