"""J-SIGR against literal references: both penalties, the mask, the cache, the schedule, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.images import ImagesDataModule
from zoo.errors import BadInput, InvalidConfig
from zoo.methods.j_sigr import JSIGR, SaliencyCache, jacobian_norm, log_probability_gradient, selection, selective_norm
from zoo.methods.j_sigr.losses import unit_vectors
from zoo.methods.j_sigr.scores import linear_scores
from zoo.nn.attacks import apgd
from zoo.nn.saliency import scaled


def classifier(**init: Any) -> JSIGR:
    torch.manual_seed(3)
    given: dict[str, Any] = {"network": "resnet10-w4-softplus", "channels": 1, "img_size": 12, "num_classes": 4}
    return JSIGR(**{**given, "eps": 0.1, "warmup": 0, "ramp": 0.0, "refresh": 1, **init})


def batch(count: int = 6) -> dict[str, Tensor]:
    x = torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(5))
    return {"image": x, "label": torch.arange(count) % 4, "index": torch.arange(count)}


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Softplus(10), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(3 * 9, 4)
    ).double()


# The penalties ------------------------------------------------------------------------------------------------------


def differences(function: Any, x: Tensor, step: float = 1e-5) -> Tensor:
    """d function / d x by central differences: (N, ..., D) for values (N, ...)."""
    columns = []
    flat = x.flatten(1)
    for d in range(flat.shape[1]):
        values = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[:, d] += sign * step
            values.append(function(moved.view_as(x)))
        columns.append((values[0] - values[1]) / (2 * step))
    return torch.stack(columns, -1)


def test_exact_norms_by_finite_differences() -> None:
    net = smooth()
    x = torch.rand(2, 2, 5, 5, dtype=torch.float64)
    y, m = torch.tensor([1, 3]), torch.rand(2, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        jacobian = differences(net, x)
        gradient = differences(lambda images: net(images).log_softmax(1)[range(2), y], x)
    x.requires_grad_()
    torch.testing.assert_close(jacobian_norm(net(x), x), jacobian.square().sum((1, 2)), rtol=1e-6, atol=0)
    found = log_probability_gradient(net(x), x, y)
    torch.testing.assert_close(found.flatten(1), gradient, rtol=1e-5, atol=1e-8)
    masked = gradient.view(2, 2, 5, 5) * m[:, None]
    torch.testing.assert_close(selective_norm(found, m), masked.square().sum((1, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(selective_norm(found, m, "l1"), masked.abs().sum((1, 2, 3)), rtol=1e-5, atol=0)


def test_gradient_of_the_penalties_by_finite_differences() -> None:
    """With respect to the weights, through Softplus: relative error below 1e-2 is asked for."""
    net, x = smooth(), torch.rand(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    y, m = torch.tensor([1, 3]), (torch.rand(2, 5, 5) > 0.5).double()
    vectors = unit_vectors(1, 4, 7, torch.arange(2)).double()

    def penalty() -> Tensor:
        z = net(x)
        g = log_probability_gradient(z, x, y)
        return (jacobian_norm(z, x, vectors) + selective_norm(g, m)).sum()

    weight = net[0].weight
    (found,) = torch.autograd.grad(penalty(), weight)
    for place in ((0, 0, 0, 0), (1, 1, 2, 1), (2, 0, 1, 1)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * 1e-5
            values.append(penalty().item())
            with torch.no_grad():
                weight[place] -= sign * 1e-5
        assert found[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_estimate_is_unbiased_and_exact_for_one_hot_vectors() -> None:
    net = smooth()
    x = torch.rand(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    exact = jacobian_norm(net(x), x)
    hot = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 2, 4)  # the K unit vectors: K / K times the sum
    torch.testing.assert_close(jacobian_norm(net(x), x, hot), exact)
    vectors = unit_vectors(3000, 4, 0, torch.arange(2)).double()
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(3000, 2, dtype=torch.float64))
    jacobian = torch.stack([torch.autograd.grad(net(x)[:, k].sum(), x)[0].flatten(1) for k in range(4)], 1)
    each = 4 * torch.einsum("ink,nkp->inp", vectors, jacobian).square().sum(2)
    error = each.std(0) / 3000**0.5
    assert bool(((each.mean(0) - exact).abs() < 4 * error).all())


def test_a_linear_network_has_the_norm_of_its_matrix() -> None:
    layer = nn.Linear(6, 3).double()
    x = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(jacobian_norm(layer(x), x), layer.weight.square().sum().expand(2))


def test_vectors_belong_to_the_samples() -> None:
    whole = unit_vectors(2, 5, 3, torch.arange(4))
    torch.testing.assert_close(unit_vectors(2, 5, 3, torch.tensor([2, 0])), whole[:, [2, 0]])


# The mask -----------------------------------------------------------------------------------------------------------


def test_selection_by_hand() -> None:
    s = torch.tensor([[[0.0, 0.05], [0.1, 1.0]], [[0.0, 0.0], [0.0, 0.5]]])
    assert selection(s, tau=0.1).tolist() == [[[1, 1], [0, 0]], [[1, 1], [1, 0]]]
    assert selection(s, tau=0.1, mask="inverted").tolist() == [[[0, 0], [1, 1]], [[0, 0], [0, 1]]]
    assert selection(s, "lowest", share=0.5).tolist() == [[[1, 1], [0, 0]], [[1, 1], [0, 0]]]
    torch.testing.assert_close(selection(s, "soft")[0], torch.tensor([[1.0, 0.9025], [0.81, 0.0]]))
    assert selection(s, mask="none").tolist() == torch.ones(2, 2, 2).tolist()


def test_random_masks_have_the_size_of_the_true_one_and_stay() -> None:
    s = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)) ** 2
    index = torch.arange(5)
    true, drawn = selection(s), selection(s, mask="random", index=index)
    assert torch.equal(true.sum((1, 2)), drawn.sum((1, 2)))
    assert not torch.equal(true, drawn)
    assert torch.equal(selection(s, mask="random", index=index), drawn)


# The loss -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projections", [0, 1])
def test_loss_by_hand(projections: int) -> None:
    """CE + lam_J R_J + lam_S R_S in training mode, the saliency from the images in evaluation mode."""
    model, b = classifier(jacobian=0.3, selective=0.7, projections=projections, tau=0.3).train(), batch()
    twin = copy.deepcopy(model)
    torch.manual_seed(11)
    found = model.training_step(b)
    x, y = b["image"].clone().requires_grad_(), b["label"]
    z = twin(x)  # first, since it moves the statistics that evaluation mode uses
    grid = twin.perturbation(b["image"])
    s = F.interpolate(grid[:, None], (12, 12), mode="bilinear")[:, 0]
    m = (s < 0.3 * s.amax((1, 2), keepdim=True)).float()
    torch.manual_seed(11)
    seed = int(torch.randint(2**31, ()))
    # vectors of other samples enter through the statistics of the batch
    v = unit_vectors(1, 4, seed, b["index"]) if projections else torch.eye(4)[:, None].expand(4, 6, 4)
    rows = [torch.autograd.grad((z * each).sum(), x, retain_graph=True)[0] for each in v]
    r_j = 4 / len(v) * sum(row.square().sum((1, 2, 3)).mean() for row in rows)
    g = torch.autograd.grad(z.log_softmax(1)[range(6), y].sum(), x, retain_graph=True)[0]
    r_s = (m[:, None] * g).square().sum((1, 2, 3)).mean()
    assert found.item() == pytest.approx((F.cross_entropy(z, y) + 0.3 * r_j + 0.7 * r_s).item(), rel=1e-4)
    found.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_terms_can_be_left_out() -> None:
    """`jacobian_only` and `sigr_only` of the method, and the plain network."""
    b, z = batch(), classifier().train().logits(batch()["image"])
    plain = classifier(jacobian=0.0, selective=0.0).train().training_step(b)
    assert plain.item() == pytest.approx(F.cross_entropy(z, b["label"]).item(), rel=1e-5)
    for one in ({"jacobian": 0.0}, {"selective": 0.0}):
        assert classifier(**one).train().training_step(b).item() > plain.item()
    smoothed = classifier(jacobian=0.0, selective=0.0, label_smoothing=0.2).train().training_step(b)
    assert smoothed.item() == pytest.approx(F.cross_entropy(z, b["label"], label_smoothing=0.2).item(), rel=1e-5)


def test_weights_rise_as_said() -> None:
    model = classifier(jacobian=0.2, selective=0.4, warmup=2, ramp=2.0)
    found = [model.weights(done) for done in (0.0, 1.0, 1.999, 2.0, 3.0, 4.0, 9.0)]
    expected = [(0, 0), (0.1, 0), (0.1999, 0), (0.2, 0), (0.2, 0.2), (0.2, 0.4), (0.2, 0.4)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert classifier(jacobian=0.2, selective=0.4, warmup=2).weights(1.0) == (0.2, 0.0)


def test_scale_alone_gains_nothing() -> None:
    """Smaller logits have a smaller Jacobian; the radius, and a sign attack with DLR, see through it."""
    model, b = classifier().eval(), batch()
    x, y = b["image"], b["label"]

    def small(images: Tensor) -> Tensor:
        return model(images) / 10

    one, other = linear_scores(model, x, y), linear_scores(small, x, y)
    torch.testing.assert_close(other["logit_norm"], one["logit_norm"] / 10)
    torch.testing.assert_close(other["linear_radius"], one["linear_radius"], rtol=1e-4, atol=1e-6)
    examples = [apgd(f, x, y, eps=0.1, steps=10, loss="dlr") for f in (model, small)]
    assert torch.equal(model(examples[0]).argmax(1), model(examples[1]).argmax(1))


def test_radius_of_a_linear_network_is_the_distance_to_the_next_class() -> None:
    w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-5.0, -5.0]])
    x = torch.tensor([[0.8, 0.2]])
    found = linear_scores(lambda v: v @ w.T, x, torch.tensor([0]))["linear_radius"]
    assert found.item() == pytest.approx(0.6 / 2**0.5)


# The cache ----------------------------------------------------------------------------------------------------------


def data(**options: Any) -> ImagesDataModule:
    return ImagesDataModule(**{"batch_size": 8, "train_size": 40, "val_size": 9, "test_size": 7, "seed": 1, **options})


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **{"enable_checkpointing": False, "max_epochs": 1, **quiet, **options})


def small(**init: Any) -> JSIGR:
    return classifier(**{"img_size": 28, "num_classes": 10, "spacing": 7, "eval_steps": 1, **init})


def test_cached_maps_are_fresh_ones() -> None:
    """Rounded to a byte; mirrored images get mirrored maps."""
    model, source = small().eval(), data(flip=0.5)
    cache, part = SaliencyCache(), source.split("train")
    cache.refresh(part, model.perturbation, lambda b: b, type(source).collate, 0)
    items = part.__getitems__(range(40))
    assert 0 < int(items["mirrored"].sum()) < 40
    plain = part.without_augmentation().__getitems__(range(40))
    assert torch.equal(
        torch.where(items["mirrored"][:, None, None, None], plain["image"].flip(3), plain["image"]), items["image"]
    )
    fresh = scaled(model.perturbation(plain["image"]))
    fresh = torch.where(items["mirrored"][:, None, None], fresh.flip(2), fresh)
    assert (cache.of(items["index"], items["mirrored"]) - fresh).abs().max() <= 0.5 / 255 + 1e-4
    assert cache.values is not None
    assert cache.values.dtype == torch.uint8
    assert cache.values.shape == (40, 4, 4)


def test_cache_is_refreshed_when_due_and_goes_into_the_checkpoint(tmp_path: Path) -> None:
    """After a warm-up of one epoch, every second epoch: in epochs 1 and 3."""
    model = small(warmup=1, refresh=2)
    seen: list[int] = []
    original = model.cache.refresh
    model.cache.refresh = lambda *a: (seen.append(a[-1]), original(*a))[1]  # type: ignore[method-assign]
    run = trainer(tmp_path, max_epochs=5, limit_val_batches=0)
    run.fit(model, datamodule=data())
    assert seen == [1, 3]
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = small(warmup=1, refresh=2)
    again.on_load_checkpoint(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert again.cache.epoch == 3
    assert torch.equal(again.cache.values, model.cache.values)


@pytest.mark.parametrize("options", [{"crop": 2}, {"cutout": 4}])
def test_augmentation_that_moves_pixels_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"data.{next(iter(options))}"):
        trainer(tmp_path).fit(small(), datamodule=data(**options))
    trainer(tmp_path, fast_dev_run=True).fit(small(mask="none"), datamodule=data(**options))


def test_a_loader_alone_has_no_cache(tmp_path: Path) -> None:
    """Maps are then made of the images of each batch, which may be anything."""
    model, source = small(), data()
    seen: list[int] = []
    original = model.perturbation
    model.perturbation = lambda x: (seen.append(len(x)), original(x))[1]  # type: ignore[method-assign]
    trainer(tmp_path, limit_train_batches=2, limit_val_batches=0).fit(model, source.train_dataloader())
    assert seen == [8, 8]
    assert model.cache.values is None


def test_a_network_that_cannot_be_differentiated_twice_is_refused(tmp_path: Path) -> None:
    model = small()
    model.network = nn.SyncBatchNorm.convert_sync_batchnorm(model.network)
    with pytest.raises(InvalidConfig, match="sync_batchnorm"):
        trainer(tmp_path).fit(model, datamodule=data())


# Evaluation and use -------------------------------------------------------------------------------------------------


def test_transfer_and_maps_in_a_test(tmp_path: Path) -> None:
    model = small(
        test_attacks=["pgd", "mi", "mi-ensemble"], surrogates=["cas:fmnist-resnet10w16-plain"], test_maps=True
    )
    (found,) = trainer(tmp_path).test(model, datamodule=data(), verbose=False)
    names = {"robust_mi", "robust_mi-ensemble", "mass_inside", "rank_correlation_attacked", "deletion", "linear_radius"}
    assert names <= {key.removeprefix("test/") for key in found}
    assert 0 <= found["test/mass_inside"] <= 1


def test_explanations() -> None:
    model, x = small(), batch()["image"]
    picture = F.interpolate(x, (28, 28))
    for kind in ("gradient", "perturbation"):
        maps = model.explain(picture, kind=kind)
        assert maps.shape == (6, 28, 28)
        assert maps.min() >= 0
        torch.testing.assert_close(maps.amax((1, 2)), torch.ones(6))
    label = model.eval()(picture).argmax(1)
    torch.testing.assert_close(model.explain(picture), model.explain(picture, label))
    torch.testing.assert_close(model.explain(picture, 2), model.explain(picture, [2] * 6))
    assert not torch.equal(model.explain(picture, 2), model.explain(picture, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target": 10}, "0 to 9"), ({"target": [1, 2]}, "one class or 6"), ({"kind": "lime"}, "kind")],
)
def test_explanations_of_nothing_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        small().explain(torch.rand(6, 1, 28, 28), **options)


def test_sizes_of_the_small_network() -> None:
    with torch.device("meta"):
        model = JSIGR(network="resnet10-w16-softplus", channels=1, img_size=28)
    assert sum(p.numel() for p in model.parameters()) == 308_538


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"eps": 8.0}, "8/255"),
        ({"eps": -0.1}, "eps"),
        ({"num_classes": 1}, "num_classes"),
        ({"img_size": 4}, "grid of 1x1"),
        ({"tau": 1.5}, "tau"),
        ({"jacobian": float("nan")}, "jacobian"),
        ({"selective": -1.0}, "selective"),
        ({"mask": "all"}, "mask"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"test_attacks": ["mi"]}, "surrogates"),
    ],
)
def test_arguments_that_cannot_be_are_named(init: dict[str, Any], message: str) -> None:
    with pytest.raises((BadInput, InvalidConfig), match=message):
        classifier(**init)
