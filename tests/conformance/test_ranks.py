"""C16: two processes see every sample once, stay bit-identical, and equal one process where samples are not coupled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conformance.pool import Pool
from conformance.rank_tasks import STEPS, StillDropout
from conformance.support import COUPLING, data_of, learned, model_of, names, state_of, trainer_of
from zoo.index import Entry

# one pair of processes for the whole run, whichever worker of pytest-xdist gets these tests
pytestmark = pytest.mark.xdist_group("two ranks")


def ask(pool: Pool, request: pytest.FixtureRequest, task: str, folder: Path, *args: Any) -> list[Any]:
    """Run a task of the entry under test; its seconds count for the entry."""
    name = request.node.callspec.id
    answers = pool.run(task, name, str(folder), *args)
    spent = sum(a["seconds"] for a in answers)
    request.node.user_properties.append(("zoo entry", (name.partition(":")[0], "method", spent)))
    return [a["value"] for a in answers]


def test_c16_equal_metrics(entry: Entry, pool: Pool, folder: Path, request: pytest.FixtureRequest) -> None:
    model, data = learned(entry, folder)
    data = data_of(entry, batch_size=1)  # a loss may depend on how samples fall into batches; not so with one each
    torch.save(model.state_dict(), folder / "weights.pt")
    expected: dict[str, float] = {}
    for stage in ("validate", "test"):
        trainer = trainer_of(folder)
        getattr(trainer, stage)(model, data, verbose=False)
        expected |= {k: float(v) for k, v in trainer.callback_metrics.items()}
    first, second = ask(pool, request, "score", folder, str(folder / "weights.pt"))
    assert first["metrics"] == second["metrics"]
    assert sum(first["sizes"]) + sum(second["sizes"]) == len(data.split("val")) + len(data.split("test"))  # type: ignore[arg-type]
    assert first["sizes"] != second["sizes"], "make tiny.data's val or test split odd, so that the shares are unequal"
    assert expected.keys() == first["metrics"].keys()
    for key, value in expected.items():
        assert first["metrics"][key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def test_c16_ranks_stay_identical(entry: Entry, pool: Pool, folder: Path, request: pytest.FixtureRequest) -> None:
    first, second = ask(pool, request, "train", folder, "ddp", 2, False)
    assert first["steps"] == second["steps"] > 0
    apart = [k for k, v in first["state"].items() if not statistic(k) and not np.array_equal(v, second["state"][k])]
    assert not apart, f"the ranks differ in {names(apart)}"
    start = state_of(model_of(entry))
    moved = [
        k for k, v in first["state"].items() if v.shape != start[k].shape or not np.array_equal(v, start[k].numpy())
    ]
    assert moved, "nothing was learned"


def statistic(key: str) -> bool:
    """Running statistics follow each rank's own samples until DDP broadcasts them at the next step."""
    return key.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked")


def test_c16_equals_one_process(entry: Entry, pool: Pool, folder: Path, request: pytest.FixtureRequest) -> None:
    """Two ranks with batches of b see what one process sees with batches of 2b; clients keep their own batches."""
    model = model_of(entry)
    if couples(model, entry):
        return
    rounds = model.every_sample
    first, _ = ask(pool, request, "train", folder, "fed_ddp" if rounds else "ddp", 4, True)
    limits: dict[str, Any] = {} if rounds else {"max_steps": STEPS, "max_epochs": -1}
    trainer = trainer_of(folder, StillDropout(), limit_val_batches=0, **limits)
    trainer.fit(model, data_of(entry, batch_size=4 if hasattr(data_of(entry), "client_loader") else 8))
    assert first["steps"] == trainer.global_step
    for key, value in state_of(model).items():
        np.testing.assert_allclose(first["state"][key], value.numpy(), rtol=2e-4, atol=2e-5, err_msg=key)


def couples(model: torch.nn.Module, entry: Entry) -> bool:
    """Whether results depend on how samples are shared: batch statistics, several losses, ranks that are clients."""
    if entry.learns == "rounds":
        return not model.rank_invariant  # batch statistics belong to a client, wherever it is
    coupled = any(isinstance(m, COUPLING) for m in model.modules())
    return coupled or (not model.automatic_optimization and entry.learns == "gradient")


def test_c16_prediction_covers_every_sample(
    entry: Entry, pool: Pool, folder: Path, request: pytest.FixtureRequest
) -> None:
    seen = ask(pool, request, "predict", folder)
    count = len(data_of(entry).split("predict"))  # type: ignore[arg-type]
    assert sorted(seen[0] + seen[1]) == list(range(count))


def test_c16_fewer_samples_than_ranks(entry: Entry, pool: Pool, folder: Path, request: pytest.FixtureRequest) -> None:
    for told in ask(pool, request, "too_few", folder):
        assert "2 processes" in told


def test_c17_resume_on_two_ranks(entry: Entry, pool: Pool, folder: Path, request: pytest.FixtureRequest) -> None:
    stop = max(1, int(1.5 * (len(data_of(entry).train_dataloader()) // 2)))
    for found in ask(pool, request, "resume", folder, stop):
        assert not found, f"after resuming: {names(found)}"
