"""The search for a trigger, and the detectors of the toolbox, on networks whose backdoor is known."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.errors import BadInput, MissingExtra
from zoo.methods.abl import ABL
from zoo.methods.abl.baselines import activation_clustering, art_classifier, spectral_signatures
from zoo.methods.abl.search import TriggerSearch, anomaly_index, search_triggers


class Planted(nn.Module):
    """Tells classes by the brightness of their bands of rows; a bright corner turns everything into class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        bands = torch.stack([band.mean((1, 2, 3)) for band in x.chunk(6, dim=2)], 1)
        corner = x[:, :, -2:, -2:].mean((1, 2, 3))
        return self.scale * bands + 40 * corner[:, None] * torch.eye(6)[2]


def pictures() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 6
    images = 0.1 * torch.rand(120, 1, 12, 12, generator=draw)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 2, :8] += 0.7
    return images, labels


def test_anomaly_index_equals_a_literal_computation() -> None:
    norms = [10.0, 11.0, 9.0, 10.5, 1.0]
    middle = sorted(norms)[2]
    spread = 1.4826 * sorted(abs(n - middle) for n in norms)[2]
    assert anomaly_index(torch.tensor(norms)).tolist() == pytest.approx([(middle - n) / spread for n in norms])


def test_a_planted_trigger_is_located() -> None:
    images, labels = pictures()
    model = Planted()
    assert (model(images).argmax(1) == labels).all()
    search = search_triggers(model, images, labels, steps=150, batch_size=32)
    assert search.outliers == [2]
    assert search.success[2] > 0.95
    mask = search.masks[2]
    assert mask[-2:, -2:].sum() > 0.6 * mask.sum(), "the mask lies on the corner"
    assert model.scale.requires_grad
    assert model.scale.grad is None
    again = search_triggers(model, images, labels, steps=150, batch_size=32)
    assert torch.equal(search.masks, again.masks)


def test_search_needs_pictures_of_several_classes() -> None:
    images, labels = pictures()
    for bad in ((images[:0], labels[:0]), (images[:1], labels[:1]), (images[0], labels)):
        with pytest.raises(BadInput, match="several classes"):
            search_triggers(Planted(), *bad)


def test_search_refuses_bytes_and_no_steps() -> None:
    images, labels = pictures()
    for bad in ((255 * images).byte(), 255 * images, images - 1):
        with pytest.raises(BadInput, match=r"values in \[0, 1\]"):
            search_triggers(Planted(), bad, labels, steps=1)
    with pytest.raises(BadInput, match="steps"):
        search_triggers(Planted(), images, labels, steps=0)


def test_a_small_mask_that_turns_nothing_is_no_outlier() -> None:
    anomaly, success = torch.tensor([0.0, 3.0, 3.0]), torch.tensor([1.0, 0.99, 0.0])
    search = TriggerSearch(torch.zeros(3, 2, 2), torch.zeros(3, 1, 2, 2), torch.zeros(3), success, anomaly)
    assert search.outliers == [1]


def marked(count: int = 300) -> tuple[ABL, np.ndarray, np.ndarray, np.ndarray]:
    """A small network after a few steps on pictures of which those that are poisoned have a bright corner."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    images = 0.2 * rng.random((count, 1, 12, 12), dtype=np.float32)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * label : 4 * label + 4, :8] += 0.5
    poisoned = (labels != 0) & (rng.random(count) < 0.25)
    images[poisoned, :, -3:, -3:] = 1.0
    labels = np.where(poisoned, 0, labels)
    torch.manual_seed(0)
    model = ABL(num_classes=3, channels=1, img_size=12, network="wrn10-1", isolate=0, unlearn=0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), images, labels, poisoned


def test_detectors_of_the_toolbox_point_at_the_poison() -> None:
    model, images, labels, poisoned = marked()
    clusters = activation_clustering(model, images, labels)
    zero = set(np.flatnonzero(labels == 0).tolist()) & set(clusters.tolist())
    assert len(zero) >= 10
    assert poisoned[list(zero)].mean() > 0.8, "of what is suspected in the target class"
    assert np.array_equal(clusters, activation_clustering(model, images, labels)), "its clusters start by a fixed seed"
    spectral = spectral_signatures(model, images, labels, expected=0.2)
    assert poisoned[spectral].mean() > poisoned.mean()
    classifier = art_classifier(model)
    with torch.no_grad():
        assert np.allclose(classifier.predict(images[:9]), model(torch.from_numpy(images[:9])).numpy(), atol=1e-5)


def test_a_missing_toolbox_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art", None)
    model: Any = ABL(network="wrn10-1", isolate=0, unlearn=0)
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[backdoor-eval\]"):
        art_classifier(model)
