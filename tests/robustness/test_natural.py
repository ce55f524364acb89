"""Corruptions by their definitions, calibration against oracles, the folder of published files, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toys.attacks import DigitSet, data, register_digits, trained

import zoo
from zoo.cli import main
from zoo.errors import BadData, BadInput, UnknownName
from zoo.robustness.corruptions import GROUPS, NAMES, corrupt
from zoo.robustness.natural import calibration


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Smooth colour pictures, for which a stronger corruption is a larger change."""
    h, w = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    waves = [torch.sin(4 * math.pi * (h * a + w * b)) / 2 + 0.5 for a, b in ((1, 0), (0, 1), (1, 1))]
    return torch.stack([torch.stack(waves), torch.stack(waves[::-1]), torch.stack([h, w, h * w])]).float()


# Corruptions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_belongs_to_the_picture(name: str, pictures: Tensor) -> None:
    """Not to its batch; grey pictures and other sizes work; the result is a stored picture."""
    whole = corrupt(pictures, name, 3, seed=5, index=torch.tensor([7, 8, 9]))
    alone = corrupt(pictures[1:2], name, 3, seed=5, index=torch.tensor([8]))
    assert torch.allclose(whole[1:2], alone, atol=1.01 / 255)
    assert (whole * 255 - (whole * 255).round()).abs().max() < 1e-4
    assert 0 <= whole.min() <= whole.max() <= 1
    for shape in ((2, 1, 28, 28), (1, 3, 48, 40), (1, 1, 7, 5)):
        assert corrupt(torch.rand(shape), name, 5).shape == shape
    if name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"):
        assert not torch.equal(whole, corrupt(pictures, name, 3, seed=6, index=torch.tensor([7, 8, 9])))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"glass_blur", "elastic_transform", "frost", "pixelate"}))
def test_severity_is_a_larger_change(name: str, pictures: Tensor) -> None:
    """Without those whose published constants do not rise in one number."""
    changes = [(corrupt(pictures, name, severity) - pictures).abs().mean().item() for severity in (1, 3, 5)]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_noises_have_their_moments() -> None:
    grey = torch.full((40, 3, 32, 32), 0.5)
    noise = corrupt(grey, "gaussian_noise", 2) - grey
    assert noise.std().item() == pytest.approx(0.06, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=2e-3)
    shot = corrupt(grey, "shot_noise", 5) - grey
    assert shot.std().item() == pytest.approx(math.sqrt(0.5 / 50), rel=0.02)
    impulse = corrupt(grey, "impulse_noise", 4)
    assert (impulse == 0).float().mean().item() == pytest.approx(0.025, abs=2e-3)
    assert (impulse == 1).float().mean().item() == pytest.approx(0.025, abs=2e-3)


def test_blurs_keep_a_plain_picture_and_spread_a_point() -> None:
    grey = torch.full((1, 3, 32, 32), 100 / 255)
    for name in GROUPS["blur"]:
        assert torch.allclose(corrupt(grey, name, 5), grey, atol=1.01 / 255), name
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    disk = corrupt(point, "defocus_blur", 5)[0, 0]
    assert torch.allclose(disk, disk.T)
    assert (disk > 0).sum() == 9, "a disk of one and a half pixels, hardly smoothed"
    assert disk.sum().item() == pytest.approx(1, abs=0.05)


def test_brightness_and_contrast_by_hand() -> None:
    x = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 2, 2).clone()
    brighter = corrupt(x, "brightness", 3)[0, :, 0, 0]
    assert torch.allclose(brighter, torch.tensor([0.25, 0.5, 0.75]), atol=1 / 255), "hue and saturation stay"
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert torch.allclose(corrupt(x, "contrast", 3)[0, 0, 0], torch.tensor([0.3, 0.7]), atol=1 / 255)


def test_elastic_maps_are_affine_at_severity_one(pictures: Tensor) -> None:
    """A ramp stays a ramp under an affine map, and does not under the shifts of higher severities."""
    ramp = torch.linspace(0.2, 0.8, 32).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    bend = [corrupt(ramp, "elastic_transform", s)[..., 8:24, 8:24].diff(n=2, dim=3).abs().mean() for s in (1, 5)]
    assert bend[0] < 0.004
    assert bend[1] > 1.4 * bend[0]


def test_what_is_no_corruption_is_named(pictures: Tensor) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'fog'"):
        corrupt(pictures, "fogg")
    with pytest.raises(BadInput, match="expected 1 to 5, got 6"):
        corrupt(pictures, "fog", 6)
    with pytest.raises(BadInput, match=r"pictures \(N, 1 or 3, H, W\)"):
        corrupt(pictures[0], "fog")


# Calibration ------------------------------------------------------------------------------------------------------


def test_calibration_by_hand_and_by_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(400, 5, generator=rng), torch.randint(5, (400,), generator=rng)
    found = calibration(logits, labels)
    probs = logits.double().softmax(1).numpy()
    confidence, right = probs.max(1), probs.argmax(1) == labels.numpy()
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            ece += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert found.ece == pytest.approx(ece, abs=1e-6)
    one_hot = np.eye(5)[labels.numpy()]
    assert found.brier == pytest.approx(((probs - one_hot) ** 2).sum(1).mean())
    assert found.nll == pytest.approx(-np.log(probs[np.arange(400), labels.numpy()]).mean())
    assert (found.accuracy, found.confidence) == (pytest.approx(right.mean()), pytest.approx(confidence.mean()))


def test_calibration_of_known_cases() -> None:
    sure = calibration(torch.tensor([[40.0, 0.0], [0.0, 40.0]]), torch.tensor([0, 1]))
    assert (sure.accuracy, sure.ece, sure.brier) == (1, pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    wrong = calibration(torch.tensor([[40.0, 0.0], [0.0, 40.0]]), torch.tensor([1, 0]))
    assert (wrong.ece, wrong.brier, wrong.nll) == (pytest.approx(1), pytest.approx(2), pytest.approx(40))
    with pytest.raises(BadInput, match=r"logits \(N, K\) and N labels"):
        calibration(torch.zeros(3), torch.zeros(3))


# The evaluation ---------------------------------------------------------------------------------------------------


def test_report_of_a_model(tmp_path: Path) -> None:
    _, _, x, y = data()
    report = zoo.evaluate_corruptions(trained(), (x, y), 80, "gaussian_noise,fog", (1, 5), batch_size=33)
    other = zoo.evaluate_corruptions(trained(), (x, y), 80, ["fog"], (5,), batch_size=80)
    assert report.rows["fog"][5] == other.rows["fog"][5], "batches and other corruptions change nothing"
    assert report.rows["fog"][5].accuracy < report.rows["fog"][1].accuracy <= report.clean.accuracy
    every = [row.accuracy for scores in report.rows.values() for row in scores.values()]
    assert report.mean_of("accuracy") == pytest.approx(sum(every) / 4)
    assert "by severity" in str(report)
    raw = json.loads(report.save(tmp_path / "report.json").read_text())
    assert raw["mean"]["accuracy"] == pytest.approx(report.mean_of("accuracy"))
    alone = zoo.evaluate_corruptions(trained(), (x, y), 80, "none")
    assert not alone.rows
    assert alone.clean == report.clean
    assert "by severity" not in str(alone)
    for wrong in ((), (0,), (6,)):
        with pytest.raises(BadInput, match="some of 1 to 5"):
            zoo.evaluate_corruptions(trained(), (x, y), 10, severities=wrong)


def published(folder: Path) -> Path:
    """The test digits corrupted here, as CIFAR-10-C is laid out."""
    digits, folder = DigitSet(), folder / "digits-c"
    folder.mkdir()
    blocks = [corrupt(digits.x, "contrast", severity) for severity in (1, 2, 3, 4, 5)]
    pixels = (torch.cat(blocks) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.save(folder / "contrast.npy", pixels)
    np.save(folder / "labels.npy", np.tile(digits.y.numpy(), 5).astype(np.uint8))
    return folder


def test_published_files_give_the_same_scores(tmp_path: Path) -> None:
    folder = published(tmp_path)
    here = zoo.evaluate_corruptions(trained(), DigitSet(), 60, "contrast", (2, 4))
    there = zoo.evaluate_corruptions(trained(), DigitSet(), 60, "contrast", (2, 4), folder=folder)
    for severity, scores in here.rows["contrast"].items():
        other = there.rows["contrast"][severity]
        assert (scores.accuracy, scores.brier) == (other.accuracy, pytest.approx(other.brier, abs=1e-6))
    assert there.source == "digits-c"


def test_broken_published_files_are_named(tmp_path: Path) -> None:
    folder = published(tmp_path)

    def evaluated(name: str = "contrast") -> None:
        zoo.evaluate_corruptions(trained(), DigitSet(), 20, name, (1,), folder=folder)

    with pytest.raises(BadData, match=r"fog\.npy: there is no such file"):
        evaluated("fog")
    labels, pixels = np.load(folder / "labels.npy"), np.load(folder / "contrast.npy")
    np.save(folder / "labels.npy", (labels + 1) % 10)
    with pytest.raises(BadData, match="labels of the chosen pictures are others"):
        evaluated()
    np.save(folder / "labels.npy", labels[:-1])
    with pytest.raises(BadData, match=r"labels\.npy: expected whole numbers"):
        evaluated()
    np.save(folder / "labels.npy", labels.astype(object), allow_pickle=True)
    with pytest.raises(BadData, match=r"labels\.npy: expected an array"):
        evaluated()
    np.save(folder / "labels.npy", labels)
    np.save(folder / "contrast.npy", pixels[:, :20])
    with pytest.raises(BadData, match="expected the same size"):
        evaluated()
    np.save(folder / "contrast.npy", pixels[:100])
    with pytest.raises(BadData, match="five severities"):
        evaluated()


# The command ------------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    register_digits()
    monkeypatch.chdir(tmp_path)
    module = zoo.load("toy-digits", weights=False)
    module.net.load_state_dict(trained().state_dict())
    zoo.save(module, tmp_path / "mine")
    folder = published(tmp_path)
    assert main(["evaluate", "mine", "--n", "20", "--calibration"]) == 0
    assert "calibration: ECE" in capsys.readouterr().out
    words = ["evaluate", "mine", "--n", "20", "--corruptions", "contrast", "--severity", "2", "4"]
    assert main([*words, "--corrupted", str(folder), "--out", "report.json"]) == 0
    assert "accuracy by severity (digits-c)" in capsys.readouterr().out
    assert list(json.loads(Path("report.json").read_text())["rows"]["contrast"]) == ["2", "4"]
    assert main([*words, "--eps", "0.1", "--attacks", "fgsm", "--no-checks", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert set(both) == {"attacks", "corruptions"}
    assert both["corruptions"]["model"] == both["attacks"]["model"] == "mine"
    for more, expected in (
        ([], "--eps 8/255 attacks mine, which was trained for no radius"),
        (["--corruptions", "fgo"], "Did you mean 'fog'"),
        (["--severity", "6"], "expected 1 to 5"),
        (["--corruptions", "fog", "--corrupted", "nowhere"], "there is no such file"),
    ):
        assert main(["evaluate", "mine", "--n", "20", *more]) == 2
        assert expected in capsys.readouterr().err
