"""`zoo convert`: weights of another project, name by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo import cli
from zoo.errors import BadInput
from zoo.methods.robust_wrn import RobustWideResNet
from zoo.store.conversion import renamed

SMALL = ["--set", "widths=[4, 4, 8, 6]", "--set", "depths=[1, 1, 1]", "--set", "num_classes=3"]


def theirs(channels: int = 1, **init: Any) -> RobustWideResNet:
    """A network of the authors, whose layers have the same names."""
    torch.manual_seed(1)
    return RobustWideResNet(3, channels, **({"widths": (4, 4, 8, 6), "depths": (1, 1, 1), "stem_stride": 2} | init))


def convert(*words: str) -> int:
    return cli.main(["convert", *words])


@pytest.mark.parametrize("form", ["plain", "wrapped", "parallel", "safetensors"])
def test_a_converted_network_gives_the_same_logits(form: str, tmp_path: Path) -> None:
    network = theirs().eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -1, 1)  # type: ignore[arg-type]
    state: dict[str, Any] = {k: v.clone() for k, v in network.state_dict().items()}
    path = tmp_path / "weights.pth"
    if form == "safetensors":
        from safetensors.torch import save_file

        path = path.with_suffix(".safetensors")
        save_file(state, path)
    else:
        if form != "plain":  # as the authors' code writes it, with DataParallel's prefix
            state = {f"module.{k}": v for k, v in state.items()} if form == "parallel" else state
            state = {"epoch": 3, "model_state_dict": state, "scheduler_state_dict": None}
        torch.save(state, path)
    assert convert(str(path), "robust-wrn:fmnist-16-1", *SMALL, "--out", str(tmp_path / "made")) == 0
    made = zoo.load(tmp_path / "made")
    x = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(made(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fc.weight": None}, r"1 missing \(network.fc.weight\)"),
        ({"fc.scale": torch.zeros(3)}, r"1 foreign \(network.fc.scale\)"),
        ({"fc.bias": torch.zeros(5)}, r"network.fc.bias \(5,\), expected \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    state = {k: v for k, v in (theirs().state_dict() | change).items() if v is not None}
    torch.save(state, tmp_path / "weights.pt")
    assert convert(str(tmp_path / "weights.pt"), "robust-wrn:fmnist-16-1", *SMALL, "--out", str(tmp_path / "made")) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "made").exists()


def test_code_in_a_file_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"state_dict": theirs().state_dict(), "more": Evil()}, tmp_path / "weights.pt")
    assert convert(str(tmp_path / "weights.pt"), "robust-wrn:fmnist-16-1", *SMALL, "--out", str(tmp_path / "made")) == 2
    assert "weights.pt" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gone.pt", "robust-wrn"], "no such file of weights"),
        (["w.pt", "rslad"], "does not say which names"),
        (["w.pt", "robust-wnr"], "robust-wrn"),
        (["w.pt", "robust-wrn", "--set", "widths"], "ARGUMENT=VALUE"),
        (["w.pt", "robust-wrn", "--set", "wdths=[1]"], "widths"),
    ],
)
def test_mistakes(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(theirs().state_dict(), "w.pt")
    assert convert(*words, "--out", "made") == 2
    assert told in capsys.readouterr().err


def test_two_tensors_of_one_name() -> None:
    state = {"a.w": torch.zeros(1), "b.w": torch.zeros(1)}
    assert set(renamed(state, [(r"^a\.", "net."), (r"^b", "bb")], "f")) == {"net.w", "bb.w"}
    with pytest.raises(BadInput, match="stand for w"):
        renamed(state, [(r"^[ab]\.", "")], "f")
