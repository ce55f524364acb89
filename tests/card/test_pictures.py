"""Pictures of cards: drawn by the method's own module, in one style, small; every file has a function behind it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from toys import cli as cli_toys

from zoo import card, claims, index
from zoo.errors import BadData, BadInput
from zoo.pictures.axes import new_axes, save_png
from zoo.pictures.card import CardFiles, card_picture, card_pictures
from zoo.studies import import_beside

OURS = [name for name, e in index.entries().items() if Path(e.source) == index.index_path()]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def module_with(**functions: Any) -> ModuleType:
    module = ModuleType("toys.pictures")
    vars(module).update(functions)
    return module


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    return cli_toys.register(tmp_path)


def test_a_card_shows_what_the_module_beside_the_model_draws(
    entry: index.Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    @card_picture("square")
    def square(files: CardFiles) -> Any:
        return Image.new("RGB", (files.read("sizes.json") or {})["square"], "red")

    @card_picture("nothing")
    def nothing(files: CardFiles) -> Any:
        return files.read("absent.json")

    @card_picture(f"output-{entry.default}")
    def output(files: CardFiles) -> Any:
        return Image.new("RGB", (3, 3), "blue")

    folder = claims.card_folder(entry)
    folder.mkdir(parents=True)
    (folder / "sizes.json").write_text('{"square": [5, 4]}')
    monkeypatch.setitem(sys.modules, "toys.pictures", module_with(a=square, b=nothing, c=output))
    drawn = card.draw(entry)
    assert drawn == [folder / "images" / "square.png", folder / "images" / f"output-{entry.default}.png"]
    assert Image.open(drawn[0]).size == (5, 4)
    assert [p.name for p in (folder / "images").iterdir() if p not in drawn] == []


def test_a_method_without_such_a_module_draws_what_every_card_shows(entry: index.Entry) -> None:
    assert import_beside(entry.id, "pictures") is None
    assert card.draw(entry) == []  # no weights, no claims


def test_an_import_that_fails_inside_is_not_an_absent_module(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_toy").mkdir()
    (tmp_path / "broken_toy" / "__init__.py").write_text("")
    (tmp_path / "broken_toy" / "pictures.py").write_text("import a_module_that_is_absent\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("zoo.studies.module_name", lambda method, name: f"broken_toy.{name}")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_absent"):
        import_beside(entry.id, "pictures")


def test_names_of_pictures_are_checked() -> None:
    for wrong in ("", "a/b", "../up", "curve.png"):
        with pytest.raises(BadInput, match="without its ending"):
            card_picture(wrong)
    one, two = (card_picture("same")(lambda files: None) for _ in range(2))
    with pytest.raises(BadInput, match="'same', got two"):
        card_pictures(module_with(one=one, two=two))


def test_a_file_of_the_card_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "robustness.json").write_text("{")
    with pytest.raises(BadData, match=r"robustness\.json: not valid JSON"):
        CardFiles("toy-net", tmp_path).read("robustness.json")


def test_plots_are_small_transparent_and_repeatable(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = []
    for name in ("one.png", "two.png"):
        figure, axes = new_axes()
        axes.plot([0, 1], [0, 1])
        save_png(figure, tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    picture = Image.open(tmp_path / "one.png")
    assert picture.mode == "P"
    assert picture.convert("RGBA").getpixel((0, 0))[3] == 0
    assert len(files[0]) < 20_000


@pytest.mark.parametrize("name", OURS)
def test_every_picture_of_a_card_can_be_drawn_again(name: str) -> None:
    """By a function of the method, as output of its default weights, or as curves of a claim."""
    entry = index.entries()[name]
    module = import_beside(name, "pictures")
    known = {*({} if module is None else card_pictures(module)), f"output-{entry.default}"}
    known |= {f"claim-{claim.id}" for claim in claims.claims_of(entry)}
    images = sorted((claims.card_folder(entry) / "images").glob("*"))
    assert [p.name for p in images if p.suffix != ".png" or p.stem not in known] == []
    text = (claims.card_folder(entry) / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in images if f"(images/{p.name})" not in text] == []


def test_benchmarks_draw_and_tune_nothing() -> None:
    """They measure time against others; pictures and searches are beside the method that they are about."""
    scripts = sorted(BENCHMARKS.glob("*.py"))
    assert scripts
    assert [p.name for p in scripts if "matplotlib" in p.read_text(encoding="utf-8")] == []
    assert [p.name for p in scripts if "picture" in p.stem or "tuning" in p.stem] == []
