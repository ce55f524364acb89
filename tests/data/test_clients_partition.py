"""Who owns what: against FedLab's partitioners, literal references, and what every partition must keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.clients import partition as partitions
from datamodules.clients.partition import Partition, Shares
from datamodules.clients.spatial import territories
from zoo.errors import BadData, BadInput

ORACLE = dict(np.load(Path(__file__).parent / "oracles" / "fedlab_partitions.npz"))
LABELS = ORACLE.pop("labels")
NAMES = ("iid", "shards-2", "dirichlet-0.5", "dirichlet-0.05", "labels-2", "quantity-0.7", "group", "spatial")


class Legacy:
    """Numpy's legacy generator, from which FedLab draws, under the names of the new one."""

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)
        self.permutation, self.shuffle = self.state.permutation, self.state.shuffle
        self.dirichlet, self.integers = self.state.dirichlet, self.state.randint


def owners(parts: list[np.ndarray], images: int) -> np.ndarray:
    owner = np.full(images, -1)
    for client, part in enumerate(parts):
        assert (owner[part] == -1).all(), "no image belongs to two clients"
        owner[part] = client
    return owner


def drawn(name: str, seed: int, clients: int) -> list[np.ndarray]:
    made = Partition.parse(name)
    return made._draw(LABELS, clients, Legacy(seed), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [k for k in ORACLE if k.startswith(("iid", "labels"))])
def test_same_images_as_fedlab(key: str) -> None:
    name, seed = key.split("/")
    clients = int(ORACLE[key].max()) + 1
    np.testing.assert_array_equal(owners(drawn(name, int(seed), clients), len(LABELS)), ORACLE[key])


@pytest.mark.parametrize("key", [k for k in ORACLE if k.startswith("dirichlet")])
def test_dirichlet_draws_and_repeats_as_fedlab_does(key: str) -> None:
    name, seed = key.split("/")
    rng: Any = Legacy(int(seed))
    smallest = 0
    while smallest < 20:
        parts = partitions.dirichlet(LABELS, 8, float(name.partition("-")[2]), rng)
        smallest = min(len(part) for part in parts)
    np.testing.assert_array_equal(owners(parts, len(LABELS)), ORACLE[key])


@pytest.mark.parametrize("key", [k for k in ORACLE if k.startswith("shards")])
def test_shards_hold_the_classes_that_fedlabs_hold(key: str) -> None:
    """FedLab's sort is not stable, so that equal labels may change places."""
    name, seed = key.split("/")
    mine, theirs = owners(drawn(name, int(seed), 8), len(LABELS)), ORACLE[key]
    for client in range(8):
        np.testing.assert_array_equal(
            np.bincount(LABELS[mine == client], minlength=10), np.bincount(LABELS[theirs == client], minlength=10)
        )


@pytest.mark.parametrize("key", [k for k in ORACLE if k.startswith("quantity")])
def test_sizes_as_fedlabs_but_no_image_left_out(key: str) -> None:
    name, seed = key.split("/")
    rng: Any = Legacy(int(seed))
    rng.permutation = np.random.default_rng(0).permutation  # FedLab shuffles after all draws of the sizes
    for _ in range(1000):
        sizes = np.array([len(p) for p in partitions.quantity(LABELS, 8, float(name.partition("-")[2]), rng)])
        assert sizes.sum() == len(LABELS) >= ORACLE[key].sum()
        if np.abs(sizes - ORACLE[key]).max() <= 1:
            return
        assert sizes.min() <= 10, "FedLab throws away draws in which a client has fewer than ten"
    pytest.fail("never the sizes that FedLab drew")


# What every partition keeps ---------------------------------------------------------------------------------------


def share(name: str, seed: int = 0, clients: int = 6, **given: Any) -> Shares:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 40, len(LABELS))
    places = rng.random((len(LABELS), 2)) * (3, 1)
    return Partition.parse(name).share(LABELS, clients, seed, groups=groups, positions=places, **given)


@pytest.mark.parametrize("name", NAMES)
def test_a_partition_is_a_pure_function_of_data_and_seed(name: str) -> None:
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    before = LABELS.copy()
    one, two, other = share(name), share(name), share(name, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(one.parts, two.parts, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one.parts, other.parts, strict=True))
    np.testing.assert_array_equal(LABELS, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    covered = owners(one.parts, len(LABELS))
    assert (covered == -1).sum() == one.left_out
    assert one.left_out == 0 or name.startswith("labels")
    assert all((np.diff(part) > 0).all() and len(part) for part in one.parts)


def test_labels_each_gives_that_many_classes() -> None:
    parts = share("labels-3", clients=12).parts
    assert [len(np.unique(LABELS[part])) for part in parts] == [3] * 12
    few = share("labels-1", clients=4)
    assert few.left_out == (LABELS >= 4).sum()


def test_smaller_alpha_means_more_skew() -> None:
    def distance(name: str) -> float:
        everyone = np.bincount(LABELS, minlength=10) / len(LABELS)
        own = [np.bincount(LABELS[part], minlength=10) / len(part) for s in range(20) for part in share(name, s).parts]
        return float(np.abs(np.array(own) - everyone).sum(1).mean() / 2)

    found = [distance(name) for name in ("dirichlet-100", "dirichlet-1", "dirichlet-0.1")]
    assert found == sorted(found)
    assert found[0] < distance("iid") < 0.1 < 0.5 < found[-1], "each class in even shares is more alike than dealing"


def test_draws_are_repeated_until_everyone_has_enough() -> None:
    rough = [share("quantity-0.3", seed, least=1) for seed in range(30)]
    assert any(min(map(len, s.parts)) < 60 for s in rough)
    enough = [share("quantity-0.3", seed, least=60) for seed in range(30)]
    assert all(min(map(len, s.parts)) >= 60 for s in enough)
    repeated = [s.retries > 0 for s in enough]
    assert repeated == [min(map(len, s.parts)) < 60 for s in rough], "only draws with a small client are repeated"


def test_usual_least_size_is_a_batch_or_half_a_share() -> None:
    assert all(min(map(len, share("quantity-0.2", seed).parts)) >= 32 for seed in range(20))
    tiny = Partition.parse("dirichlet-0.5").share(LABELS[:40], 10, 0)
    assert min(map(len, tiny.parts)) >= 2


def test_a_tiny_alpha_does_not_divide_by_zero() -> None:
    with np.errstate(all="raise"):
        parts = partitions.dirichlet(LABELS, 4, 1e-3, np.random.default_rng(0))
    assert sum(map(len, parts)) == len(LABELS)


# Groups and places ------------------------------------------------------------------------------------------------


def test_groups_stay_whole_and_sizes_are_balanced() -> None:
    groups = np.repeat(np.arange(7), [50, 40, 30, 30, 20, 20, 10])
    parts = partitions.by_group(groups, 3, np.random.default_rng(0))
    owner = owners(parts, len(groups))
    assert all(len(set(owner[groups == g])) == 1 for g in range(7))
    assert sorted(map(len, parts)) == [60, 70, 70], "the largest first, to whoever has fewest"
    each = partitions.by_group(groups, 7, np.random.default_rng(5))
    assert [set(groups[part]) for part in each] == [{g} for g in range(7)]


@pytest.mark.parametrize("clients", [1, 2, 5, 7, 16])
def test_territories_are_equal_and_apart(clients: int) -> None:
    """Cuts by straight lines: no two hulls overlap, which a separating line proves."""
    places = np.random.default_rng(0).random((803, 2))
    parts = territories(places, clients, 0.4)
    sizes = [len(part) for part in parts]
    assert sum(sizes) == 803
    assert max(sizes) - min(sizes) <= max(3, clients // 3)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    boxes = [((places @ turn)[part].min(0), (places @ turn)[part].max(0)) for part in parts]
    for i, (low, high) in enumerate(boxes):
        for other_low, other_high in boxes[:i]:
            assert ((high <= other_low) | (other_high <= low)).any()


def test_territories_of_a_line_are_its_pieces() -> None:
    places = np.stack([np.arange(12.0), np.zeros(12)], 1)[np.random.default_rng(1).permutation(12)]
    parts = territories(places, 4, 0.0)
    assert [sorted(places[part, 0]) for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_flights_stay_whole_in_a_territory() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 30, 900)
    centres = rng.random((30, 2))
    places = centres[groups] + rng.normal(0, 0.2, (900, 2))
    owner = owners(territories(places, 6, 1.0, groups), 900)
    assert all(len(set(owner[groups == g])) == 1 for g in range(30))
    with pytest.raises(BadInput, match="30 groups of places"):
        territories(places, 31, 1.0, groups)


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dirchlet-0.5", "dirichlet"),
        ("dirichlet", "dirichlet-0.5"),
        ("dirichlet-0", "above 0"),
        ("dirichlet--1", "above 0"),
        ("dirichlet-nan", "above 0"),
        ("labels-1.5", "whole number"),
        ("labels-0", "whole number"),
        ("shards-x", "shards-2"),
        ("iid-3", "no number"),
        ("", "iid"),
    ],
)
def test_names_are_refused(name: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Partition.parse(name)


@pytest.mark.parametrize("name", ["iid", "dirichlet-0.5", "labels-2", "quantity-2", "shards-10"])
def test_a_name_survives_reading(name: str) -> None:
    assert Partition.parse(name).name == name


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: share("iid", clients=1201), "1200 training images only"),
        (lambda: share("iid", clients=6, least=201), "min_client_size=201"),
        (lambda: share("dirichlet-0.01", clients=6, least=199), "2000 draws.*larger number"),
        (lambda: share("labels-11"), "10 classes"),
        (lambda: share("shards-300"), "1800 shards of 1200"),
        (lambda: share("group", clients=41), "40 groups"),
    ],
)
def test_impossible_partitions_say_why(call: Callable[[], Shares], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        call()


@pytest.mark.parametrize("name", ["group", "spatial"])
def test_missing_groups_or_places_say_how_to_give_them(name: str) -> None:
    with pytest.raises(BadData, match=r"CLASS/ENTITY.*metadata\.csv.*npz"):
        Partition.parse(name).share(LABELS, 4, 0)
