"""C36-C39: splits are disjoint and seeded, folders look like the embedded data, broken files are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.support import batch_of, data_of, different, items_of, model_of, samples_of, tensors, trainer_of
from zoo.errors import ZooError
from zoo.index import Entry

SPLITS = ("train", "val", "test")
ALL = (*SPLITS, "predict")
PROSE = (".md", ".rst")


def digest(item: dict[str, Any]) -> bytes:
    """The largest tensor of a sample, as bytes: what it looks like."""
    content = [t for key, value in sorted(item.items()) if key != "index" for t in tensors(value)]
    return max(content, key=lambda t: t.numel()).contiguous().numpy().tobytes()


def structure(batch: dict[str, Any]) -> dict[str, Any]:
    """Types and dimensions of a batch, without its sizes."""

    def look(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return (str(value.dtype), value.ndim)
        if isinstance(value, (list, tuple)):
            return [look(v) for v in value[:1]]
        return type(value).__name__ if not isinstance(value, (int, str)) else "id"

    return {key: look(value) for key, value in batch.items()}


def test_c36_splits_are_disjoint(entry: Entry) -> None:
    data = data_of(entry)
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        samples = samples_of(data, split)
        for number in range(min(200, len(samples))):  # type: ignore[arg-type]
            item = samples[number]
            other = seen.setdefault(digest(item), split)
            assert other == split, f"the same sample is in {other} and {split}"


def test_c36_items_are_seeded(entry: Entry) -> None:
    first, again = data_of(entry), data_of(entry)
    for split in ALL:
        assert len(first.split(split)) == len(again.split(split))  # type: ignore[arg-type]
        for left, right in zip(items_of(first, split, 3), items_of(again, split, 3), strict=True):
            assert not different(left, right)


def test_c36_order_depends_on_seed_and_epoch(entry: Entry) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        data: Any = data_of(entry, seed=seed)
        if hasattr(data, "client_loader"):
            return [int(i) for batch in data.client_loader(0, epoch) for i in batch["index"]]
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return list(loader.sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) == sorted(order(0, 1))


def test_c36_index(entry: Entry) -> None:
    data = data_of(entry)
    for split in ALL:
        batch = batch_of(data, split)
        assert batch["index"].dtype == torch.int64
        assert batch["index"].tolist() == list(range(len(batch["index"])))


def test_c37_folder_and_embedded_data_look_alike(entry: Entry, folder: Path) -> None:
    own = data_of(entry)
    place = own.fake(folder / "fake")
    assert place.is_dir()
    custom = data_of(entry, root=place)
    for split in ALL:
        assert structure(batch_of(custom, split)) == structure(batch_of(own, split)), split
    assert custom.facts().keys() == own.facts().keys()


def test_c37_fake_is_seeded_and_small(entry: Entry, folder: Path) -> None:
    data = data_of(entry)
    first, second = data.fake(folder / "a"), data.fake(folder / "b")
    files = [sorted(p.relative_to(place) for p in place.rglob("*") if p.is_file()) for place in (first, second)]
    assert files[0] == files[1]
    assert all((first / p).read_bytes() == (second / p).read_bytes() for p in files[0])
    assert sum((first / p).stat().st_size for p in files[0]) < 5_000_000


def test_c38_folder_trains(entry: Entry, folder: Path) -> None:
    place = data_of(entry).fake(folder / "fake")
    data = data_of(entry, root=place, batch_size=2)
    facts = {k: v for k, v in data.facts().items() if k in model_of(entry).init_args}
    model = model_of(entry, **facts)
    trainer = trainer_of(folder, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(model, data)
    assert model.monitor[0] in trainer.callback_metrics


def test_c38_broken_files_are_named(entry: Entry, folder: Path) -> None:
    """Each kind of file in turn is overwritten: reading everything must name it."""
    place = data_of(entry).fake(folder / "fake")
    files = [p for p in sorted(place.rglob("*")) if p.is_file() and p.suffix not in PROSE]
    for kind in sorted({p.suffix for p in files}):
        victim = next(p for p in files if p.suffix == kind)
        broken = folder / f"broken{kind}"
        shutil.copytree(place, broken)
        (broken / victim.relative_to(place)).write_bytes(b"\x00broken\xff" * 3)
        with pytest.raises(ZooError, match=victim.name.replace(".", r"\.")):
            read_everything(entry, broken)


def read_everything(entry: Entry, place: Path) -> None:
    """Every sample of every split."""
    data = data_of(entry, root=place)
    data.facts()
    for split in ALL:
        items_of(data, split, 1000)


def test_c38_missing_folder_is_named(entry: Entry, folder: Path) -> None:
    with pytest.raises(ZooError, match="nowhere"):
        read_everything(entry, folder / "nowhere")


def test_c39_facts(entry: Entry) -> None:
    data = data_of(entry)
    facts = data.facts()
    items = [item for split in SPLITS for item in items_of(data, split, 50)]
    labels = [
        int(v) for item in items for k in ("label", "labels") for t in tensors(item.get(k, [])) for v in t.flatten()
    ]
    if "num_classes" in facts and labels:
        assert min(labels) >= 0
        assert max(labels) < facts["num_classes"]
    if facts.get("class_names") is not None:
        assert len(facts["class_names"]) == facts["num_classes"]
        assert all(isinstance(n, str) for n in facts["class_names"])
    if "channels" in facts:
        batch = batch_of(data, "train")
        assert batch.get("image", torch.empty(1, facts["channels"])).shape[1] == facts["channels"]


def test_data_arguments_are_refused(entry: Entry) -> None:
    with pytest.raises(ZooError, match="batch_size"):
        entry.data_class()(batch_size=0)
    with pytest.raises(ZooError, match="num_workers"):
        entry.data_class()(num_workers=-1)
    with pytest.raises(ZooError, match="split"):
        data_of(entry).split("trian")
