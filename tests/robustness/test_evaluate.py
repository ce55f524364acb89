"""`evaluate_robustness` and `zoo evaluate`: numbers, the battery on models that mask gradients, input of every kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toys.attacks import DigitData, DigitNet, DigitSet, accuracy, data, register_digits, trained

import zoo
from zoo.cli import main
from zoo.errors import BadInput, TooFewSamples, UnknownName
from zoo.nn.attacks import pgd
from zoo.robustness import battery
from zoo.robustness.data import samples
from zoo.robustness.report import Check, wilson

FAST = ("fgsm", "pgd-20", "cw-10")


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    _, _, x, y = data()
    return x[:60], y[:60]


def test_rows_cumulative_and_worst(digits: tuple[Tensor, Tensor]) -> None:
    model = trained()
    report = zoo.evaluate_robustness(model, digits, 0.12, None, FAST, checks=False)
    assert report.clean == pytest.approx(accuracy(model, *digits))
    assert [row.attack for row in report.rows] == list(FAST)
    values = [report.clean, *(row.cumulative for row in report.rows)]
    assert values == sorted(values, reverse=True)
    assert report.worst == report.rows[-1].cumulative <= min(row.accuracy for row in report.rows)
    x, y = digits
    adversarial = pgd(
        model, x, y, eps=0.12, step=0.012, keep="best", index=samples(digits, None).index.argsort(), seed=0
    )
    assert report.rows[1].accuracy == pytest.approx(accuracy(model, adversarial, y), abs=1.1 / 60)
    assert report.interval == wilson(report.worst, 60)
    assert not report.checks
    assert "number to quote" in str(report)


def test_batch_size_and_number_of_samples_change_no_sample(digits: tuple[Tensor, Tensor]) -> None:
    one = zoo.evaluate_robustness(trained(), digits, 0.12, 40, FAST, checks=False, batch_size=7)
    two = zoo.evaluate_robustness(trained(), digits, 0.12, 40, FAST, checks=False, batch_size=64)
    assert [row.accuracy for row in one.rows] == [row.accuracy for row in two.rows]
    few, many = samples(digits, 10, 3), samples(digits, 40, 3)
    assert torch.equal(many.index[:10], few.index)
    assert torch.equal(digits[0][few.index], few.x)


def test_wilson_interval_of_a_table() -> None:
    low, high = wilson(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)  # R: prop.test(50, 100, correct = FALSE)
    assert wilson(0.0, 10)[0] == 0


def test_sources_of_data(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    pair = samples((x, y), 20)
    for source in (
        DataLoader(TensorDataset(x, y), batch_size=7),
        TensorDataset(x, y),
        (x.numpy(), y.numpy()),
        [{"image": part, "label": label} for part, label in zip(x.split(9), y.split(9), strict=True)],
    ):
        found = samples(source, 20)
        assert torch.equal(found.x, pair.x)
        assert torch.equal(found.y, pair.y)
        assert found.total == 60
    module = samples(DigitData(), 50)
    assert module.total == len(DigitSet())
    assert len(module.y.unique()) > 5, "data sorted by class: the first ones would be zeros"


# The battery ------------------------------------------------------------------------------------------------------


def failed(model: Callable[[Tensor], Tensor], digits: tuple[Tensor, Tensor], eps: float = 0.12) -> set[str]:
    few = digits[0][:24], digits[1][:24]
    report = zoo.evaluate_robustness(model, few, eps, None, FAST)
    names = [check.name for check in report.checks]
    for name in ("deterministic", "inside the ball", "zero gradients", "more steps", "radius", "unbounded", "square"):
        assert name in names
    return {check.name for check in report.suspicious}


def test_an_honest_model_passes(digits: tuple[Tensor, Tensor]) -> None:
    assert failed(trained(), digits) <= {"square", "transfer"}, "of 24 samples, one is four points"


@pytest.mark.slow
def test_saturated_logits_are_found(digits: tuple[Tensor, Tensor]) -> None:
    """Distillation as a defence: logits so large that the softmax underflows."""
    model = trained()
    assert "zero gradients" in failed(lambda x: 1e4 * model(x), digits)


def test_shattered_gradients_are_found(digits: tuple[Tensor, Tensor]) -> None:
    """Quantised inputs whose backward pass is a step function: no gradient, and only black-box attacks succeed."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return (x * 255).round() / 255

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return torch.zeros_like(grad)

    model = trained()
    found = failed(lambda x: model(Rounded.apply(x)), digits, 0.25)
    assert {"zero gradients", "unbounded", "square"} <= found


@pytest.mark.slow
def test_random_models_are_found(digits: tuple[Tensor, Tensor]) -> None:
    model = trained()
    assert "deterministic" in failed(lambda x: model(x + 0.1 * torch.randn_like(x)), digits)


@pytest.fixture
def fewer_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the radii and Square, which take most of the time, where the test is about another check."""
    former = battery._black_box

    def black_box(run: Any, white: Tensor, attack: str, name: str) -> Check:
        return Check(name, None, "", "") if name == "square" else former(run, white, attack, name)

    monkeypatch.setattr(battery, "_sweep", lambda run: [])
    monkeypatch.setattr(battery, "_black_box", black_box)


@pytest.mark.usefixtures("fewer_checks")
def test_examples_outside_the_ball_do_not_count(digits: tuple[Tensor, Tensor]) -> None:
    attacks = {"cheat": lambda model, x, y: 1 - x}
    report = zoo.evaluate_robustness(trained(), (digits[0][:4], digits[1][:4]), 0.1, None, attacks)
    assert report.rows[0].accuracy == report.clean
    assert "inside the ball" in {check.name for check in report.suspicious}


@pytest.mark.usefixtures("fewer_checks")
def test_given_surrogates(digits: tuple[Tensor, Tensor]) -> None:
    """A model attacked through itself: transfer is as strong as PGD."""
    few = digits[0][:24], digits[1][:24]
    report = zoo.evaluate_robustness(trained(), few, 0.12, None, ["pgd-20"], surrogates=[trained()])
    found = {row.attack: row.accuracy for row in report.rows}
    assert abs(found["transfer"] - found["pgd-20"]) <= 1.1 / 24
    assert "1 given models" in next(c.measured for c in report.checks if c.name == "transfer")


# AutoAttack -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_autoattack_from_the_package_and_our_ensemble_agree(
    digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    few = digits[0][:12], digits[1][:12]
    peer = zoo.evaluate_robustness(trained(), few, 0.12, None, ["autoattack"], checks=False)
    assert "pyautoattack" in peer.rows[0].about
    assert torch.equal(torch.get_rng_state(), state)
    for package in ("pyautoattack", "autoattack"):
        monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    own = zoo.evaluate_robustness(trained(), few, 0.12, None, ["autoattack"], checks=False)
    assert "own ensemble" in own.rows[0].about
    assert "lightning-method-zoo[robust-eval]" in own.rows[0].about
    assert abs(own.worst - peer.worst) <= 1.1 / 12


def test_two_and_three_classes(digits: tuple[Tensor, Tensor]) -> None:
    model = trained()
    for classes in (2, 3):
        x, y = (part[digits[1] < classes] for part in digits)
        report = zoo.evaluate_robustness(
            lambda x, k=classes: model(x)[:, :k], (x, y), 0.2, 4, ["apgd-dlr-5", "apgd-t-5"], checks=False
        )
        assert len(report.rows) == 2


# Bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_named(digits: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = trained(), digits
    cases = [
        (nn.Sequential(model, nn.Softmax(1)), (x, y), {}, "probabilities"),
        (model, (x * 255, y), {}, r"\[0, 1\], got values from 0 to 255"),
        (model, ((x * 255).byte(), y), {}, "floats in"),
        (model, (x, y), {"eps": 8}, r"8/255"),
        (model, (x, y), {"n": 0}, "n must be"),
        (model, (x, y), {"attacks": []}, "attacks is empty"),
        (model, (x, y), {"attacks": ["pgd-0"]}, "number of steps"),
        (model, (x, y), {"norm": "l1"}, "norm must be"),
        (model, (x, y), {"batch_size": 0}, "batch_size"),
        (model, (x, y + 5), {}, r"labels go from .* 10 classes"),
        (model, (x, y.float()), {}, "whole numbers"),
        (model, [{"pixels": x}], {}, "no images under"),
        (model, "data", {}, "data must be"),
        (model, None, {}, "data is missing"),
        (3, (x, y), {}, "model must be"),
        (lambda x: model(x).argmax(1), (x, y), {}, "one float tensor of logits"),
        (model, (x, y), {"attacks": {"mine": lambda m, x, y: x[:1]}}, "must return a tensor"),
        (zoo.load("alpha-iou-yolo", weights=False), (x, y), {}, "object-detection"),
    ]
    for victim, given, options, message in cases:
        with pytest.raises(BadInput, match=message):
            zoo.evaluate_robustness(victim, given, **{"eps": 0.1, "attacks": ["fgsm"], "checks": False, **options})
    with pytest.raises(UnknownName, match=r"'pdg-20'.*Did you mean 'pgd'"):
        zoo.evaluate_robustness(model, (x, y), 0.1, attacks=["pdg-20"])
    report = zoo.evaluate_robustness(
        model, (x[:2], y[:2]), 0.1, attacks="quick, fgsm, noise", checks=False, progress=False
    )
    assert [row.attack for row in report.rows] == ["fgsm", "pgd-20", "cw-30", "noise"]
    with pytest.raises(TooFewSamples):
        zoo.evaluate_robustness(model, (x[:0], y[:0]), 0.1)


# The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> str:
    register_digits()
    module = DigitNet()
    module.net.load_state_dict(trained().state_dict())
    return str(zoo.save(module, tmp_path / "digits", card=False))


def test_command(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    words = ["evaluate", saved, "--eps", "30/255", "--n", "40", "--attacks", "fgsm,pgd-20", "--no-checks"]
    assert main([*words, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "40 of 1000 samples, eps 0.1176 (linf)" in text
    assert "worst case" in text
    written = json.loads(out.read_text())
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for result in (written, printed):
        assert result["worst"] == written["rows"][-1]["cumulative"]
        assert result["model"] == saved
    assert [row["accuracy"] for row in written["rows"]] == [row["accuracy"] for row in printed["rows"]]


def test_command_takes_the_radius_that_weights_were_trained_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "rslad", "--n", "4", "--attacks", "fgsm", "--no-checks"]
    assert main(words) == 0
    assert "4 of 5000 samples, eps 0.1 (linf)" in capsys.readouterr().out
    assert main([*words, "--norm", "l2"]) == 2
    assert "no radius in this norm" in capsys.readouterr().err


def test_command_says_what_it_cannot_do(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["alpha-iou-yolo", "--eps", "0.1"], "is for object-detection"),
        ([saved], "which was trained for no radius; --corruptions"),
        ([saved, "--eps", "a/b"], "--eps: expected a number or a fraction such as 8/255"),
        ([saved, "--eps", "8"], "8/255"),
        ([saved, "--eps", "0.1", "--attacks", "pdg"], "Did you mean 'pgd'"),
        ([saved, "--eps", "0.1", "--out", "/nowhere/report.json"], "in a folder that exists"),
        ([saved, "--eps", "0.1", "--norm", "l3"], "none of linf, l2"),
        ([saved, "--eps", "0.1", "--device", "gpu"], "--device: 'gpu' is none of auto, cpu, cuda"),
        ([saved, "--eps", "0.1", "--device", "cuda:999"], "--device cuda:999: this machine has"),
    ):
        assert main(["evaluate", *words]) == 2
        assert message in capsys.readouterr().err


def test_command_computes_on_the_gpu_where_there_is_one(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("zoo.cli.devices.device_of", lambda text: asked.append(text) or "cpu")
    assert main(["evaluate", saved, "--eps", "0.1", "--n", "4", "--attacks", "fgsm", "--no-checks"]) == 0
    assert asked == ["auto"]


@pytest.mark.usefixtures("fewer_checks")
def test_suspicious_results_give_exit_code_one(
    saved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DigitNet, "forward", lambda self, x: self.net(x) * 1e5)
    words = ["evaluate", saved, "--eps", "0.1", "--n", "10", "--attacks", "fgsm,pgd-20"]
    assert main(words) == 1
    assert "SUSPICIOUS  zero gradients" in capsys.readouterr().out
