"""The classifier and its training as a Lightning module; the paper and its equations stand in `zoo.methods.cas`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from zoo import checks
from zoo.base.adversarial_classifier import CRITERIA, TESTS, AdversarialClassifier
from zoo.methods.cas.activity import NAMES, ChannelActivity
from zoo.methods.cas.suppression import ChannelSuppression, Choice, places_of, predicted
from zoo.methods.cas.suppression import suppress as suppress_channels
from zoo.nn import adversarial_losses as losses
from zoo.nn.attacks import Objective, attack_mode, objective, pgd
from zoo.nn.classifiers import head_of

__all__ = ["CAS"]


class CAS(AdversarialClassifier):
    """A classifier with channel-wise activation suppressing, adversarially trained.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: name of the classifier in `zoo.nn.classifiers` (`cifar-resnet18`, `cifar-vgg16`, `wrn34-10`, ...).
        suppress: names of the layers whose inputs are suppressed; None: those of the paper; an empty list: none, which
            is the plain network of the comparison.
        aux_weight: b_c, weight of the auxiliary losses, in training and in the attack of the training.
        criterion: `sat`, `trades`, `mart`, or `natural`.
        beta: weight of the KL term of trades (4 in the paper) and mart (5).
        mean: mean of each channel, for a normalisation inside the network; None for none, as in the paper.
        std: standard deviation of each channel; None if `mean` is.
        eps: radius of the perturbation in the maximum norm, in units of pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: number of steps of the training attack.
        eps_warmup: epochs in which eps (and the step) rise linearly from 0.
        eval_steps: steps of the PGD of validation and test, of size eps / 10 from a uniform start.
        test_attacks: what `test` measures; of `fgsm`, `pgd`, `cw` (30 steps), `apgd-ce`, `apgd-dlr` (50 steps), and
            `joint`, the paper's: PGD on the final and the auxiliary losses together.
        lr: learning rate.
        momentum: of SGD.
        weight_decay: on all parameters, those of the suppression too.
        schedule: `steps` (a tenth after each milestone) or `cosine` to zero.
        milestones: epochs.
        channels_last: memory layout of images and convolutions; faster on most machines.
    """

    tests = (*TESTS, "joint")
    validation_attack = (
        "joint"  # PGD on the answer alone is misled by the masks, and would choose what misleads it most
    )
    logged: ClassVar[tuple[str, ...]] = (
        "loss",
        "accuracy",
        "robust",
        *(f"robust_{name}" for name in tests),
        "agreement",
        *NAMES,
    )
    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {"aux_weight": (0, 1e6), "beta": (0, 1e6)}

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "cifar-resnet18",
        suppress: list[str] | None = None,
        aux_weight: float = 2.0,
        criterion: str = "sat",
        beta: float = 4.0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        eps: float = 8 / 255,
        attack_step: float = 2 / 255,
        attack_steps: int = 10,
        eps_warmup: float = 0.0,
        eval_steps: int = 20,
        test_attacks: Sequence[str] = ("pgd", "joint"),
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        schedule: str = "steps",
        milestones: Sequence[int] = (75, 90),
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        checks.one_of("criterion", criterion, CRITERIA)
        layers = places_of(self.network) if suppress is None else suppress
        self.suppressions = suppress_channels(self.network, layers, num_classes, (channels, img_size, img_size))

    def roles(self) -> dict[str, str]:
        """The auxiliary classifiers depend on the number of classes, as the head does."""
        return {**super().roles(), "suppressions": "head"}

    # The method ---------------------------------------------------------------------------------------------------

    @contextmanager
    def masks(self, choose: Choice | Sequence[Choice] = predicted) -> Iterator[list[Tensor]]:
        """Choose the masks of this thread's passes inside, and hear their auxiliary logits.

        Args:
            choose: (auxiliary logits (N, K), weights (K, C)) -> mask (N, C); one for all places, or one for each.
        """
        heard: list[Tensor] = []
        thread, parts = get_ident(), [part for part in self.suppressions if isinstance(part, ChannelSuppression)]
        former = [part.listeners.get(thread) for part in parts]
        choices = choose if isinstance(choose, Sequence) else [choose] * len(parts)
        try:
            for part, choice in zip(parts, choices, strict=True):
                part.listeners[thread] = choice, heard
            yield heard
        finally:
            for part, listener in zip(parts, former, strict=True):
                del part.listeners[thread]
                if listener is not None:
                    part.listeners[thread] = listener

    def heads(self, x: Tensor, choose: Choice = predicted) -> list[Tensor]:
        """Final logits z and auxiliary logits a_1 ... a_S, each (N, K), of images x (N, C, H, W)."""
        with self.masks(choose) as heard:
            z = self.logits(x)
        return [z, *(a.float() for a in heard)]

    def forward_train(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Final logits (N, K) and S auxiliary ones, through the masks of the labels y (N,): for training only.

        `forward` never sees a label.
        """
        z, *auxiliary = self.heads(x, lambda _, weight: weight[y])
        return z, auxiliary

    def over_heads(self, values: Sequence[Tensor]) -> Tensor:
        """l(z) + b_c / S sum_s l(a_s), of a value for the final and for each auxiliary head."""
        main, *auxiliary = values
        if not auxiliary:
            return main
        return main + float(self.hparams["aux_weight"]) * torch.stack(auxiliary).mean(0)

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """L of a batch; arguments as in `AdversarialClassifier.loss`. The network sees x' before x."""
        name, beta = self.hparams["criterion"], float(self.hparams["beta"])

        def heads(images: Tensor) -> list[Tensor]:
            z, auxiliary = self.forward_train(images, y)
            return [z, *auxiliary]

        if name == "natural":
            return self.over_heads([losses.natural(z, y) for z in heads(x)])
        x_adv = self.worst_case(x, y, "kl" if name == "trades" else "ce", index, share)
        attacked = heads(x_adv)
        if name == "sat":
            return self.over_heads([losses.sat(z, y) for z in attacked])
        pairs = list(zip(heads(x), attacked, strict=True))
        if name == "trades":
            return self.over_heads([losses.trades(z, z_adv, y, beta) for z, z_adv in pairs])
        doubt = losses.doubt(pairs[0][0], y)  # of the final logits, also for the auxiliary ones
        return self.over_heads([losses.mart(z, z_adv, y, beta, doubt) for z, z_adv in pairs])

    def worst_case(
        self, x: Tensor, y: Tensor, loss: str = "ce", index: Tensor | None = None, share: float = 1.0
    ) -> Tensor:
        """X' (N, C, H, W), where the joint loss is largest, through the masks of the predicted classes.

        Args:
            x: (N, C, H, W) clean images.
            y: (N,) labels.
            loss: `ce`, or `kl` from the network's own probabilities on x.
            index: (N,) identity of the samples.
            share: of eps, during warm-up.
        """
        target = y
        start: dict[str, Any] = {}
        if loss == "kl":
            start = {"start": "gaussian", "noise": 0.001}
            with attack_mode(self), torch.no_grad():
                target = torch.stack([z.softmax(1) for z in self.heads(x)], 1)
        return self.attack(x, target, self.joint(loss), index, share, model=self.joint_logits, **start)

    def joint_logits(self, x: Tensor) -> Tensor:
        """Logits (N, (1 + S) K) of all heads of images x, through the masks of the predicted classes."""
        return torch.cat(self.heads(x), 1)

    def joint(self, loss: str | Objective, weight: float | None = None) -> Objective:
        """What an attack on `joint_logits` increases: the loss of the final plus b_c times that of the auxiliary heads.

        Args:
            loss: name or function of `zoo.nn.attacks`.
            weight: in place of b_c.
        """
        each, count = objective(loss), int(self.hparams["num_classes"])
        factor = float(self.hparams["aux_weight"]) if weight is None else weight

        def value(logits: Tensor, target: Tensor) -> Tensor:
            parts = torch.split(logits, count, 1)
            targets = target.unbind(1) if target.is_floating_point() else [target] * len(parts)
            main, *auxiliary = (each(z, t) for z, t in zip(parts, targets, strict=True))
            return main + factor * torch.stack(auxiliary).mean(0) if auxiliary else main

        return value

    # Evaluation ---------------------------------------------------------------------------------------------------

    def attacked(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Adversarial images of an evaluation: `joint`, or one of the base."""
        if name != "joint":
            return super().attacked(name, batch)
        eps = float(self.hparams["eps"])
        options: dict[str, Any] = {"eps": eps, "step": eps / 10, "steps": int(self.hparams["eval_steps"])}
        options |= {"loss": self.joint("ce"), "index": batch["index"], "check": False}
        return pgd(self.joint_logits, batch["image"], batch["label"], **options)

    def test_scores(self) -> dict[str, Metric]:
        """Those of the base, agreement of the heads, and, if the joint attack is measured, the activity of channels."""
        scores: dict[str, Metric] = {**super().test_scores(), "agreement": MeanMetric()}
        if "joint" in self.hparams["test_attacks"]:
            scores["activity"] = ChannelActivity(int(self.hparams["num_classes"]))
        return scores

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """What the base scores; in a test also how the heads agree."""
        super().evaluate_step(stage, batch)
        if stage == "test":
            z, *auxiliary = self.heads(batch["image"])
            self.scores.update(stage, "agreement", _agree(z, auxiliary).float())

    def observe(
        self, stage: str, name: str, batch: dict[str, Any], x_adv: Tensor, logits: tuple[Tensor, Tensor]
    ) -> None:
        """Which channels are active under the joint attack, which the masks do not mislead."""
        if stage == "test" and name == "joint":
            maps = [self.last_channels(x) for x in (batch["image"], x_adv)]
            self.scores.update(stage, "activity", *maps, batch["label"])

    def last_channels(self, x: Tensor) -> Tensor:
        """Channels (N, C) of images x that the last layer takes: spatial means, suppressed where that is its place."""
        seen: list[Tensor] = []
        layer = self.network.get_submodule(head_of(self.network))
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self(x)
        finally:
            hook.remove()
        return seen[0].flatten(2).mean(2) if seen[0].ndim > 2 else seen[0]

    # Prediction ---------------------------------------------------------------------------------------------------

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Results of a batch: those of the base, and of the auxiliary heads.

        Returns:
            logits and probs (N, K), label (N,), name (N strings), aux_labels (N, S): the class of each mask, and
            agreement (N,) bool: whether all of these are the label.
        """
        with self.masks() as heard:
            results = super().predict_step(batch, batch_idx)
        z = results["logits"]
        labels = [a.argmax(1) for a in heard]
        results["aux_labels"] = torch.stack(labels, 1) if labels else z.new_zeros((len(z), 0), dtype=torch.long)
        return {**results, "agreement": _agree(z, heard)}


def _agree(z: Tensor, auxiliary: Sequence[Tensor]) -> Tensor:
    """Whether all heads say the same class (N,)."""
    label = z.argmax(1)
    same = torch.ones_like(label, dtype=torch.bool)
    for a in auxiliary:
        same &= a.argmax(1) == label
    return same
