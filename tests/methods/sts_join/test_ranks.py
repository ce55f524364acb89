"""A join shared among real ranks, and an index built on several of them, equal one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.methods.sts_join.module import STSJoin
from zoo.methods.sts_join.motions import motions_of
from zoo.methods.sts_join.studies import walkers

WORLD = 2


def answers(model: STSJoin) -> dict[str, Any]:
    """Everything that a join over the ranks gives, for walkers and for another distance."""
    queries = walkers(12, 9, 600.0, 40)
    motions = motions_of(queries, torch.full((12,), 41), 120.0)
    found = [model.join_over_ranks(motions), model.join_over_ranks(motions, model.plan(delta=20.0, eps=1.0))]
    names = ("query", "track", "upper", "offsets", "start", "end")
    return {f"{i} {n}": getattr(f, n).numpy() for i, f in enumerate(found) for n in names}


def model() -> STSJoin:
    return STSJoin(delta=60.0, eps=20.0).index(list(walkers(30, 8, 600.0, 40)))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    np.savez(f"{folder}/{rank}.npz", **answers(model()))
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(work, (str(tmp_path),), nprocs=WORLD, start_method="fork")  # type: ignore[no-untyped-call]
    alone = answers(model())
    assert len(alone["0 query"]) > 20
    assert len(alone["1 query"]) > 5
    for rank in range(WORLD):
        found = np.load(tmp_path / f"{rank}.npz")
        for name, value in alone.items():
            if name.endswith(("start", "end")):  # an interval that crosses the border between ranks is joined there
                np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9)
            else:
                assert np.array_equal(found[name], value), name


@pytest.mark.parametrize("batch_size", [3, 8])
def test_index_does_not_depend_on_batches(batch_size: int, tmp_path: Path) -> None:
    import lightning

    from datamodules.tracks import TracksDataModule

    states = []
    for size in (batch_size, 17):
        module = STSJoin(delta=60.0, eps=30.0)
        trainer = lightning.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=str(tmp_path),
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, TracksDataModule(batch_size=size, train_size=17, val_size=3, test_size=3))
        states.append(module.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
