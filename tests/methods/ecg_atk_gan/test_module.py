"""Sizes of both networks, the losses against literal sums, who moves in which step, the mix, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.beats import BeatsDataModule
from zoo.errors import BadInput
from zoo.methods.ecg_atk_gan import (
    ECGATKGAN,
    Discriminator,
    Generator,
    craft,
    discriminator_loss,
    generator_loss,
    smooth_latent,
)
from zoo.methods.ecg_atk_gan.crafting import attack_of

TINY: dict[str, Any] = {"length": 70, "width": 4, "plain_epochs": 0, "lr": 0.003}
DATA: dict[str, Any] = {
    "length": 70, "rate": 90.0, "batch_size": 8, "train_size": 24, "val_size": 8, "test_size": 8, "beats_per_patient": 8
}  # fmt: skip


def model(**given: Any) -> ECGATKGAN:
    torch.manual_seed(0)
    return ECGATKGAN(**(TINY | given))


def trainer(folder: Path, **given: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "limit_val_batches": 0}
    return Trainer(default_root_dir=folder, **(quiet | options | given))


def work_of(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers for one sample."""
    total, hooks = 0, []

    def count(layer: Any, given: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += layer.weight.numel() * (out.numel() // out.shape[0] // out.shape[-1])
        else:
            per = given[0].shape[-1] if isinstance(layer, nn.ConvTranspose1d) else out.shape[-1]
            total += layer.weight.numel() * per

    for layer in network.modules():
        if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)):
            hooks.append(layer.register_forward_hook(count))
    network.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    return total


# Networks ---------------------------------------------------------------------------------------------------------


def test_sizes_of_the_paper() -> None:
    d, g = Discriminator(4), Generator(4)
    assert sum(p.numel() for p in d.parameters()) == 425_383  # 0.43 M
    assert sum(p.numel() for p in g.parameters()) == 2_756_589  # 2.76 M
    assert sum(p.numel() for p in g.latent.parameters()) == 280 * 280 * 32 + 280 * 32
    assert d.head.in_features == 256 * 18 == 4608
    assert work_of(d, torch.rand(1, 1, 280)) / 1e6 == pytest.approx(12.6, abs=0.1)


def test_stages_of_the_discriminator() -> None:
    d, lengths = Discriminator(4).eval(), []
    x = torch.rand(2, 1, 280)
    for part in d.trunk:
        x = part(x)
        if x.ndim == 3 and x.shape[-1] not in (lengths or [280]):
            lengths.append(x.shape[-1])
    assert lengths == [140, 70, 35, 18]
    assert [m.p for m in d.modules() if isinstance(m, nn.Dropout)] == [0.2] * 3


@pytest.mark.parametrize(("length", "classes", "channels"), [(280, 4, 1), (140, 5, 1), (71, 2, 2)])
def test_generator_keeps_the_length(length: int, classes: int, channels: int) -> None:
    g = Generator(classes, channels, length, 8).eval()
    y = F.one_hot(torch.arange(3) % classes, classes)
    x = torch.rand(3, channels, length)
    out = g(x, y, torch.rand(3, length))
    assert out.shape == x.shape
    assert 0 < out.min() < out.max() < 1
    other = g(x, y.roll(1, 1), torch.rand(3, length))
    assert not torch.equal(out, other)


@pytest.mark.parametrize("length", [280, 40, 10])
def test_latents_equal_scipys_filter(length: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    z = torch.rand(3, length, dtype=torch.float64)
    reach = min(16, length)
    expected = ndimage.gaussian_filter1d(z.numpy(), 4.0, axis=1, radius=reach)
    np.testing.assert_allclose(smooth_latent(z).numpy(), expected, atol=1e-12)


# Losses -----------------------------------------------------------------------------------------------------------


def literal(outputs: tuple[Tensor, Tensor, Tensor], real: float, t: Tensor, y: Tensor, w: Any) -> float:
    """Sums over samples."""
    total = 0.0
    for s, a, c, flag, label in zip(*(o.double() for o in outputs), t, y, strict=True):
        total += w[0] * float((1 / (1 + torch.exp(-s[0])) - real) ** 2)
        total += w[1] * float(a.exp().sum().log() - a[flag]) + w[2] * float(c.exp().sum().log() - c[label])
    return total / len(y)


def test_losses_equal_literal_sums() -> None:
    torch.manual_seed(1)
    real, fake = ((torch.randn(6, 1), torch.randn(6, 2), torch.randn(6, 4)) for _ in range(2))
    t, y = torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([0, 3, 1, 2, 0, 1])
    got = discriminator_loss(real, fake, t, y)
    assert float(got) == pytest.approx(literal(real, 1, t, y, (1, 1, 1)) + literal(fake, 0, t, y, (1, 1, 1)), abs=1e-5)
    assert float(generator_loss(fake, t, y)) == pytest.approx(literal(fake, 1, t, y, (1, 10, 10)), abs=1e-4)
    assert float(discriminator_loss(real, None, t, y, (0, 0, 2))) == pytest.approx(
        literal(real, 1, t, y, (0, 0, 2)), abs=1e-5
    )


def test_each_step_moves_one_player(tmp_path: Path) -> None:
    """Without a learning rate of its own a player stands still, and statistics of D come from its own step alone."""
    ours = model(mix="none")
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    seen: list[Any] = []

    def note(module: nn.Module, *_: Any) -> None:
        seen.append((module.training, all(p.requires_grad for p in module.parameters())))

    ours.discriminator.trunk.register_forward_hook(note)
    trainer(tmp_path, limit_train_batches=1).fit(ours, BeatsDataModule(**DATA))
    # real and generated beats in D's own step, then generated ones with everything of D at rest
    assert seen == [(True, True), (True, True), (False, False)]
    counts = [v for k, v in ours.state_dict().items() if k.startswith("discriminator") and k.endswith("tracked")]
    assert {int(c) for c in counts} == {2}
    moved = {k.split(".")[0] for k, v in ours.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"discriminator", "generator"}
    assert all(p.requires_grad for name, p in ours.named_parameters() if ".attack." not in name)


def test_the_plain_classifier_has_one_head(tmp_path: Path) -> None:
    plain = model(gan=False, mix="none")
    assert plain.generator is None
    trained = {k.split(".")[1] for k, p in plain.named_parameters() if p.requires_grad}
    assert trained == {"trunk", "head"}
    trainer(tmp_path).fit(plain, BeatsDataModule(**DATA))
    result = plain.predict(plain.example_input()[0])[0]
    assert not {"attack_prob", "real_score"} & set(result)
    with pytest.raises(BadInput, match="no trained generator"):
        plain.generate(plain.example_input()[0], torch.zeros(3, dtype=torch.long))


# The mix ----------------------------------------------------------------------------------------------------------


def test_crafted_beats_stay_in_their_balls_and_belong_to_the_beat() -> None:
    ours = model().eval()
    x, y, index = torch.rand(32, 1, 70), torch.arange(32) % 4, torch.arange(100, 132)
    kinds = ("fgsm", "bim", "pgd", "cw")
    x_adv = craft(ours.forward, x, y, index, kinds, eps=0.01, cw_eps=0.1)
    chosen = attack_of(index, kinds)
    assert set(chosen.tolist()) == {0, 1, 2, 3}
    far = (x_adv - x).abs().flatten(1).amax(1)
    assert (far[chosen < 3] <= 0.01 + 1e-6).all()
    assert far[chosen == 3].max() > 0.05
    assert far.max() <= 0.1 + 1e-6
    again = craft(ours.forward, x[:5].flip(0), y[:5].flip(0), index[:5].flip(0), kinds, eps=0.01, cw_eps=0.1)
    torch.testing.assert_close(again.flip(0), x_adv[:5], atol=1e-5, rtol=0)


def test_static_copies_are_made_once_on_the_surrogate(tmp_path: Path) -> None:
    ours = model(attack_share=1.0, attacks=["fgsm"], eps=0.1)
    x, y, index = torch.rand(8, 1, 70), torch.arange(8) % 4, torch.arange(8)
    first, t = ours.mixed(x, y, index)
    assert t.tolist() == [1] * 8
    with torch.no_grad():
        for p in ours.discriminator.parameters():
            p.add_(torch.randn_like(p))
    again, _ = ours.mixed(x, y, index)
    assert torch.equal(first, again), "static: the network has changed, its attacked beats have not"
    online = model(attack_share=1.0, attacks=["fgsm"], eps=0.1, mix="online")
    one, _ = online.mixed(x, y, index)
    with torch.no_grad():
        for p in online.discriminator.parameters():
            p.add_(torch.randn_like(p))
    assert not torch.equal(one, online.mixed(x, y, index)[0])
    clean, t = model(mix="none").mixed(x, y, index)
    assert torch.equal(clean, x)
    assert not t.any()


def test_a_surrogate_for_other_classes_gives_way(tmp_path: Path) -> None:
    """The weights of the index name a surrogate of four classes; own beats with three must train nevertheless."""
    import zoo

    folder = zoo.save(model(gan=False, mix="none"), tmp_path / "plain")
    made = [BeatsDataModule(**DATA).split(s).series[:, 0].numpy() for s in ("train", "test")]  # type: ignore[attr-defined]
    own = BeatsDataModule.from_arrays((made[0], np.arange(24) % 3), (made[1], np.arange(8) % 3), batch_size=8)
    ours = model(surrogate=str(folder), num_classes=3, plain_epochs=1)
    with pytest.warns(UserWarning, match=r"another num_classes.*after 1 epochs"):
        trainer(tmp_path, max_epochs=2).fit(ours, own)
    assert ours._plain is not None
    assert ours.generate(torch.from_numpy(made[1][:2, None]), torch.tensor([0, 2])).shape == (2, 1, 70)
    named = model(surrogate=str(folder), class_names=["N", "S", "V", "F"])
    trainer(tmp_path, max_epochs=1).fit(named, BeatsDataModule(**DATA))
    assert named._plain is None
    assert len(named._crafted) == 24


# Use --------------------------------------------------------------------------------------------------------------


def test_beats_of_one_call_are_scaled_together() -> None:
    ours = model()
    x = ours.example_input()[0][:, 0]
    plain = ours.predict(x)
    in_mv = ours.predict((3 * x - 1).numpy())
    for a, b in zip(plain, in_mv, strict=True):
        torch.testing.assert_close(a["logits"], b["logits"], atol=1e-4, rtol=1e-4)
    alone = model(scaling="beat").scaled(torch.tensor([[[2.0, 4.0, 3.0]], [[0.0, 0.2, 0.1]]]))
    torch.testing.assert_close(alone, torch.tensor([[[0.0, 1.0, 0.5]]] * 2))


def test_paths_of_recordings_and_tables(tmp_path: Path) -> None:
    ours = model()
    np.save(tmp_path / "beats.npy", 2 * np.random.default_rng(0).random((5, 70)))
    assert len(ours.predict(tmp_path / "beats.npy")) == 5
    with pytest.raises(BadInput, match="no such file"):
        ours.predict(tmp_path / "nothing.csv")
    with pytest.raises(BadInput, match=r"no 100\.hea"):
        ours.predict(str(tmp_path / "100.dat"))
    pytest.importorskip("wfdb")
    root = BeatsDataModule().fake(tmp_path / "mitdb", format="wfdb")
    found = ours.predict(str(root / "100.hea"))
    assert 20 <= len(found) <= 28


@pytest.mark.parametrize(
    ("beat", "told"),
    [
        (np.ones(71), "expected a beat of 70 points"),
        (np.full(70, 0.5), "constant"),
        (np.r_[np.nan, np.arange(69.0)], "nan"),
        (np.ones((2, 3, 70)), "shape"),
    ],
)
def test_beats_that_cannot_be_are_named(beat: np.ndarray, told: str) -> None:
    if beat.ndim == 1:
        beat = beat + np.where(np.isnan(beat) | (beat == 0.5).all(), 0, np.arange(len(beat)))
    with pytest.raises(BadInput, match=told):
        model().predict(beat)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 0}, "num_classes"),
        ({"eps": 0.0}, r"eps: expected a share of the beats' range in \(0, 1\]"),
        ({"eps": 1.5}, "eps"),
        ({"cw_eps": -0.1}, "cw_eps"),
        ({"mix": "statik"}, "mix"),
        ({"attacks": []}, "attacks"),
        ({"attacks": ["cw2"]}, "attacks"),
        ({"d_weights": [1, 1]}, "d_weights"),
        ({"g_weights": [1, -1, 1]}, "g_weights"),
        ({"scaling": "all"}, "scaling"),
        ({"length": 4}, "length"),
    ],
)
def test_arguments_are_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        ECGATKGAN(**given)
