"""LandCoverMap: what a map holds, that splits share nothing, that tiles are what their flight saw, and the cache."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from datamodules.images import ImagesDataModule
from datamodules.images import world as _images_world
from datamodules.images.world import land_cover_pictures
from datamodules.worlds import land_cover
from datamodules.worlds.land_cover import CLASSES, SPLITS, TILE, LandCoverConfig, Tiles, render
from datamodules.worlds.land_cover.map import make_ground, smooth_noise
from zoo.errors import BadInput

SMALL = LandCoverConfig(sides=(768, 512, 512), flights=(9, 3, 3), tiles=25)


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    return render(SMALL, "train")


def test_noise_has_its_wavelength() -> None:
    """Half a wavelength on, the noise is no longer like itself; a fraction of it on, it still is."""
    noise = smooth_noise(np.random.default_rng(0), 512, 64)
    assert abs(noise.mean()) < 1e-3
    assert abs(noise.std() - 1) < 1e-3

    def alike(shift: int) -> float:
        return float(np.corrcoef(noise[:, shift:].ravel(), noise[:, : 512 - shift].ravel())[0, 1])

    assert alike(4) > 0.95
    assert alike(64) < 0.3


def test_a_map_has_all_classes() -> None:
    ground = make_ground(np.random.default_rng(1), 1024)
    shares = np.bincount(ground.cover.reshape(-1), minlength=10) / ground.cover.size
    assert len(shares) == len(CLASSES) == 10
    assert (shares > 0.01).all()
    assert shares.max() < 0.35
    assert np.isfinite(ground.colour).all()
    assert ground.colour.min() >= 0
    assert ground.colour.max() <= 255
    assert 0.05 < np.abs(ground.slope).mean() < 5


def test_shapes_and_ranges(tiles: Tiles) -> None:
    count = len(tiles.labels)
    assert tiles.pixels.shape == (count, 3, TILE, TILE)
    assert tiles.pixels.dtype == np.uint8
    assert tiles.labels.dtype == tiles.flights.dtype == np.int64
    assert np.bincount(tiles.flights).max() <= SMALL.tiles
    assert len(np.unique(tiles.flights)) == SMALL.flights[0]
    assert tiles.positions.min() >= TILE / 2
    assert tiles.positions.max() <= SMALL.sides[0] - TILE / 2


def test_a_label_is_what_the_ground_shows(tiles: Tiles) -> None:
    cover = make_ground(np.random.default_rng((SMALL.seed, 0)), SMALL.sides[0]).cover
    for label, (x, y) in zip(tiles.labels.tolist(), (tiles.positions - TILE / 2).astype(int).tolist(), strict=True):
        shown = np.bincount(cover[y : y + TILE, x : x + TILE].reshape(-1), minlength=10) / TILE**2
        assert shown[label] >= (0.1 if CLASSES[label] in ("Highway", "River") else 0.7)


def test_flights_stay_in_their_area_and_have_their_own_light(tiles: Tiles) -> None:
    brightness = []
    for flight in range(SMALL.flights[0]):
        mine = tiles.flights == flight
        assert np.ptp(tiles.positions[mine], axis=0).max() <= 481
        brightness.append(tiles.pixels[mine].reshape(mine.sum(), -1).min(1).mean())
    assert np.ptp(brightness) > 25, "haze lifts what is dark"


def test_flights_have_few_classes(tiles: Tiles) -> None:
    everyone = np.bincount(tiles.labels, minlength=10) / len(tiles.labels)
    skew = [
        np.abs(
            np.bincount(tiles.labels[tiles.flights == f], minlength=10) / (tiles.flights == f).sum() - everyone
        ).sum()
        for f in range(SMALL.flights[0])
    ]
    assert np.mean(skew) / 2 > 0.25


def test_a_world_follows_from_its_seed(tiles: Tiles) -> None:
    again = render(SMALL, "train")
    for name, array in vars(tiles).items():
        np.testing.assert_array_equal(array, getattr(again, name))
    fewer = render(LandCoverConfig(sides=SMALL.sides, flights=(4, 3, 3), tiles=25), "train")
    np.testing.assert_array_equal(fewer.pixels, tiles.pixels[tiles.flights < 4])
    other = render(LandCoverConfig(seed=1, sides=SMALL.sides, flights=(4, 3, 3), tiles=25), "train")
    assert other.pixels.shape != fewer.pixels.shape or not np.array_equal(other.pixels, fewer.pixels)


def test_splits_are_different_land() -> None:
    """Not the same map with another light: nowhere do the covers agree more than chance has it."""
    covers = [make_ground(np.random.default_rng((0, n)), 512).cover for n in range(len(SPLITS))]
    for i in range(3):
        for j in range(i):
            assert (covers[i] == covers[j]).mean() < 0.35


def test_bad_worlds_are_refused() -> None:
    with pytest.raises(BadInput, match="512 pixels"):
        LandCoverConfig(sides=(256, 512, 512))
    with pytest.raises(BadInput, match="flights and tiles"):
        LandCoverConfig(flights=(0, 1, 1))
    with pytest.raises(BadInput, match=r"split.*Did you mean 'train'"):
        render(SMALL, "trian")


# As a data set ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_images_world, "WORLD", SMALL)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))


@pytest.mark.usefixtures("small_world")
def test_tiles_are_images_of_the_data_module(tiles: Tiles) -> None:
    data = ImagesDataModule(format="land-cover", batch_size=8)
    assert data.facts() == {"num_classes": 10, "class_names": list(CLASSES), "channels": 3, "img_size": 64}
    item = data.split("train")[5]
    np.testing.assert_array_equal((item["image"] * 255).round().byte().numpy(), tiles.pixels[5])
    assert int(item["label"]) == tiles.labels[5]
    small = ImagesDataModule(format="land-cover", img_size=32)
    assert small.split("test")[0]["image"].shape == (3, 32, 32)
    sizes = [len(data.split(s)) for s in SPLITS]  # type: ignore[arg-type]
    assert sizes[0] > sizes[1] > 0
    assert sizes[2] > 0


@pytest.mark.usefixtures("small_world")
def test_tiles_come_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        first = land_cover_pictures("val", tmp_path)
    assert "LandCoverMap (val)" in caplog.text
    monkeypatch.setattr(land_cover, "render", lambda *_: pytest.fail("the cache holds it"))
    again = land_cover_pictures("val", tmp_path)
    for name in ("pixels", "labels", "groups", "positions"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_format_needs_no_root(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="land-cover"):
        ImagesDataModule(root=str(tmp_path), format="land-cover")
