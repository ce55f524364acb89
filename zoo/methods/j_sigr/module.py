"""The classifier and its training as a Lightning module; the paper and its equations stand in `zoo.methods.j_sigr`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric

from zoo import checks
from zoo.base.adversarial_classifier import CRITERIA, TESTS, AdversarialClassifier
from zoo.base.other_network import find_classifier
from zoo.base.ranks import copy_first_rank
from zoo.errors import BadInput, InvalidConfig
from zoo.methods.j_sigr.cache import SaliencyCache, check_augmentation
from zoo.methods.j_sigr.losses import (
    MASKS,
    NORMS,
    SELECTIONS,
    jacobian_norm,
    log_probability_gradient,
    selection,
    selective_norm,
    unit_vectors,
)
from zoo.methods.j_sigr.scores import ATTACKED_MAPS, LINEAR, MAPS, linear_scores, map_scores
from zoo.nn.attacks import Model, di_fgsm, mi_fgsm, ti_fgsm, transfer
from zoo.nn.batch_norm import twice_differentiable
from zoo.nn.saliency import FILLS, enlarged, gradient_saliency, perturbation_saliency, places, scaled

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["JSIGR"]

TRANSFERRED = {"mi": mi_fgsm, "di": di_fgsm, "ti": ti_fgsm}
"""Attacks that are made on each surrogate; `mi-ensemble` is made on the mean of their logits."""

EXPLANATIONS = ("gradient", "perturbation")


class JSIGR(AdversarialClassifier):
    """A classifier whose Jacobian is small, and whose input gradients are kept only where they matter.

    `selective=0` leaves the Jacobian term alone, `jacobian=0` the selective one, both the plain network; `jacobian=0`
    with `mask="none"` is the input-gradient regularisation of Ross and Doshi-Velez 2018.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: name of the classifier in `zoo.nn.classifiers`; with `-softplus` or `-silu` behind it smooth, so that
            the penalties' own gradients know how the slopes change.
        jacobian: lam_J, weight of the Jacobian's norm.
        selective: lam_S, weight of the selective input gradient.
        projections: n, random vectors that estimate the Jacobian's norm; 0: exactly, by K backward passes.
        select: how saliency becomes a mask: `threshold` (below tau of the maximum), `lowest` (a share of the pixels) or
            `soft`, (1 - S)^2.
        tau: share of the maximum below which saliency is low, for `threshold`.
        lowest_share: of the pixels, for `lowest`.
        mask: `selected`, or for comparison `inverted`, `random` (as many pixels) or `none` (all pixels).
        gradient_norm: of the selected gradient, `l2` (squared) or `l1`.
        spacing: pixels between the places of the perturbation, and its standard deviation.
        fill: what a place is replaced by, `blur` or `zero`.
        warmup: epochs without the selective term, while saliency means nothing yet.
        refresh: epochs between two computations of the training images' saliency.
        ramp: epochs in which each term rises linearly from 0, lam_J from the start, lam_S after the warm-up.
        label_smoothing: of the cross-entropy.
        criterion: `natural`; `sat`, `trades` or `mart` for adversarial training as a baseline.
        beta: weight of the KL term of trades and mart.
        eps: radius of the attacks of evaluation, and of a training attack, for pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: number of steps of the training attack.
        eps_warmup: epochs in which eps (and the step) of the training attack rise.
        eval_steps: steps of the PGD of validation and test, of size eps / 10 from a uniform start.
        test_attacks: what `test` measures; of `fgsm`, `pgd`, `cw` (30 steps), `apgd-ce`, `apgd-dlr` (50 steps), and on
            `surrogates` `mi`, `di`, `ti` (the worst of all surrogates) and `mi-ensemble`.
        surrogates: networks that examples are made on: whatever `zoo.load` takes.
        test_maps: whether `test` measures saliency maps, which costs some hundred passes for each image.
        lr: learning rate.
        momentum: of SGD.
        weight_decay: on all parameters.
        schedule: `cosine` to zero, or `steps` (a tenth after each milestone).
        milestones: epochs.
        mean: mean of each channel, for a normalisation inside the network; None for none.
        std: standard deviation of each channel; None if `mean` is.
        channels_last: memory layout of images and convolutions; faster on most machines.
    """

    tests = (*TESTS, *TRANSFERRED, "mi-ensemble")
    monitor = ("val/accuracy", "max")
    logged: ClassVar[tuple[str, ...]] = (
        *("loss", "accuracy", "robust", *(f"robust_{name}" for name in tests)),
        *(*LINEAR, *MAPS, *ATTACKED_MAPS),
    )
    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "jacobian": (0, 1e6),
        "selective": (0, 1e6),
        "projections": (0, 1000),
        "spacing": (1, 10_000),
        "warmup": (0, 1e6),
        "refresh": (1, 1e6),
        "ramp": (0, 1e6),
    }

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "cifar-resnet18-softplus",
        jacobian: float = 0.01,
        selective: float = 0.01,
        projections: int = 1,
        select: str = "threshold",
        tau: float = 0.1,
        lowest_share: float = 0.6,
        mask: str = "selected",
        gradient_norm: str = "l2",
        spacing: int = 4,
        fill: str = "blur",
        warmup: int = 2,
        refresh: int = 3,
        ramp: float = 2.0,
        label_smoothing: float = 0.0,
        criterion: str = "natural",
        beta: float = 6.0,
        eps: float = 8 / 255,
        attack_step: float = 2 / 255,
        attack_steps: int = 10,
        eps_warmup: float = 0.0,
        eval_steps: int = 20,
        test_attacks: Sequence[str] = ("pgd", "cw"),
        surrogates: Sequence[str] = (),
        test_maps: bool = False,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: str = "cosine",
        milestones: Sequence[int] = (),
        mean: list[float] | None = None,
        std: list[float] | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("criterion", criterion, CRITERIA),
            ("select", select, SELECTIONS),
            ("mask", mask, MASKS),
            ("gradient_norm", gradient_norm, NORMS),
            ("fill", fill, FILLS),
        ):
            checks.one_of(name, value, allowed)
        checks.share_of_one("tau", tau, ends=False)
        checks.share_of_one("lowest_share", lowest_share, ends=False)
        if not 0 <= label_smoothing < 1:
            raise BadInput(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        wants = sorted({*TRANSFERRED, "mi-ensemble"} & set(test_attacks))
        if wants and not surrogates:
            raise InvalidConfig(f"test_attacks: {', '.join(wants)} needs other networks: name them in surrogates.")
        if selective > 0 or test_maps:
            places(img_size, img_size, spacing)  # says what is wrong before anything is computed
        self.cache = SaliencyCache()
        self._surrogates: list[Any] | None = None

    def make_network(self) -> nn.Module:
        """The classifier of that name, whose batch normalisation can be differentiated twice at a low cost."""
        return twice_differentiable(super().make_network())

    # Training -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """CE(f(x), y) + lam_J R_J + lam_S R_S; logs `train/loss` and its parts."""
        lam_j, lam_s = self.weights(self.epochs_done(batch_idx))
        x, y = self.lay_out(batch["image"]), batch["label"]
        parts: dict[str, Tensor] = {}
        with torch.autocast(x.device.type, enabled=False):  # squares of gradients leave the range of half precision
            if lam_j or lam_s:
                x = x.detach().float().requires_grad_()
            z = self.logits(x)
            if lam_j:
                parts["jacobian"] = self.jacobian_term(z, x, batch["index"])
            if lam_s:
                parts["selective"] = self.selective_term(z, x, y, batch)
            loss = self.main_loss(z, x.detach(), y, batch["index"], self.attack_share(batch_idx))
        total = loss + sum(weight * parts[k] for k, weight in (("jacobian", lam_j), ("selective", lam_s)) if weight)
        if self._trainer is not None:
            self.log("train/loss", total.detach(), prog_bar=True, batch_size=len(y))
            for name, value in {"main": loss, **parts}.items():
                self.log(f"train/{name}", value.detach(), batch_size=len(y))
        return total

    def weights(self, done: float) -> tuple[float, float]:
        """lam_J and lam_S after some epochs of training, both rising within `ramp` epochs.

        Args:
            done: epochs, with the part of the current one; infinite for the full weights.
        """
        options = self.hparams
        jacobian, selective = float(options["jacobian"]), float(options["selective"])
        begun = done >= options["warmup"]
        if options["ramp"] > 0:
            jacobian *= min(1.0, done / options["ramp"])
            selective *= min(1.0, max(0.0, done - options["warmup"]) / options["ramp"])
        return jacobian, selective if begun else 0.0

    def main_loss(self, z: Tensor, x: Tensor, y: Tensor, index: Tensor, share: float) -> Tensor:
        """CE(f(x), y), or the criterion of a baseline that is trained adversarially."""
        name = self.hparams["criterion"]
        if name == "natural":
            return F.cross_entropy(z, y, label_smoothing=self.hparams["label_smoothing"])
        return self.criterion(name, x, y, index, share)

    def jacobian_term(self, z: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """R_J of a batch.

        Args:
            z: f(x) (N, K), with a graph back to x.
            x: (N, C, H, W), which requires a gradient.
            index: (N,) identity of the samples, to which the random vectors belong.
        """
        count, vectors = int(self.hparams["projections"]), None
        if count:
            seed = int(torch.randint(2**31, ()))  # of the host's generator, which exact resume restores
            vectors = unit_vectors(count, z.shape[1], seed, index).to(z)
        return jacobian_norm(z, x, vectors).mean()

    def selective_term(self, z: Tensor, x: Tensor, y: Tensor, batch: dict[str, Any]) -> Tensor:
        """R_S of a batch; arguments as in `jacobian_term`, and the batch for its numbers and what was mirrored."""
        options = self.hparams
        if options["mask"] == "none":
            chosen = x.new_ones(x[:, 0].shape)
        else:
            saliency = self.saliency_of(batch, (x.shape[2], x.shape[3]))
            kind, tau, share, mask = (options[name] for name in ("select", "tau", "lowest_share", "mask"))
            chosen = selection(saliency.to(x), kind, tau, share, mask, batch["index"])
        return selective_norm(log_probability_gradient(z, x, y), chosen, options["gradient_norm"]).mean()

    def saliency_of(self, batch: dict[str, Any], size: tuple[int, int]) -> Tensor:
        """S (N, H, W) of a training batch: from the cache, or without one computed from its images.

        Args:
            batch: with `image`, `index` and, where images are flipped at random, `mirrored`.
            size: H and W.
        """
        if self.cache.values is None:
            return enlarged(self.perturbation(batch["image"]), size)
        return enlarged(self.cache.of(batch["index"], batch.get("mirrored")), size)

    def perturbation(self, x: Tensor) -> Tensor:
        """S (N, rows, columns) of images (N, C, H, W), see `zoo.nn.saliency.perturbation_saliency`."""
        return perturbation_saliency(self, x, int(self.hparams["spacing"]), self.hparams["fill"])

    # Hooks --------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse what gradients of gradients, or cached maps, cannot do.

        Raises:
            InvalidConfig: naming the option.
        """
        super().on_fit_start()
        options = self.hparams
        if not (options["jacobian"] or options["selective"]):
            return
        if any(isinstance(part, nn.SyncBatchNorm) for part in self.modules()):
            raise InvalidConfig(
                "trainer.sync_batchnorm: it cannot be differentiated twice, which the penalties need. Leave it out, or "
                "use group normalisation (-gn behind the network's name)."
            )
        if (data := self.training_set()) is not None:
            check_augmentation(data)

    def training_set(self) -> Any:
        """The images whose saliency is cached; None if training does not look at it, or without a data module.

        A loader alone may hand out anything: the saliency is then computed in each step, which takes much longer.
        """
        split = getattr(getattr(self.trainer, "datamodule", None), "split", None)
        needed = self.hparams["selective"] > 0 and self.hparams["mask"] != "none"
        return split("train") if needed and split is not None else None

    def on_train_epoch_start(self) -> None:
        """Compute the saliency of the training images where it is due.

        A run that is resumed in the middle of an epoch brings it along.
        """
        super().on_train_epoch_start()
        since = self.current_epoch - int(self.hparams["warmup"])
        due = self.current_epoch - since % int(self.hparams["refresh"])
        data = self.training_set()
        if data is None or since < 0 or self.cache.epoch == due:
            return
        module: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        copy_first_rank(self.network.buffers())  # batch statistics differ, and a map must not depend on who made it
        with self.inference():
            self.cache.refresh(
                data,
                self.perturbation,
                lambda batch: self.transfer_batch_to_device(batch, self.device, 0),
                type(module).collate,
                due,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the saliency of the training images."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["saliency"] = self.cache.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back the saliency of the training images."""
        super().on_load_checkpoint(checkpoint)
        self.cache.load_state(checkpoint.get("saliency") or {})

    # Evaluation ---------------------------------------------------------------------------------------------------

    def surrogates(self) -> list[Model]:
        """The networks that examples are made on, loaded when they are first used.

        Raises:
            BadInput: if one has other classes or takes other images.
        """
        if self._surrogates is None:
            options = self.hparams
            with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
                self._surrogates = [
                    find_classifier(
                        name, None, options["num_classes"], options["channels"], "surrogates", options["class_names"]
                    )
                    for name in options["surrogates"]
                ]
        return [frozen.to(self.device).model for frozen in self._surrogates]

    def attacked(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Adversarial images of an evaluation: those made on surrogates, or one of the base."""
        x, y = batch["image"], batch["label"]
        common: dict[str, Any] = {"eps": float(self.hparams["eps"]), "index": batch["index"], "check": False}
        if name == "mi-ensemble":
            return mi_fgsm(self.surrogates(), x, y, **common)
        if name in TRANSFERRED:
            return transfer(self, x, y, surrogates=self.surrogates(), attack=TRANSFERRED[name], **common)
        return super().attacked(name, batch)

    def test_scores(self) -> dict[str, Metric]:
        """Those of the base, of the logits' slope, and of maps if asked for."""
        names = [*LINEAR]
        if self.hparams["test_maps"]:
            names += [*MAPS, *(ATTACKED_MAPS if self.hparams["surrogates"] else ())]
        return {**super().test_scores(), **{name: MeanMetric() for name in names}}

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """What the base scores; in a test also slope and maps, these also on examples of the ensemble of surrogates."""
        super().evaluate_step(stage, batch)
        if stage != "test":
            return
        x = batch["image"]
        measured = linear_scores(self, x, batch["label"])
        if self.hparams["test_maps"]:
            attacked = self.attacked("mi-ensemble", batch) if self.hparams["surrogates"] else None
            options = {"spacing": int(self.hparams["spacing"]), "fill": self.hparams["fill"]}
            measured |= map_scores(self, x, batch["index"], attacked, **options)
        for name, values in measured.items():
            self.scores.update(stage, name, values)

    # Use ----------------------------------------------------------------------------------------------------------

    def explain(
        self, inputs: Any, target: int | Sequence[int] | Tensor | None = None, kind: str = "gradient"
    ) -> Tensor:
        """Which pixels the answer depends on, as maps (N, H, W) in [0, 1].

        Args:
            inputs: what `predict` takes: a path, picture, array or tensor, or several.
            target: class that is explained, one for all inputs or one each; None: the predicted one.
            kind: `gradient`, |d log p/dx| of that class, the largest of the channels; or `perturbation`, the change of
                the whole answer where a place is replaced, for which there is no target.

        Raises:
            BadInput: if inputs or target cannot be used.
        """
        checks.one_of("kind", kind, EXPLANATIONS)
        if kind == "perturbation" and target is not None:
            raise BadInput("target: a perturbation map is of the whole answer; use kind='gradient', or leave it out.")
        batch = self.transfer_batch_to_device(self.make_batch(self.split_inputs(inputs)), self.device, 0)
        x = batch["image"]
        if kind == "perturbation":
            return enlarged(self.perturbation(x), (x.shape[2], x.shape[3]))
        with self.inference():
            label = self(x).argmax(1)
        chosen = label if target is None else torch.as_tensor(target, device=x.device)
        count = int(self.hparams["num_classes"])
        if chosen.dtype != torch.int64 or chosen.ndim > 1 or (chosen.ndim == 1 and len(chosen) != len(x)):
            raise BadInput(f"target: expected one class or {len(x)} of them, got {str(target)[:60]}.")
        if not bool(((chosen >= 0) & (chosen < count)).all()):
            raise BadInput(f"target: expected classes from 0 to {count - 1}, got {str(target)[:60]}.")
        return scaled(gradient_saliency(self, x, chosen.expand(len(x)).clone()))

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """The input with the probabilities of its likeliest classes, beside the gradient's map of the answer."""
        from zoo.methods.j_sigr.pictures import beside

        maps = self.explain([inputs], int(result["label"]))[0]
        return beside(super().show(inputs, result), np.asarray(maps.cpu()))
