"""ClientsDataModule on every layout, and where groups and places come from."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.clients import ClientsDataModule
from datamodules.images import world as _images_world
from datamodules.worlds.land_cover import LandCoverConfig
from zoo.errors import BadData


def small(**given: Any) -> ClientsDataModule:
    return ClientsDataModule(**{"train_size": 600, "val_size": 50, "test_size": 50, "num_clients": 6, **given})


def batches(data: ClientsDataModule, client: int = 1, round: int = 0, epochs: int = 1) -> list[dict[str, torch.Tensor]]:
    return list(data.client_loader(client, round, epochs))


# Layouts, groups and places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fashion-mnist", "cifar-10", "svhn", "eurosat", "celeba", "gtsrb", "folders", "npz"])
def test_every_layout_has_clients(kind: str, tmp_path: Path) -> None:
    root = ClientsDataModule().fake(tmp_path / kind, format=kind)
    data = ClientsDataModule(root=str(root), num_clients=3, partition="dirichlet-1", batch_size=4)
    assert data.format == kind
    batch = batches(data)[0]
    assert batch["image"].shape[1:] == (data.facts()["channels"], data.facts()["img_size"], data.facts()["img_size"])
    assert sum(data.client_size(c) for c in range(3)) == len(data.images)


def test_celeba_people_belong_to_one_client(tmp_path: Path) -> None:
    root = ClientsDataModule().fake(tmp_path, format="celeba")
    lines = (root / "celeba" / "identity_CelebA.txt").read_text().split()
    person = dict(zip(lines[::2], lines[1::2], strict=True))

    def people(data: ClientsDataModule, client: int) -> set[str]:
        paths = data.images.source.paths  # type: ignore[attr-defined]
        return {person[paths[i].name] for i in data.client_dataset(client).chosen}

    data = ClientsDataModule(root=str(root), num_clients=3, partition="group", img_size=32)
    owned = [people(data, c) for c in range(3)]
    assert not owned[0] & owned[1] | owned[0] & owned[2] | owned[1] & owned[2]
    each = ClientsDataModule(root=str(root), num_clients=0, partition="group", img_size=32)
    assert each.num_clients == 8
    assert all(len(people(each, c)) == 1 for c in range(8))
    (root / "celeba" / "identity_CelebA.txt").unlink()
    with pytest.raises(BadData, match="identity_CelebA"):
        ClientsDataModule(root=str(root), num_clients=3, partition="group").shares()
    assert ClientsDataModule(root=str(root), num_clients=3).client_size(0) > 0, "only groups need it"


def nested(root: Path) -> Path:
    """Class folders with a folder per machine in each."""
    for number, path in enumerate(sorted((root / "train").rglob("*.png"))):
        place = path.parent / f"machine{number % 4}"
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    return root


def test_folders_between_class_and_file_are_groups(tmp_path: Path) -> None:
    root = nested(ClientsDataModule().fake(tmp_path, format="folders"))
    data = ClientsDataModule(root=str(root), num_clients=0, partition="group")
    assert data.num_clients == 4
    paths = data.images.source.paths  # type: ignore[attr-defined]
    for client in range(4):
        assert {paths[i].parent.name for i in data.client_dataset(client).chosen} == {f"machine{client}"}
    assert [row["name"] for row in data.partition_report()] == [f"machine{k}" for k in range(4)]
    two = ClientsDataModule(root=str(root), num_clients=2, partition="group")
    assert sorted(", ".join(two.client_names() or ()).split(", ")) == [f"machine{k}" for k in range(4)]
    assert ClientsDataModule(root=str(root), num_clients=2).client_names() is None
    two.write_partition(tmp_path / "run")
    assert f'0,"{two.client_names()[0]}",' in (tmp_path / "run" / "partition.csv").read_text()  # type: ignore[index]
    stray = next((root / "train").rglob("machine1/*.png"))
    stray.rename(stray.parent.parent / "stray.png")
    with pytest.raises(BadData, match=r"stray\.png: group"):
        ClientsDataModule(root=str(root), num_clients=2, partition="group").shares()


def table(root: Path, rows: list[dict[str, Any]]) -> None:
    with (root / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_gives_groups_and_places(tmp_path: Path) -> None:
    root = ClientsDataModule().fake(tmp_path, format="folders")
    files = sorted(p.relative_to(root).as_posix() for p in (root / "train").rglob("*.png"))
    rows = [{"file_name": f, "group": f"site {n % 3}", "x": n // 20, "y": 0.5} for n, f in enumerate(files)]
    table(root, rows)
    data = ClientsDataModule(root=str(root), num_clients=0, partition="group")
    assert data.num_clients == 3
    halves = ClientsDataModule(root=str(root), num_clients=2, partition="spatial")
    place = {row["file_name"]: row["x"] for row in rows}
    paths = halves.images.source.paths  # type: ignore[attr-defined]
    sides = [{place[paths[i].relative_to(root).as_posix()] for i in halves.client_dataset(c).chosen} for c in (0, 1)]
    assert sorted(map(sorted, sides)) == [[0], [1]]
    rows[3]["x"], rows[5]["y"], rows[7]["group"] = "east", "inf", ""
    table(root, rows[:-1])
    for partition, told in (("spatial", files[-1]), ("group", r"metadata\.csv:9: group")):
        with pytest.raises(BadData, match=told):
            ClientsDataModule(root=str(root), num_clients=2, partition=partition).shares()
    table(root, rows)
    with pytest.raises(BadData) as broken:
        ClientsDataModule(root=str(root), num_clients=2, partition="spatial").shares()
    assert len(broken.value.problems) == 2


@pytest.mark.parametrize("dialect", ["windows paths", "semicolons", "tabs", "utf-16", "blank lines"])
def test_tables_as_other_programs_write_them(dialect: str, tmp_path: Path) -> None:
    root = ClientsDataModule().fake(tmp_path, format="folders")
    files = sorted(p.relative_to(root).as_posix() for p in (root / "train").rglob("*.png"))
    lines = ["file_name,group", *(f"{name},site {n % 3}" for n, name in enumerate(files))]
    text = "\r\n".join(lines) + "\r\n"
    if dialect == "windows paths":
        text = text.replace("/", "\\")
    if dialect in ("semicolons", "tabs"):
        text = text.replace(",", ";" if dialect == "semicolons" else "\t")
    if dialect == "blank lines":
        text = "\r\n" + text.replace("\r\n", "\r\n\r\n")
    (root / "metadata.csv").write_bytes(text.encode("utf-16" if dialect == "utf-16" else "utf-8"))
    assert ClientsDataModule(root=str(root), num_clients=0, partition="group").num_clients == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("file_name,group\na.png,Köln\n".encode("latin-1"), r"text in UTF-8, got the byte 0xf6 in line 2"),
        ("file_name,group\na.png,b\n".encode("utf-16-le"), r"text in UTF-8, .*, got a zero byte in line 1"),
        (b'file_name,group\na.png,"b\n' + b"x" * 200_000, r"a table, got a quote that is never closed"),
    ],
    ids=["Latin-1", "UTF-16 without a mark", "an open quote"],
)
def test_tables_that_are_no_text_are_named(content: bytes, told: str, tmp_path: Path) -> None:
    root = ClientsDataModule().fake(tmp_path, format="folders")
    (root / "metadata.csv").write_bytes(content)
    with pytest.raises(BadData, match=rf"metadata\.csv: file: expected {told}"):
        ClientsDataModule(root=str(root), num_clients=2, partition="group").shares()


def test_npz_files_may_say_groups_and_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 8, 8), dtype=np.uint8), np.arange(30) % 3
    marks = {"groups": np.array(list("abc"))[np.arange(30) // 10], "positions": rng.random((30, 2))}
    np.savez(tmp_path / "train.npz", images=images, labels=labels, **marks)
    data = ClientsDataModule(root=str(tmp_path), num_clients=0, partition="group")
    assert data.num_clients == 3
    assert ClientsDataModule(root=str(tmp_path), num_clients=4, partition="spatial").client_size(0) > 0
    one = {f"train_{k}": v for k, v in {"images": images, "labels": labels, **marks}.items()}
    np.savez(tmp_path / "one.npz", **one)
    assert ClientsDataModule(root=str(tmp_path / "one.npz"), num_clients=0, partition="group").num_clients == 3
    marks["positions"][4, 1] = math.nan
    np.savez(tmp_path / "train.npz", images=images, labels=labels, **marks)
    with pytest.raises(BadData, match="positions: expected finite"):
        ClientsDataModule(root=str(tmp_path), num_clients=4, partition="spatial").shares()


def test_territories_of_a_map_keep_flights_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    world = LandCoverConfig(sides=(768, 512, 512), flights=(9, 2, 2), tiles=12)
    monkeypatch.setattr(_images_world, "WORLD", world)
    data = ClientsDataModule(format="land-cover", partition="spatial", num_clients=4, img_size=16)
    flights = data._arrays("train").groups
    assert flights is not None
    owned = [set(flights[data.client_dataset(c).chosen].tolist()) for c in range(4)]
    assert sum(map(len, owned)) == 9 == len(set().union(*owned))
    every = ClientsDataModule(format="land-cover", partition="group", num_clients=0)
    assert every.num_clients == 9


def test_missing_groups_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="partition=group"):
        small(partition="group").shares()
    with pytest.raises(BadData, match="partition=group"):
        small(partition="group", num_clients=0).num_clients  # noqa: B018
    root = ClientsDataModule().fake(tmp_path, format="folders")
    with pytest.raises(BadData, match="partition=spatial"):
        ClientsDataModule(root=str(root), num_clients=2, partition="spatial").shares()
    shutil.rmtree(root)
