"""What recipes do not express about steel roughness: learning curves, changed conditions, latency, the label's floor.

Each seed is another simulated world: other coils for training and for the test, other kernels and starts.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np
import torch
from lightning import Trainer, seed_everything

from datamodules.steel import SteelStripDataModule
from zoo.methods.steel_roughness.module import FITS, SteelRoughness
from zoo.studies import Outcome, study

NARROW: dict[str, dict[str, Any]] = {
    "closed-form": {},
    "xgboost": {},
    "rocket": {"num_kernels": 2000, "kernel_seed": None},
    "soft-rocket": {"num_kernels": 200, "kernel_seed": None},
    "fcn": {"width": 0.25},
    "resnet1d": {"width": 0.25},
    "inception": {"width": 0.25, "depth": 3},
    "lstm": {"width": 0.25},
    "transformer": {},
    "spectrogram-cnn": {},
}
"""Sizes that one slow core trains in a minute; widths are those of the benchmarks times this factor."""

FULL: dict[str, dict[str, Any]] = {name: {} for name in NARROW} | {"rocket": {"num_kernels": 10_000}}
"""Sizes of the benchmarks, and as many kernels as the papers use."""

STEPS = {250: (300, 32), 1000: (300, 32), 4000: (400, 64)}
"""Labelled sections -> training steps and batch size of networks."""


def _quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def _trained(network: str, data: SteelStripDataModule, steps: int, seed: int) -> SteelRoughness:
    """A model after one pass (what is fitted) or so many steps."""
    _quiet()
    seed_everything(seed, verbose=False)
    model = SteelRoughness(network=network, **NARROW[network])
    limits: dict[str, Any] = {"max_epochs": 1} if network in FITS else {"max_steps": steps, "max_epochs": -1}
    trainer = _trainer(limit_val_batches=0, **limits)
    trainer.fit(model, data)
    return model


def _trainer(**options: Any) -> Trainer:
    plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "devices": 1}
    return Trainer(accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=0, **{**plain, **options})


def _tested(model: SteelRoughness, data: SteelStripDataModule) -> dict[str, float]:
    scores = _trainer().test(model, data, verbose=False)[0]
    return {name.removeprefix("test/"): float(value) for name, value in scores.items()}


@study("rmse_250", "rmse_1000", "rmse_4000", "relative_250", "relative_1000", "relative_4000")
def learning_curve(network: str = "rocket", seed: int = 0) -> Outcome:
    """Test RMSE in um after training on 250, 1,000 and 4,000 labelled sections of one world.

    Args:
        network: a key of `NARROW`.
        seed: of world, order, kernels and start.
    """
    metrics: dict[str, float] = {}
    for count, (steps, batch) in STEPS.items():
        data = SteelStripDataModule(seed=seed, world_seed=None, labelled_fraction=count / 4000, batch_size=batch)
        scores = _tested(_trained(network, data, steps, seed), data)
        metrics |= {f"rmse_{count}": scores["rmse"], f"relative_{count}": scores["rmse_relative"]}
    return Outcome(metrics, {"rmse": [(float(n), metrics[f"rmse_{n}"]) for n in STEPS]})


SHIFTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gain": {"gain": 0.6},
    "offset": {"offset": 0.08},
    "tilt": {"tilt": 2.5},
    "speckle": {"speckle": 0.2},
    "mill": {"test_textures": ["mill"]},
}
"""Test conditions that training did not have: weak laser, stray light, fluttering strip, speckle, ground rolls."""


@study(*(f"rmse_{name}" for name in SHIFTS), "rmse_light", "rmse_unsteady", "rmse_changed", "worse_mill")
def changed_conditions(network: str = "rocket", augment: str = "light", seed: int = 0) -> Outcome:
    """Test RMSE in um where the instrument or the texture is not as in training (1,000 labelled sections).

    Args:
        network: a key of `NARROW`.
        augment: of the training signals.
        seed: of world, order, kernels and start.

    Returns:
        One RMSE per shift; `rmse_light` is the mean of gain and offset, `rmse_unsteady` of tilt and speckle,
        `rmse_changed` of all five; `worse_mill` is by how much ground rolls raise it.
    """
    given: dict[str, Any] = {"seed": seed, "world_seed": None, "n_coils": 100, "test_coils": 50, "batch_size": 32}
    model = _trained(network, SteelStripDataModule(**given, augment=augment), 300, seed)
    errors = {name: _tested(model, SteelStripDataModule(**given, **shift))["rmse"] for name, shift in SHIFTS.items()}
    metrics = {f"rmse_{name}": value for name, value in errors.items()}
    metrics["rmse_light"] = (errors["gain"] + errors["offset"]) / 2
    metrics["rmse_unsteady"] = (errors["tilt"] + errors["speckle"]) / 2
    metrics["worse_mill"] = errors["mill"] - errors["plain"]
    metrics["rmse_changed"] = float(np.mean([value for name, value in errors.items() if name != "plain"]))
    return Outcome(metrics)


@study("rmse", "relative", "correlation", "ms")
def pooling(network: str = "rocket", kernels: int = 500, seed: int = 0) -> Outcome:
    """Test RMSE in um and ms per section, with 1,000 labelled sections: `rocket` pools hard, `soft-rocket` soft.

    Args:
        network: also `closed-form`, which has no kernels.
        kernels: N, frozen.
        seed: of world and kernels; equal seeds are equal kernels.
    """
    given: dict[str, Any] = {"num_kernels": kernels, "kernel_seed": seed} if network != "closed-form" else {}
    data = SteelStripDataModule(seed=seed, world_seed=None, n_coils=100, test_coils=50, batch_size=64)
    _quiet()
    seed_everything(seed, verbose=False)
    model = SteelRoughness(network=network, **given)
    _trainer(max_epochs=1, limit_val_batches=0).fit(model, data)
    scores = _tested(model, data)
    kept = {name: scores[key] for name, key in (("rmse", "rmse"), ("relative", "rmse_relative"))}
    return Outcome({**kept, "correlation": scores["correlation"], "ms": milliseconds(model)})


@study("rmse", "relative", "correlation")
def label_floor(seed: int = 0) -> Outcome:
    """How well the stylus reading of the lit line itself predicts that of its neighbour, which is the label."""
    test = SteelStripDataModule(seed=seed, world_seed=None).sections("test")
    lit, ra = test["ra_lit"].astype(float), test["ra"].astype(float)
    relative = np.sqrt(np.mean((lit / ra - 1) ** 2))
    rmse = float(np.sqrt(np.mean((lit - ra) ** 2)))
    return Outcome({"rmse": rmse, "relative": float(relative), "correlation": float(np.corrcoef(lit, ra)[0, 1])})


def milliseconds(model: SteelRoughness, batch: int = 1, repeats: int = 15) -> float:
    """Median time of `forward` per section, on the threads torch has."""
    model.eval()
    one = model.example_input()[0].expand(batch, -1, -1).contiguous()
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 3):
            start = time.perf_counter()
            model(one)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[3:])) / batch


@study("slowest_ms", *(f"ms_{name}" for name in NARROW))
def latency(full: bool = False) -> Outcome:
    """Milliseconds that one section takes on one core, untrained weights.

    Args:
        full: the sizes of the benchmarks, and ROCKET with 10,000 kernels, which `slowest_ms` leaves out.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sizes = FULL if full else NARROW
        times = {name: milliseconds(SteelRoughness(network=name, **given)) for name, given in sizes.items()}
    finally:
        torch.set_num_threads(before)
    counted = [value for name, value in times.items() if not (full and name == "rocket")]
    return Outcome({"slowest_ms": max(counted)} | {f"ms_{name}": value for name, value in times.items()})


@study("coverage", "width")
def interval_coverage(network: str = "xgboost", worlds: int = 5) -> Outcome:
    """Share of held-out sections inside the 90 % interval, over several worlds of 1,000 training sections."""
    coverages = []
    for seed in range(worlds):
        data = SteelStripDataModule(seed=seed, world_seed=None, n_coils=100, batch_size=64)
        _quiet()
        seed_everything(seed, verbose=False)
        model = SteelRoughness(network=network, **NARROW[network])
        _trainer(max_epochs=1).fit(model, data)
        coverages.append(_tested(model, data))
    return Outcome({key: float(np.mean([f[key] for f in coverages])) for key in ("coverage", "width")})
