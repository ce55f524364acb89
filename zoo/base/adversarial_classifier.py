"""What classifiers share that are trained against adversarial examples: the attack, criteria, evaluation, optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from zoo import checks
from zoo.base.image_classifier import ImageClassifier
from zoo.base.modes import frozen_parameters, is_under
from zoo.base.module import Scores, every_step, trained_steps
from zoo.errors import BadInput
from zoo.nn import adversarial_losses as losses
from zoo.nn.attacks import Model, Objective, apgd, attack_mode, cw_margin, fgsm, pgd

__all__ = ["CRITERIA", "SHAPES", "STARTS", "TESTS", "AdversarialClassifier", "warmup_share"]

CRITERIA = ("sat", "trades", "mart", "natural")
"""What `AdversarialClassifier.criterion` computes; equations in `adversarial_losses`."""

TESTS = ("fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr")
"""Attacks of evaluation; for a full battery see `zoo.evaluate_robustness`."""

SCHEDULES = ("steps", "shares", "cosine")

STARTS = ("uniform", "gaussian", "none")
"""Where an attack starts: a uniform point of the ball, the image plus Gaussian noise, the image itself."""

SHAPES = ("linear", "cosine")
"""How the radius rises during warm-up."""


class AdversarialClassifier(ImageClassifier):
    """Base of classifiers that are trained against, and evaluated under, perturbations of bounded maximum norm.

    A subclass has, besides those of `ImageClassifier`, these hyper-parameters:

    - `eps`, `attack_step`, `attack_steps`: radius, step size and steps of the training attack, for pixels in [0, 1];
    - `eps_warmup`: epochs in which radius and step rise linearly from 0;
    - if it wants them, `warmup_shape` (`linear` or `cosine`) and `warmup_from`, the radius at the beginning;
    - if it wants them, `ce_start` and `kl_start`: where training attacks on cross-entropy and on the KL start
      (`STARTS`), and `eval_start`: where those of evaluation do;
    - `eval_steps`: steps of the PGD of validation and test, of size eps / 10 from a uniform start;
    - `test_attacks`: names of `tests` that `test` measures;
    - `lr`, `momentum`, `weight_decay`, `schedule` (`steps`, `shares` or `cosine`), `milestones`: of SGD; with `shares`
      the milestones are shares of the epochs; if it wants it, `head_weight_decay` of the layer of the classes;
    - `beta`: weight of the KL term, if it uses `trades` or `mart`.

    It implements `loss`, in the simplest case by `return self.criterion("trades", x, y, index, share)`. Logged: loss
    and accuracy on clean images; `robust`, the share of images that are right without an attack and under each one;
    and in a test `robust_NAME` under each attack alone.
    """

    tests: ClassVar[tuple[str, ...]] = TESTS
    """Names that `test_attacks` may hold; a subclass that adds to them knows them in `attacked`."""

    schedules: ClassVar[tuple[str, ...]] = SCHEDULES
    """What `schedule` may be; a subclass without `milestones` has no `shares`."""

    validation_attack: ClassVar[str] = "pgd"
    """The one of `tests` whose examples validation scores."""

    monitor = ("val/robust", "max")
    logged: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "robust", "mean", *(f"robust_{name}" for name in TESTS))

    def __init__(self) -> None:
        super().__init__()
        self._check_attacks()
        self.scores = Scores(self.test_scores(), accuracy=self.accuracy(), robust=self.accuracy())

    def _check_attacks(self) -> None:
        options = self.hparams
        checks.one_of("schedule", options["schedule"], self.schedules)
        if not options["test_attacks"]:
            raise BadInput(
                f"test_attacks: expected at least one of {', '.join(self.tests)}; without one the test would call "
                "the accuracy on clean images robust."
            )
        for name in options["test_attacks"]:
            checks.one_of("test_attacks", name, self.tests)
        eps = options["eps"]
        if not 0 < eps <= 1:
            hint = f" Is {eps:g}/255 = {eps / 255:.4g} meant?" if 1 < eps <= 255 else ""
            raise BadInput(f"eps: expected a radius in (0, 1], since pixels are in [0, 1]; got {eps:g}.{hint}")
        for name, lowest in (("attack_steps", 0), ("attack_step", 0), ("eps_warmup", 0), ("eval_steps", 1)):
            checks.at_least(name, options[name], lowest)
        for name, allowed in (("ce_start", STARTS), ("kl_start", STARTS), ("eval_start", STARTS)):
            if name in options:
                checks.one_of(name, options[name], allowed)
        checks.one_of("warmup_shape", options.get("warmup_shape", "linear"), SHAPES)
        if not 0 <= options.get("warmup_from", 0.0) <= eps:
            raise BadInput(f"warmup_from: expected a radius from 0 to eps ({eps:g}), got {options['warmup_from']:g}.")
        if options["schedule"] == "shares":
            for milestone in options["milestones"]:
                if not 0 < milestone <= 1:
                    raise BadInput(f"milestones: expected shares of the epochs in (0, 1], got {milestone:g}.")

    # Training -----------------------------------------------------------------------------------------------------

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """Loss of a batch, a scalar; the network is in training mode.

        Args:
            x: (N, C, H, W) clean images in [0, 1].
            y: (N,) labels.
            index: (N,) identity of the samples, to which the attack's start belongs.
            share: of eps, in [0, 1]; below 1 during warm-up.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement loss()")

    def attack(
        self,
        x: Tensor,
        target: Tensor,
        loss: str | Objective,
        index: Tensor | None = None,
        share: float = 1.0,
        *,
        model: Model | None = None,
        **options: Any,
    ) -> Tensor:
        """Inner maximisation by projected gradient ascent, the network in evaluation mode, its parameters frozen.

        By default KL starts from Gaussian noise of standard deviation 0.001, everything else from a uniform point of
        the ball. Where `ce_start` is `gaussian`, the standard deviation is the step.

        Args:
            x: (N, C, H, W) clean images.
            target: p (N, K) for `kl`, labels (N,) for `ce`, or what the function takes.
            loss: what is increased: a name of `zoo.nn.attacks`, or a function (logits, target) -> (N,).
            index: (N,) identity of the samples, to which the start belongs.
            share: of eps and of the step, during warm-up.
            model: what returns the logits, in place of `forward`: another method of this module, such as one that adds
                those of auxiliary heads.
            options: others of `zoo.nn.attacks.pgd`, such as `start` or `noise`.

        Returns:
            x' (N, C, H, W), detached.
        """
        eps, step = (share * float(self.hparams[name]) for name in ("eps", "attack_step"))
        given = {name: self.hparams.get(f"{name}_start") for name in ("kl", "ce")}
        usual: dict[str, Any] = {
            "start": given["kl"] or "gaussian" if loss == "kl" else given["ce"] or "uniform",
            "noise": 0.001 if loss == "kl" else step,
            "seed": int(torch.randint(2**31, ())),  # of the host's generator, which exact resume restores
            "check": self._trainer is None or self.global_step == 0,  # range and logits: it costs a synchronisation
            "steps": self.hparams["attack_steps"],
        }
        with frozen_parameters(self):  # what a gradient of weights would need is not kept, which saves memory and time
            return pgd(model or self, x, target, eps=eps, step=step, loss=loss, index=index, **{**usual, **options})

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) in single precision."""
        return self(x).float()  # type: ignore[no-any-return]

    def probabilities(self, x: Tensor, model: Model | None = None) -> Tensor:
        """p_S(x) (N, K) of the network in evaluation mode, without gradients: a target of the attack."""
        with attack_mode(self), torch.no_grad():
            return (model or self)(x).float().softmax(1)

    def criterion(
        self,
        name: str,
        x: Tensor,
        y: Tensor,
        index: Tensor | None = None,
        share: float = 1.0,
        *,
        model: Model | None = None,
        beta: float | None = None,
    ) -> Tensor:
        """One of `CRITERIA`, with its own attack. The network sees x' before x, in training mode.

        `trades` attacks the KL from the network's own probabilities on x; `sat` and `mart` attack cross-entropy. Labels
        may be distributions (N, K), of mixed images, but for `mart`.

        Args:
            name: one of `CRITERIA`.
            x: as in `loss`, with `y`, `index` and `share`.
            y: see x.
            index: see x.
            share: see x.
            model: what is trained and attacked, in place of `forward`: another method of this module, such as one head.
            beta: in place of the hyper-parameter.
        """
        checks.one_of("criterion", name, CRITERIA)
        if name == "mart" and y.is_floating_point():
            raise BadInput("mart needs one label for each image: set cutmix of the data to 0.")
        network = model or self
        if name == "natural":
            return losses.natural(network(x).float(), y)
        if name == "trades":
            x_adv = self.attack(x, self.probabilities(x, model), "kl", index, share, model=model)
        else:
            x_adv = self.attack(x, y, "ce", index, share, model=model)
        z_adv = network(x_adv).float()
        if name == "sat":
            return losses.sat(z_adv, y)
        z, beta = network(x).float(), float(self.hparams["beta"] if beta is None else beta)
        return losses.trades(z, z_adv, y, beta) if name == "trades" else losses.mart(z, z_adv, y, beta)

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Loss of a batch; logs `train/loss`."""
        share = self.attack_share(batch_idx)
        label = batch.get("mixed", batch["label"])  # of mixed images, the distribution of their labels
        loss = self.loss(self.lay_out(batch["image"]), label, batch["index"], share)
        if self._trainer is not None:
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["index"]))
        return loss

    def epochs_done(self, batch_idx: int) -> float:
        """Epochs of training before a step, with the part of the current one; without a trainer, all of them."""
        if self._trainer is None:
            return math.inf
        return float(self.current_epoch + batch_idx / self.trainer.num_training_batches)

    def attack_share(self, batch_idx: int) -> float:
        """Share of the radius that the training attack has in a step, in [0, 1]."""
        warmup, options = self.hparams["eps_warmup"], self.hparams
        if warmup <= 0 or self._trainer is None:
            return 1.0
        begin = options.get("warmup_from", 0.0) / options["eps"]
        share = min(1.0, self.epochs_done(batch_idx) / warmup)
        return warmup_share(share, begin, options.get("warmup_shape", "linear"))

    def configure_optimizers(self) -> Any:
        """SGD with momentum and weight decay on all parameters; a tenth after each milestone, or a cosine to 0."""
        options = self.hparams
        optimizer = torch.optim.SGD(
            self.parameter_groups(),
            lr=options["lr"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
        )
        if options["schedule"] != "cosine":
            milestones, epochs = self.milestones()
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.1)
            return ([optimizer], [schedule]) if epochs else every_step(schedule)
        return every_step(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trained_steps(self.trainer)))

    def parameter_groups(self) -> list[Any]:
        """Trained parameters for the optimiser, those of the classes by themselves if they have their own decay."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        decay = self.hparams.get("head_weight_decay")
        if decay is None:
            return list(trained.values())
        heads = [prefix for prefix, role in self.roles().items() if role == "head"]
        head = [name for name in trained if any(is_under(name, prefix) for prefix in heads)]
        groups = [
            {"params": [p for name, p in trained.items() if name not in head]},
            {"params": [trained[name] for name in head], "weight_decay": decay},
        ]
        return [group for group in groups if group["params"]]

    def milestones(self) -> tuple[list[int], bool]:
        """When the learning rate falls, and whether that counts epochs (from 0) rather than steps.

        Shares of a run that is limited by steps alone are those of its steps.

        Raises:
            InvalidConfig: for shares of a run without end.
        """
        given, epochs = list(self.hparams["milestones"]), self.trainer.max_epochs
        if self.hparams["schedule"] == "steps":
            return given, True
        limited = epochs is not None and epochs > 0
        length = epochs if limited else trained_steps(self.trainer)
        return [math.ceil(share * length - 1e-9) for share in given], limited

    # Evaluation ---------------------------------------------------------------------------------------------------

    def test_scores(self) -> dict[str, Metric]:
        """What only a test measures; a subclass adds its own. `mean` is that of clean and robust accuracy."""
        return {name: self.accuracy() for name in ("mean", *(f"robust_{a}" for a in self.hparams["test_attacks"]))}

    def attacked(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Adversarial images of an evaluation; the start belongs to the sample, so batches do not matter.

        Args:
            name: one of `tests`.
            batch: with `image`, `label` and `index`.
        """
        eps = float(self.hparams["eps"])
        common: dict[str, Any] = {"eps": eps, "index": batch["index"], "check": False}
        x, y = batch["image"], batch["label"]
        if name == "fgsm":
            return fgsm(self, x, y, **common)
        if name == "cw":
            return cw_margin(self, x, y, step=eps / 10, **common)
        if name.startswith("apgd"):
            return apgd(self, x, y, steps=50, loss=name.removeprefix("apgd-"), **common)
        start = self.hparams.get("eval_start", "uniform")
        return pgd(self, x, y, step=eps / 10, steps=int(self.hparams["eval_steps"]), start=start, **common)

    def observe(
        self, stage: str, name: str, batch: dict[str, Any], x_adv: Tensor, logits: tuple[Tensor, Tensor]
    ) -> None:
        """Measure more than labels of an attack in an evaluation; here nothing.

        Args:
            stage: `val` or `test`.
            name: of the attack.
            batch: with `image` and `label`.
            x_adv: x' (N, C, H, W).
            logits: (N, K) on x and on x'.
        """

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score clean images, PGD (in a test each of `test_attacks`), and the worst case over all of these."""
        x, y = batch["image"], batch["label"]
        logits = self.logits(x)
        self.scores.update_loss(stage, F.cross_entropy(logits, y), len(batch["index"]))
        clean = worst = logits.argmax(1)
        self.scores.update(stage, "accuracy", clean, y)
        attacks: Sequence[str] = self.hparams["test_attacks"] if stage == "test" else (self.validation_attack,)
        for name in attacks:
            x_adv = self.attacked(name, batch)
            z_adv = self(x_adv)
            self.observe(stage, name, batch, x_adv, (logits, z_adv.float()))
            label = z_adv.argmax(1)
            if stage == "test":
                self.scores.update(stage, f"robust_{name}", label, y)
            worst = torch.where(worst == y, label, worst)  # right without an attack and under each of them
        self.scores.update(stage, "robust", worst, y)
        if stage == "test":
            self.scores.update(stage, "mean", torch.cat([clean, worst]), torch.cat([y, y]))


def warmup_share(progress: float, begin: float = 0.0, shape: str = "linear") -> float:
    """Share of the radius during warm-up.

    Args:
        progress: of the warm-up, in [0, 1].
        begin: share at its beginning.
        shape: `linear`, or `cosine` for begin + (1 - begin) (1 - cos(pi progress)) / 2.
    """
    risen = progress if shape == "linear" else 0.5 * (1 - math.cos(math.pi * progress))
    return begin + (1 - begin) * risen
