"""Steel roughness: closed form, trees, ROCKET and networks, intervals in micrometres, inputs as people have them."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import zoo
from datamodules.steel import SteelStripDataModule
from zoo.errors import BadData, BadInput, InvalidConfig, MissingExtra
from zoo.methods.steel_roughness import FITS, NETWORKS, SteelRoughness, reflected_slope
from zoo.methods.steel_roughness.networks import PatchTransformer, SpectrogramCNN
from zoo.methods.steel_roughness.regressor import Sections
from zoo.methods.steel_roughness.scores import (
    RoughnessErrors,
    conformal_quantile,
    roughness_errors,
    to_score,
    to_value,
)
from zoo.methods.steel_roughness.trees import Trees, section_statistics

SMALL = {"length": 64, "cutoff_mm": 0.25, "n_coils": 20, "val_coils": 12, "test_coils": 12, "sections_per_coil": 5}
SIZES: dict[str, dict[str, Any]] = {
    "closed-form": {},
    "rocket": {"num_kernels": 60},
    "soft-rocket": {"num_kernels": 30, "tune_epochs": 1},
    "xgboost": {"trees": 20},
    "fcn": {"width": 0.1},
    "resnet1d": {"width": 0.1},
    "inception": {"width": 0.125, "depth": 3},
    "lstm": {"width": 0.1},
    "transformer": {"width": 0.25},
    "spectrogram-cnn": {"backbone": "test_resnet"},
}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def model_of(network: str, **given: Any) -> SteelRoughness:
    torch.manual_seed(0)
    return SteelRoughness(network=network, length=64, cutoff_mm=0.25, **{**SIZES[network], **given})


def trainer_of(folder: Path, **options: Any) -> lightning.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0}
    return lightning.Trainer(default_root_dir=str(folder), **{**quiet, **options})


def fitted(network: str, folder: Path, epochs: int = 1, data: dict[str, Any] | None = None, **given: Any) -> Any:
    module = SteelStripDataModule(**{**SMALL, "batch_size": 16, **(data or {})})
    model = model_of(network, **given)
    trainer_of(folder, max_epochs=epochs).fit(model, module)
    return model, module


# Closed form ------------------------------------------------------------------------------------------------------


def test_slope_of_a_lobe_with_known_width() -> None:
    """A Gaussian lobe of width s seen through apertures of 3 degrees has w^2 = s^2; the slope is half of it."""
    angles = torch.linspace(-40, 40, 81)
    for spread in (4.0, 6.0, 8.0):
        seen = torch.exp(-angles.square() / (2 * (spread**2 + 9.0)))
        signal = 0.02 + 0.8 * seen[None, :, None].expand(1, -1, 10)
        assert float(reflected_slope(signal, angles, 3.0)) == pytest.approx(spread / 2, rel=0.01)


def test_slope_counts_what_moves_and_not_how_bright_it_is() -> None:
    angles = torch.linspace(-40, 40, 81)
    t = torch.arange(50) * 2 * math.pi / 50
    centre = 5 * torch.sin(t)
    signal = torch.exp(-(angles[:, None] - centre).square() / (2 * 9.0))[None]
    assert float(reflected_slope(signal, angles, 3.0)) == pytest.approx(5 / math.sqrt(2) / 2, rel=0.01)
    assert torch.allclose(reflected_slope(0.4 * signal + 0.1, angles, 3.0), reflected_slope(signal, angles, 3.0))


def test_closed_form_is_the_regression_line_on_log_slope(tmp_path: Path) -> None:
    model, data = fitted("closed-form", tmp_path)
    arrays = data.sections("train")
    angles = torch.linspace(-21, 21, 8)
    slope = reflected_slope(torch.from_numpy(arrays["signal"]), angles, 3.0).numpy()
    a, b = np.polyfit(np.log(slope), np.log(arrays["ra"]), 1)
    assert model.regressor.coefficients[0].tolist() == pytest.approx([a, b], rel=1e-4)
    assert a > 0
    assert sum(p.numel() for p in model.parameters()) == 0
    spread = torch.linspace(5, 15, 20)
    lobes = torch.exp(-angles[:, None].square() / (2 * spread**2))[:, :, None].expand(8, 20, 64).transpose(0, 1)
    values = model(lobes)[:, 0]
    assert (values.diff() > 0).all(), "a wider lobe is a rougher strip"


# Trees ------------------------------------------------------------------------------------------------------------


def test_statistics_against_numpy() -> None:
    x = np.random.default_rng(0).random((3, 2, 41)).astype(np.float32)
    found = section_statistics(torch.from_numpy(x)).numpy().reshape(3, 7, 2)
    for i in range(3):
        for c in range(2):
            row = x[i, c].astype(float)
            centred = row - row.mean()
            lags = [(centred[k:] * centred[:-k]).mean() / centred.var() for k in (1, 4)]
            expected = [row.mean(), row.std(), *lags, *np.quantile(row, [0.05, 0.5, 0.95])]
            np.testing.assert_allclose(found[i, :, c], expected, rtol=1e-4)


def test_trees_are_what_xgboost_grew() -> None:
    xgboost = pytest.importorskip("xgboost")
    torch.manual_seed(1)
    signal = torch.rand(80, 2, 30)
    score = torch.stack([signal.mean((1, 2)) * 10, signal.std((1, 2)) * 10], 1)
    trees = Trees(targets=2, rounds=15, depth=3, rate=0.3)
    trees.collect(Sections(signal, None, score, torch.arange(80)))
    kept = []
    train = xgboost.train
    patch = pytest.MonkeyPatch()
    patch.setattr(xgboost, "train", lambda *a, **k: kept.append(train(*a, **k)) or kept[-1])
    found = trees.solve(lambda v: v, lambda v: [v])
    patch.undo()
    for name, value in found.items():
        setattr(trees.trees, name.removeprefix("trees."), value)
    other = torch.rand(50, 2, 30)
    rows = xgboost.DMatrix(section_statistics(other).numpy())
    for k, booster in enumerate(kept):
        np.testing.assert_allclose(trees(other)[:, k].numpy(), booster.predict(rows), atol=1e-5)


def test_trees_without_xgboost_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    model, _ = fitted("xgboost", tmp_path)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    assert model.predict(model.example_input()[0])[0]["value"] > 0, "using them needs nothing"
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[sequence\]"):
        fitted("xgboost", tmp_path)


# All regressors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [*FITS, *NETWORKS])
def test_learns_and_comes_back(network: str, tmp_path: Path) -> None:
    model, data = fitted(network, tmp_path, epochs=3 if network == "soft-rocket" else 1, lr=3e-3)
    assert model.counts.tolist() == [100, 100]
    section = data.split("test")[0]["signal"]
    found = model.predict(section)[0]
    assert 0.05 < float(found["value"]) < 10, "micrometres"
    low, high = found["interval"].tolist()
    assert low < float(found["value"]) < high
    assert float(found["ra"]) == float(found["value"])
    again = zoo.load(zoo.save(model.eval(), tmp_path / "saved")).predict(section)[0]
    assert float(again["value"]) == float(found["value"])
    assert again["interval"].tolist() == found["interval"].tolist()


def test_channels_are_standardised_by_the_training_set_never_by_the_series(tmp_path: Path) -> None:
    model, data = fitted("rocket", tmp_path)
    signal = torch.from_numpy(data.sections("train")["signal"])
    torch.testing.assert_close(model.signal_mean, signal.mean((0, 2)))
    torch.testing.assert_close(model.signal_std, signal.transpose(0, 1).flatten(1).std(1))
    one = torch.from_numpy(data.sections("test")["signal"][:1])
    assert not torch.allclose(model(one), model(0.7 * one)), "the amplitude tells the roughness"


def test_statistics_travel_with_the_weights(tmp_path: Path) -> None:
    model, _ = fitted("fcn", tmp_path)
    before = model.signal_mean.clone()
    other = SteelStripDataModule(**{**SMALL, "world_seed": 3}, batch_size=16)
    trainer_of(tmp_path, max_epochs=1).fit(model, other)
    assert torch.equal(before, model.signal_mean), "the layers were trained on inputs of that scale"


def test_meta_matters_only_where_asked_for(tmp_path: Path) -> None:
    model, data = fitted("fcn", tmp_path, use_meta=True)
    item = data.split("test")[0]
    given = {"signal": item["signal"].numpy(), "speed": 5.0, "tilt": 0.2, "power": 1.0}
    slow, fast = (float(model.predict({**given, "speed": v})[0]["value"]) for v in (2.0, 12.0))
    assert slow != fast
    with pytest.raises(BadInput, match="speed"):
        model.predict(item["signal"])
    with pytest.raises(InvalidConfig, match="use_meta"):
        SteelRoughness(network="rocket", use_meta=True)


def test_several_targets(tmp_path: Path) -> None:
    model, data = fitted("closed-form", tmp_path, targets=["rz", "ra", "rpc"])
    found = model.predict(data.split("test")[0]["signal"])[0]
    assert float(found["value"]) == float(found["rz"]) > float(found["ra"])
    assert float(found["rpc"]) > -1
    with pytest.raises(BadInput, match="rq"):
        SteelRoughness(targets=["rs"])


def test_ensemble_is_the_mean_of_its_members() -> None:
    model = model_of("fcn", ensemble=3).eval()
    model.score_std.fill_(0.5)
    x = model.example_input()[0]
    single = model.regressor.member_scores(model.standardised(x))
    assert single.shape == (3, 1, 1)
    assert not torch.allclose(single[0], single[1])
    torch.testing.assert_close(model.score(x), 0.5 * single.mean(0))


@pytest.mark.parametrize(
    ("network", "given", "heads"),
    [
        ("closed-form", {}, {"fit_.coefficients"}),
        ("xgboost", {}, {f"fit_.trees.{name}" for name in ("feature", "threshold", "branches", "leaf")}),
        ("rocket", {}, {f"fit_.head.{name}" for name in ("mean", "scale", "weight", "bias")}),
        ("fcn", {"ensemble": 2}, {f"heads.{i}.{name}" for i in range(2) for name in ("weight", "bias")}),
        ("fcn", {"use_meta": True}, {f"meta_layers.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}),
    ],
)
def test_keys_of_published_weights_stay(network: str, given: dict[str, Any], heads: set[str]) -> None:
    model = model_of(network, **given)
    keys = set(model.state_dict())
    assert heads <= keys
    assert {key.split(".")[0] for key in keys if "." in key} <= {"fit_", "members", "heads", "meta_layers"}
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    inside = [*twin.regressor.parameters(), *twin.regressor.buffers()]
    held = {v.data_ptr() for v in inside}
    assert all(twin.state_dict()[key].data_ptr() in held for key in heads), "the regressor has what the model registers"
    assert any(bool(value.any()) for value in model.state_dict().values()), "a copy is a copy"


def test_missing_labels_are_named() -> None:
    model = model_of("fcn")
    batch = {"signal": torch.rand(2, 8, 64), "ra": torch.tensor([1.0, math.nan]), "index": torch.arange(2)}
    with pytest.raises(BadData, match="'ra'"):
        model.training_step(batch, 0)


# Tuned kernels ----------------------------------------------------------------------------------------------------


def test_tuning_moves_kernels_and_never_ships_a_worse_model(tmp_path: Path) -> None:
    data = SteelStripDataModule(**SMALL, batch_size=16)
    model = model_of("soft-rocket", tune_epochs=3, lr_kernels=0.01)
    start = model.regressor.rocket.weights.detach().clone()
    seen: list[float] = []

    class Watch(lightning.Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            seen.append(float(trainer.callback_metrics["val/loss"]))

    trainer_of(tmp_path, max_epochs=5, callbacks=[Watch()]).fit(model, data)
    assert len(seen) == 5
    final = trainer_of(tmp_path).validate(model, data, verbose=False)[0]["val/loss"]
    assert final == pytest.approx(min(seen), rel=1e-4)
    assert model.regressor.tuner.best_loss == pytest.approx(min(seen), rel=1e-4)
    if seen.index(min(seen)):
        assert not torch.equal(start, model.regressor.rocket.weights)
    with pytest.raises(InvalidConfig, match="tune_epochs"):
        SteelRoughness(network="rocket", tune_epochs=2)


def test_the_last_epoch_solves_for_the_tuned_kernels(tmp_path: Path) -> None:
    """Also where there are more sections than features, so that only sums are kept."""
    data = SteelStripDataModule(**SMALL, batch_size=16)
    model = model_of("soft-rocket", num_kernels=10, tune_epochs=1, lr_kernels=0.05)

    class Solved(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.is_last_batch and trainer.current_epoch == 2:
                with torch.no_grad():
                    self.features = module.regressor.features(module.standardised(signal)).double().numpy()
                    self.found = module.regressor(module.standardised(signal))[:, 0].numpy()

    signal = torch.from_numpy(data.sections("train")["signal"])
    solved = Solved()
    trainer_of(tmp_path, max_epochs=3, callbacks=[solved]).fit(model, data)
    wanted = np.log(data.sections("train")["ra"].astype(float))
    wanted = (wanted - float(model.score_mean)) / float(model.score_std)
    scaled = (solved.features - solved.features.mean(0)) / solved.features.std(0)
    gaps = []
    for penalty in np.logspace(-3, 3, 10):
        weight = np.linalg.solve(scaled.T @ scaled + penalty * np.eye(20), scaled.T @ (wanted - wanted.mean()))
        gaps.append(np.abs(scaled @ weight + wanted.mean() - solved.found).max())
    assert min(gaps) < 1e-3


def test_tuning_lasts_as_long_as_was_asked_for(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, max_epochs=9)
    trainer.fit(model_of("soft-rocket", tune_epochs=2), SteelStripDataModule(**SMALL, batch_size=16))
    assert trainer.current_epoch == 4, "one epoch before it, and one after"


def test_kernels_drawn_from_the_global_seed_are_noted() -> None:
    torch.manual_seed(3)
    first = SteelRoughness(network="rocket", num_kernels=20, kernel_seed=None)
    other = SteelRoughness(network="rocket", num_kernels=20, kernel_seed=None)
    assert first.init_args["kernel_seed"] != other.init_args["kernel_seed"]
    again = SteelRoughness(**first.init_args)
    assert torch.equal(again.regressor.rocket.weights, first.regressor.rocket.weights)


# Networks ---------------------------------------------------------------------------------------------------------


def test_spectrogram_is_the_short_time_fourier_transform() -> None:
    network = SpectrogramCNN(2, "test_resnet", False)
    x = torch.randn(3, 2, 64)
    window = torch.hann_window(32)
    stft = torch.stft(x.flatten(0, 1), 32, 8, window=window, center=True, pad_mode="reflect", return_complex=True)
    expected = (stft.abs().square() + 1e-3).log().view(3, 2, 17, -1)
    torch.testing.assert_close(network.spectrogram(x), expected, atol=1e-3, rtol=1e-3)


def test_masked_patches_are_really_hidden() -> None:
    torch.manual_seed(0)
    network = PatchTransformer(8, 0.25, 64, decoder=True).eval()
    x = torch.randn(2, 8, 64)
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[:, 3] = True
    patches = network.patches(x)
    torch.testing.assert_close(patches[0, 3].view(8, 8), x[0, :, 24:32])

    def slope(signal: Tensor) -> Tensor:
        signal = signal.clone().requires_grad_()
        return torch.autograd.grad(network.reconstruction_loss(signal, hidden), signal)[0][:, :, 24:32]

    # if the prediction p does not see the hidden samples h, the loss is mean (p - h)^2 and its slope is linear in h
    change = torch.zeros_like(x)
    change[:, :, 24:32] = torch.randn(2, 8, 8)
    expected = 2 * change[:, :, 24:32] / (64 * 2)
    torch.testing.assert_close(slope(x + change) - slope(x), expected, atol=1e-6, rtol=1e-4)
    network.masked.decoder.weight.data.zero_()
    network.masked.decoder.bias.data.zero_()
    torch.testing.assert_close(network.reconstruction_loss(x, hidden), patches[:, 3].square().mean())


def test_pretraining_needs_no_labels_and_hands_over_its_encoder(tmp_path: Path) -> None:
    data = {"labelled_fraction": 0.2, "train_on": "all"}
    model, _ = fitted("transformer", tmp_path, data=data, objective="masked")
    assert model.counts.tolist() == [100, 0]
    assert model.monitor == ("val/loss", "min")
    state = model.published_state()
    assert not [k for k in state if "masked" in k], "only training needs the decoder"
    plain = model_of("transformer")
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "masked" not in k})
    with pytest.raises(InvalidConfig, match="transformer"):
        SteelRoughness(network="fcn", objective="masked")


def test_transformer_reads_the_length_it_was_made_for() -> None:
    model = model_of("transformer").eval()
    with pytest.raises(BadInput, match="64 samples, got 72"):
        model.predict(torch.rand(8, 72))
    with pytest.raises(BadInput, match="multiple"):
        SteelRoughness(network="transformer", length=60)


# Interval ---------------------------------------------------------------------------------------------------------


def test_conformal_quantile_is_the_right_order_statistic() -> None:
    residuals = torch.tensor([[0.5], [-0.1], [0.3], [-0.4], [0.2], [0.6], [-0.7], [0.8], [0.9]])
    assert float(conformal_quantile(residuals, 0.9)) == pytest.approx(0.9)  # ceil(10 * 0.9) = 9
    assert float(conformal_quantile(residuals, 0.5)) == pytest.approx(0.5)  # 5
    assert float(conformal_quantile(residuals[:3], 0.9)) == pytest.approx(0.5)  # too few: the largest


def test_interval_covers_exchangeable_sections() -> None:
    torch.manual_seed(0)
    inside = []
    for _ in range(400):
        drawn = torch.randn(101, 1)
        inside.append(float(drawn[100].abs() <= conformal_quantile(drawn[:100], 0.9)))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.045)


@pytest.mark.slow
def test_interval_covers_held_out_coils(tmp_path: Path) -> None:
    found = []
    for world in range(5):
        model = SteelRoughness(network="closed-form", cutoff_mm=0.25)
        given = {"cutoff_mm": 0.25, "world_seed": world, "n_coils": 50, "sections_per_coil": 6, "batch_size": 64}
        data = SteelStripDataModule(**given)
        trainer_of(tmp_path, max_epochs=1).fit(model, data)
        found.append(trainer_of(tmp_path).test(model, data, verbose=False)[0]["test/coverage"])
    assert np.mean(found) == pytest.approx(0.9, abs=0.03)


def test_errors_against_numpy() -> None:
    rng = np.random.default_rng(0)
    true, value = rng.uniform(0.4, 2, 50), rng.uniform(0.4, 2, 50)
    score, wanted = (to_score(torch.from_numpy(v)[:, None], torch.zeros(1)) for v in (value, true))
    found = roughness_errors(score, wanted, torch.zeros(1), torch.tensor([0.2]))
    assert found["rmse"] == pytest.approx(np.sqrt(((value - true) ** 2).mean()))
    assert found["rmse_relative"] == pytest.approx(np.sqrt(((value / true - 1) ** 2).mean()))
    assert found["correlation"] == pytest.approx(np.corrcoef(value, true)[0, 1])
    assert found["bias"] == pytest.approx((value - true).mean())
    assert found["coverage"] == pytest.approx(np.mean(np.abs(np.log(value / true)) <= 0.2))
    back = to_value(to_score(torch.tensor([[0.0, 1.5]]), torch.tensor([1.0, 0.0])), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(back, torch.tensor([[0.0, 1.5]]))


def test_errors_of_batches_are_put_in_order() -> None:
    errors = RoughnessErrors(["ra"])
    for rows in ([2, 0], [1]):
        index = torch.tensor(rows)
        errors.update(index, index[:, None].float(), index[:, None].float(), index.float())
        assert len(errors.joined()[0]) == len(errors.seen) + 1, "also after it was asked once"
    score, _, loss = errors.joined()
    assert score[:, 0].tolist() == loss.tolist() == [0.0, 1.0, 2.0]
    assert errors.compute()["loss"] == 1.0
    errors.reset()
    assert errors.seen == []


# Inputs -----------------------------------------------------------------------------------------------------------


def test_predict_takes_what_people_have(tmp_path: Path) -> None:
    model, data = fitted("closed-form", tmp_path)
    section = data.split("test")[0]["signal"].numpy()
    np.savez(tmp_path / "s.npz", signal=section, speed=5.0)
    table = pd.DataFrame({f"detector {k}": section[k] for k in range(8)})
    given: list[Any] = [section, torch.from_numpy(section), section.tolist(), table, tmp_path / "s.npz"]
    given += [str(tmp_path / "s.npz"), {"signal": section}]
    values = [
        float(found["value"]) for found in model.predict([np.asarray(g) if isinstance(g, list) else g for g in given])
    ]
    assert values == pytest.approx([values[0]] * 7)
    assert len(model.predict(np.stack([section, section, section]))) == 3
    picture = model.show(section, model.predict(section)[0])
    assert picture.width > 300


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (np.ones((8, 64)), "laser off"),
        (np.random.default_rng(0).random((5, 64)), "8 detectors"),
        (np.random.default_rng(0).random((64, 8)), "turn it round"),
        (np.random.default_rng(0).random(64), r"shape \(C, L\)"),
        (np.where(np.arange(64) == 3, np.nan, np.ones((8, 1))), "detector 0, sample 3"),
        (np.full((8, 64), "x"), "numbers"),
        (np.random.default_rng(0).random((8, 1)), "at least 2 samples"),
        (1000 * np.random.default_rng(0).random((8, 64)), "full scale"),
        (pd.DataFrame({"a": np.ones(64), "b": ["x"] * 64}), "column 'b' does not hold numbers, such as 'x' in row 0"),
        (pd.DataFrame(np.eye(64, 8)).astype("Float64").replace(1.0, pd.NA), "nan at detector 0, sample 0"),
        ("no_such.npz", "no such file"),
        (np.array([[0.5, "bad"]] * 8, dtype=object), "'bad' at detector 0, sample 1"),
        ({"speed": 5.0}, "input 0"),
    ],
)
def test_unusable_sections_are_named(section: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        model_of("closed-form").predict(section)


def test_a_section_in_another_unit_is_named() -> None:
    """Negative or vanishing intensities would give a number, and it would mean nothing."""
    signal = np.random.default_rng(0).uniform(0.1, 0.9, (8, 64))
    model = model_of("closed-form")
    for wrong in (-signal, signal * 1e-9, signal * 1000, signal - 0.5):
        with pytest.raises(BadInput, match="signal: expected intensities of full scale"):
            model.predict(wrong)
    assert model.predict(signal - 0.1 * signal.min())
    with pytest.raises(BadInput, match=r"expected a dict or file with signal \(C, L\), got the keys speed, tilt"):
        model.predict({"speed": 2.0, "tilt": 0.0})


def test_sections_shorter_than_a_kernel_name_it() -> None:
    model = model_of("rocket").eval()
    with pytest.raises(BadInput, match=r"kernel \d+ has \d+ points with dilation"):
        model.predict(torch.rand(8, 9))
    with pytest.raises(BadInput, match="equally many"):
        model.predict([torch.rand(8, 64), torch.rand(8, 65)])


def test_forward_is_what_exports_see() -> None:
    model = model_of("fcn").eval()
    (signal,) = model.example_input()
    out: Tensor = model(signal)
    assert out.shape == (1, 1)
    torch.testing.assert_close(out, model.score(signal).exp())
