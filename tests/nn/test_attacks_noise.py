"""The random numbers of attacks: their law, their independence, and that they never change."""

from __future__ import annotations

import pytest
import torch

from zoo.nn.attacks import noise


def test_noise_is_uniform_normal_and_independent() -> None:
    index = torch.arange(400)
    u = noise.uniform((500,), 0, index)
    assert u.min() > 0
    assert u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    expected = u.numel() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    z = noise.gaussian((500,), 1, index).flatten()
    assert z.mean().abs() < 0.01
    assert z.std().item() == pytest.approx(1, abs=0.01)
    assert z.pow(4).mean().item() == pytest.approx(3, abs=0.08)
    columns = torch.stack([
        u.flatten(), u.roll(1, 0).flatten(), u.roll(1, 1).flatten(),
        noise.uniform((500,), 1, index).flatten(), noise.uniform((500,), 0, index, 1).flatten(),
    ])  # fmt: skip
    correlation = torch.corrcoef(columns) - torch.eye(5)
    assert correlation.abs().max() < 0.01
    assert noise.signs((500,), 2, index).mean().abs() < 0.01
    drawn = noise.integers((3, 7), 0, torch.arange(5000))
    assert drawn.amin(0).tolist() == [0, 0]
    assert drawn.amax(0).tolist() == [2, 6]


def test_noise_never_changes() -> None:
    """Published numbers rest on these draws."""
    found = noise.uniform((3,), 0, torch.tensor([0, 1]))
    again = noise.uniform((3,), 0, torch.tensor([1]))
    assert torch.equal(found[1:], again)
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    for row in (0, 1):
        key = mix((mix((row * golden + mix(0)) & mask) + 0x632BE59BD9B4E019) & mask)
        for place in range(3):
            bits = mix((key + (place + 1) * golden) & mask) >> 41
            assert found[row, place].item() == (bits + 0.5) / 2**23
