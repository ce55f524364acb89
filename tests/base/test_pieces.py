"""What task bases are built from: scores, schedules, parameter groups, checks."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from zoo import checks
from zoo.base import RootMean, Scores, ZooModule, average_gradients, decay_groups, warmup_cosine
from zoo.errors import BadInput, UnknownName


class Collected:
    """Something that is no metric of torchmetrics: keeps everything, and computes several values at the end."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def update(self, values: Tensor) -> None:
        self.seen += values.tolist()

    def compute(self) -> dict[str, float]:
        return {"largest": max(self.seen), "count": float(len(self.seen))}

    def reset(self) -> None:
        self.seen = []


class Scored(ZooModule):
    """Scores the numbers it is given."""

    monitor = ("val/rmse", "min")

    def __init__(self, stop_at: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.scores = Scores({"first": MeanMetric()}, rmse=RootMean(), values=Collected())

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        return self.weight**2

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        values = batch["value"]
        self.scores.update_loss(stage, values.mean(), len(values))
        self.scores.update(stage, "rmse", values**2)
        self.scores.update(stage, "values", values)
        if stage == "test":
            self.scores.update(stage, "first", values[0])
        if batch["index"][-1] == self.hparams["stop_at"]:
            raise RuntimeError("stopped")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


VALUES = [1.0, 2.0, 3.0, 10.0, 20.0]


def loader() -> DataLoader[Any]:
    rows: Any = [{"index": i, "value": v} for i, v in enumerate(VALUES)]
    return DataLoader(rows, batch_size=3)


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", enable_checkpointing=False, **quiet, **options)


EXPECTED = {
    "loss": sum(VALUES) / 5,
    "rmse": math.sqrt(sum(v * v for v in VALUES) / 5),
    "largest": 20.0,
    "count": 5.0,
}


def test_scores_weigh_samples_not_batches(tmp_path: Path) -> None:
    """The last batch is smaller; each stage has its own copy, and each epoch starts from nothing."""
    module = Scored()
    run = trainer(tmp_path, max_epochs=3)
    run.fit(module, loader(), loader())
    expected = {f"val/{name}": value for name, value in EXPECTED.items()}
    assert {k: float(v) for k, v in run.callback_metrics.items()} == pytest.approx(expected)
    assert "val/rmse" in run.progress_bar_metrics
    assert "val/loss" not in run.progress_bar_metrics
    (tested,) = run.test(module, loader(), verbose=False)
    assert tested == pytest.approx({f"test/{name}": value for name, value in EXPECTED.items()} | {"test/first": 5.5})
    assert list(module.state_dict()) == ["weight"]


def test_an_interrupted_evaluation_leaves_nothing_behind(tmp_path: Path) -> None:
    module = Scored(stop_at=4)
    for stage, evaluate in (("val", Trainer.validate), ("test", Trainer.test)):
        module.hparams["stop_at"] = 4
        with pytest.raises(RuntimeError, match="stopped"):
            evaluate(trainer(tmp_path), module, loader(), verbose=False)
        module.hparams["stop_at"] = -1
        (values,) = evaluate(trainer(tmp_path), module, loader(), verbose=False)
        assert values[f"{stage}/count"] == 5
        assert values[f"{stage}/loss"] == pytest.approx(EXPECTED["loss"])


def test_training_goes_on_after_an_evaluation(tmp_path: Path) -> None:
    """Lightning evaluates in inference mode, whose tensors training may not change."""
    module = Scored()
    trainer(tmp_path).validate(module, loader(), verbose=False)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, loader(), loader())
    assert float(run.callback_metrics["val/count"]) == 5


def test_scores_are_copied_whole_and_name_what_is_missing() -> None:
    scores = Scores(accuracy=MulticlassAccuracy(3, average="micro"))
    twin = copy.deepcopy(scores)
    twin.update("val", "accuracy", torch.tensor([0, 1]), torch.tensor([0, 2]))
    assert float(twin["val", "accuracy"].compute()) == 0.5
    assert int(scores["val", "accuracy"].tp.sum()) == 0
    assert scores.names("test") == ["loss", "accuracy"]
    assert Scores(loss=None, mse=MeanMetric()).names("val") == ["mse"]
    assert scores.double()["test", "accuracy"] in set(scores.modules())
    with pytest.raises(UnknownName, match="val/accuracy"):
        scores.update("val", "acuracy", torch.zeros(1))


def test_decay_groups_keep_order_and_leave_out_what_is_frozen() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 5), nn.Linear(5, 6))
    module[2].requires_grad_(False)
    decayed, rest = decay_groups(module, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(module[0].weight), id(module[3].weight)]
    assert [id(p) for p in rest["params"]] == [id(p) for p in (module[0].bias, *module[1].parameters(), module[3].bias)]
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    (only,) = decay_groups(nn.LayerNorm(3), 0.1)
    assert only["weight_decay"] == 0.0


def test_warmup_cosine_at_its_corners() -> None:
    factor = warmup_cosine(100, warmup=0.1, final=0.01)
    assert [factor(0), factor(5), factor(10), factor(100), factor(200)] == pytest.approx([0.1, 0.5, 1, 0.01, 0.01])
    assert factor(55) == pytest.approx(0.01 + 0.99 * 0.5)
    plain = warmup_cosine(8)
    assert [plain(s) for s in range(9)] == [0.5 * (1 + math.cos(math.pi * s / 8)) for s in range(9)]


def test_two_runs_cover_one_schedule() -> None:
    whole = warmup_cosine(100, warmup=0.1, final=0.05)
    first, second = (warmup_cosine(n, 0.1, 0.05, span) for n, span in ((60, (0.0, 0.6)), (40, (0.6, 1.0))))
    parts = [first(s) for s in range(60)] + [second(s) for s in range(41)]
    assert parts == pytest.approx([whole(s) for s in range(101)])


def test_average_gradients_weighs_the_samples_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """This rank has 3 samples, the other one 1 sample and a gradient of 8 everywhere."""
    other = iter([torch.tensor(1.0), torch.full((1, 2), 8 / 4)])
    monkeypatch.setattr("zoo.base.optim.sum_over_ranks", lambda value: value + next(other))
    module = nn.Linear(2, 1)
    module(torch.tensor([[1.0, 2.0]])).sum().backward()
    module.bias.grad = None
    average_gradients(module.parameters(), 3)
    torch.testing.assert_close(module.weight.grad, torch.tensor([[(3 * 1 + 8) / 4, (3 * 2 + 8) / 4]]))
    assert module.bias.grad is None


def test_average_gradients_of_one_process_is_the_gradient() -> None:
    module = nn.Linear(2, 1)
    module(torch.tensor([[0.1, 0.7]])).sum().backward()
    average_gradients(module.parameters(), 7)
    assert torch.equal(module.weight.grad, torch.tensor([[0.1, 0.7]]))  # type: ignore[arg-type]
    average_gradients([], 7)


@pytest.mark.parametrize(
    ("check", "legal", "illegal", "says"),
    [
        (
            checks.one_of,
            ("loss", "iou", ["iou", "giou"]),
            ("loss", "ioi", ["iou", "giou"]),
            r"loss: .*Did you mean 'iou'",
        ),
        (checks.at_least, ("depth", 1, 1), ("depth", 0, 1), "depth must be at least 1, got 0"),
        (checks.at_least, ("depth", 1, 1), ("depth", math.nan, 1), "depth"),
        (checks.above, ("alpha", 0.1, 0), ("alpha", 0, 0), "alpha must be positive"),
        (checks.above, ("alpha", 2, 1), ("alpha", 1, 1), "alpha must be above 1"),
        (checks.share_of_one, ("w", 1.0), ("w", 1.5), r"w must be in \[0, 1\], got 1.5"),
        (checks.class_names, (["a", "b"], 2), (["a"], 2), "1 class_names were given for 2 classes"),
        (checks.class_names, (None, 2), ([], 2), "class_names"),
        (checks.per_channel, ([0.1], [0.2], 1), ([0.1], [0.2], 3), "mean and std need one value for each of the 3"),
        (checks.per_channel, (None, None, 3), ([0.1], None, 1), "mean and std"),
        (checks.per_channel, (None, None, 3), ([0.1], [0.0], 1), "std must be positive"),
    ],
)
def test_checks(check: Any, legal: tuple[Any, ...], illegal: tuple[Any, ...], says: str) -> None:
    check(*legal)
    with pytest.raises(BadInput, match=says):
        check(*illegal)


def test_open_shares() -> None:
    checks.share_of_one("coverage", 0.5, ends=False)
    for value in (0.0, 1.0):
        with pytest.raises(BadInput, match=r"\(0, 1\)"):
            checks.share_of_one("coverage", value, ends=False)
