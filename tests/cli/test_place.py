"""`zoo bundle`, `zoo card` and `zoo reproduce` write into sources only from inside of them, or where one says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo import claims, cli, index
from zoo.errors import InvalidIndex
from zoo.index.editing import with_keys

CLAIM = """
- id: exact
  promise: It is exact.
  paper: {value: exact, source: abstract}
  arms: {ours: {recipe: example}}
  metric: test/accuracy
  expect: at-least
  value: 0.1
  seeds: [0]
  minutes: 1
"""


def run(*words: Any) -> int:
    return cli.main([*map(str, words)])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of its own whose method is in the index; the current folder is beside it."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "placed_methods"
    assert run("new", "image-classification", "my-net", "--dir", root) == 0
    path = root / "placed_methods" / "index.yaml"
    path.write_text(
        "# kept\n" + path.read_text().replace("      licence: Apache-2.0\n", "      licence: Apache-2.0  # so\n")
    )
    monkeypatch.syspath_prepend(str(root))
    index.register(index.read_index(path)["my-net"])
    yield root
    index._registered.pop("my-net", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "placed_methods"]:
        del sys.modules[name]


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but those of Python."""
    found = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def saved(folder: Path, **init: Any) -> Path:
    """A folder of weights of the method."""
    torch.manual_seed(0)
    model = index.entries()["my-net"].model_class()(**init)
    return zoo.save(model, folder, half=False)


def test_bundle_pins_what_it_wrote(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments stay, small numbers stay numbers, and the goldens of an outside package are its own."""
    folder, index_file = saved(tmp_path / "saved", lr=1e-5, width=8), package / "placed_methods" / "index.yaml"
    ours = set(index.index_path().parent.joinpath("tests", "golden").iterdir())
    monkeypatch.chdir(package)
    capsys.readouterr()
    assert run("bundle", folder, "my-net:example") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"into {package}\n")
    entry = index.read_index(index_file)["my-net"]
    about = entry.weights["example"]
    assert about.init == {"lr": 1e-5, "width": 8}
    assert index.bundled_path(about, entry).is_relative_to(package)
    assert index.golden_path(about.file or "", entry).is_relative_to(package)
    assert {p.name for p in (index.bundled_path(about, entry), index.golden_path(about.file or "", entry))} == {
        about.file
    }
    assert set(index.index_path().parent.joinpath("tests", "golden").iterdir()) == ours
    text = index_file.read_text()
    assert text.startswith("# kept\n")
    assert "  # so\n" in text
    index.register(entry, replace=True)
    again = zoo.load("my-net")
    assert again.hparams["width"] == 8
    # other weights: what differs no longer is forgotten
    assert run("bundle", saved(tmp_path / "usual"), "my-net:example") == 2
    assert run("bundle", saved(tmp_path / "usual2"), "my-net:example", "--replace") == 0
    assert index.read_index(index_file)["my-net"].weights["example"].init == {}


def test_bundle_from_elsewhere_writes_nothing_unless_the_root_is_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = saved(tmp_path / "saved"), content(package)
    assert run("bundle", folder, "my-net:example") == 2
    assert f"writes into {package}" in capsys.readouterr().err
    assert run("bundle", folder, "my-net:example", "--dir", tmp_path) == 2
    assert "name that folder" in capsys.readouterr().err
    assert content(package) == before
    assert run("bundle", folder, "my-net:example", "--dir", package) == 0
    assert content(package) != before


def test_bundle_that_cannot_pin_writes_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tag stands on one line, where no key can be set."""
    path = package / "placed_methods" / "index.yaml"
    head = path.read_text().partition("  weights:\n")[0]
    path.write_text(head + "  weights: {example: {recipe: my-net/example.yaml, licence: Apache-2.0}}\n")
    index.register(index.read_index(path)["my-net"], replace=True)
    folder, before = saved(tmp_path / "saved"), content(package)
    monkeypatch.chdir(package)
    assert run("bundle", folder, "my-net:example") == 2
    assert "lines of its own" in capsys.readouterr().err
    assert content(package) == before


def test_keys_of_a_tag_are_set_in_place(tmp_path: Path) -> None:
    path = tmp_path / "index.yaml"
    head = "# top\na-net:\n  model: m:C\n  data: d:C\n  task: image-classification\n  summary: S.\n"
    head += "  paper: {title: T, year: 2020}\n  licence: MIT\n  default: one\n  weights:\n"
    tags = "    one:\n      init:  # about\n        width: 3\n        lr: 1.0\n      recipe: a-net/one.yaml\n"
    tags += "      licence: MIT\n\n    # two\n    two:\n      recipe: a-net/two.yaml\n"
    path.write_text(head + tags + "      licence: MIT  # x\n      bytes: 5  # y\n# end\n")
    one = with_keys(path, "a-net", "one", {"init": "{width: 4}", "params": "7"})
    assert (
        one
        == head
        + tags.replace(":  # about\n        width: 3\n        lr: 1.0", ": {width: 4}  # about").replace(
            "licence: MIT\n\n", "licence: MIT\n      params: 7\n\n"
        )
        + "      licence: MIT  # x\n      bytes: 5  # y\n# end\n"
    )
    assert with_keys(path, "a-net", "two", {"bytes": "6"}) == path.read_text().replace("bytes: 5  #", "bytes: 6  #")
    with pytest.raises(InvalidIndex, match="'three'"):
        with_keys(path, "a-net", "three", {"bytes": "6"})
    with pytest.raises(InvalidIndex, match="bytes"):
        with_keys(path, "a-net", "two", {"bytes": "many"})


def test_evidence_is_written_from_inside_or_apart(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs before it is clear where its results go."""
    (package / "placed_methods" / "model_cards" / "my-net" / "claims.yaml").write_text(CLAIM)
    asked: list[Any] = []

    def carried_out(plan: Any, **options: Any) -> Any:
        asked.append(options)
        return claims.Report(failed=[], results=None, path=None, fresh={}, published={}, apart=False)

    monkeypatch.setattr(claims, "reproduce", carried_out)
    before = content(package)
    for words in ((), ("--recheck",)):
        assert run("reproduce", "my-net", *words) == 2
        assert f"writes into {package}" in capsys.readouterr().err
    assert asked == []
    for words in (("--out", "mine"), ("--fresh",), ("--quick",)):
        assert run("reproduce", "my-net", *words) == 0
        assert "into " not in capsys.readouterr().out.splitlines()[0]
    monkeypatch.chdir(package / "tests")
    assert run("reproduce", "my-net") == 0
    assert capsys.readouterr().out.startswith(f"into {package}\n")
    assert len(asked) == 4
    assert content(package) == before


def test_cards_are_written_from_inside_or_where_the_root_is_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(package)
    assert run("card", "my-net") == 2
    assert f"writes into {package}" in capsys.readouterr().err
    assert content(package) == before
    assert run("card", "my-net", "--dir", package) == 0
    assert capsys.readouterr().out.startswith(f"into {package}\n")
    assert "placed_methods/model_cards/my-net/README.md" in content(package)


@pytest.mark.parametrize("words", [("rslad",), ("--all",)])
def test_cards_of_the_checkout_are_not_written_from_elsewhere(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo import card

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(card, "write", lambda entry: pytest.fail("written"))
    monkeypatch.setattr(card, "write_readme", lambda: pytest.fail("written"))
    assert run("card", *words) == 2
    assert f"writes into {index.index_path().parent}" in capsys.readouterr().err
