"""The network and its adversarial training as a Lightning module; the paper stands in `zoo.methods.robust_wrn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from zoo import checks
from zoo.base.adversarial_classifier import CRITERIA, AdversarialClassifier
from zoo.methods.robust_wrn.lipschitz import local_lipschitz
from zoo.methods.robust_wrn.network import CONFIGURATIONS, RobustWideResNet, multiply_adds

__all__ = ["RobustWRN"]


class RobustWRN(AdversarialClassifier):
    """A wide residual network of free widths and depths with adversarial training.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: widths, depths and stem by name, one of `CONFIGURATIONS`: the paper's `34-r`, `34-12`, `34-10`; `a1`;
            for 28x28 pictures `16-1`, `16-r`, `16-r-macs`, `16-narrow-last`, `16-anti-r`, `16-1.5` and others.
        widths: channels of the stem and of each stage, in place of the name's.
        depths: blocks of each stage, in place of the name's.
        strides: of the first block of each stage; None: 1, then 2.
        stem_stride: of the first convolution, in place of the name's.
        stem: `cifar` (3x3), or `imagenet` (7x7 with stride 2 and max-pooling, for 224x224).
        activation: `relu`, `silu`, `swish`, `mish`, `gelu`, `prelu`, `leaky-relu` or `sine`.
        dropout: of each stage, in [0, 1); None for none.
        criterion: `sat`, `trades`, `mart`, or `natural` for training without an attack.
        beta: weight of the KL term of trades and mart.
        eps: radius of the perturbation in the maximum norm, in units of pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: number of steps of the training attack.
        ce_start: where the training attack of sat and mart starts: `gaussian` (standard deviation: the step), as in the
            paper's code, `uniform` or `none`.
        kl_start: where that of trades starts: `gaussian` (standard deviation 0.001), `uniform` or `none`.
        eval_start: where PGD of validation and test starts: `uniform`, `gaussian` or `none`.
        eps_warmup: epochs in which eps (and the step) rise; the paper's code has a fifth of them, switched off.
        warmup_shape: `linear`, or `cosine` as in the paper's code.
        warmup_from: eps at the beginning of the rise; 2/255 in the paper's code.
        eval_steps: steps of the PGD of validation and test, of size eps / 10.
        test_attacks: what `test` measures; of `fgsm`, `pgd`, `cw` (30 steps), `apgd-ce`, `apgd-dlr` (50 steps).
        lr: learning rate.
        momentum: of SGD.
        weight_decay: on all parameters.
        head_weight_decay: of the last layer, if it has its own (0.01 in the paper's code, switched off).
        schedule: `shares` (a tenth after each share of the epochs), `steps` (after each epoch given) or `cosine`.
        milestones: shares of the epochs, or epochs.
        mean: mean of each channel, for a normalisation inside the network; None for none, as in the paper.
        std: standard deviation of each channel; None if `mean` is.
        channels_last: memory layout of images and convolutions; faster on most machines (not used for the narrowest
            networks, see `layout_of`).
    """

    takes_mixed_labels = True
    """Whether labels may be distributions, of images that `cutmix` of the data has mixed."""

    logged: ClassVar[tuple[str, ...]] = (*AdversarialClassifier.logged, "lipschitz", "lipschitz_kl")

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "34-r",
        widths: list[int] | None = None,
        depths: list[int] | None = None,
        strides: list[int] | None = None,
        stem_stride: int | None = None,
        stem: str = "cifar",
        activation: str = "relu",
        dropout: list[float] | None = None,
        criterion: str = "trades",
        beta: float = 6.0,
        eps: float = 8 / 255,
        attack_step: float = 2 / 255,
        attack_steps: int = 10,
        ce_start: str = "gaussian",
        kl_start: str = "gaussian",
        eval_start: str = "uniform",
        eps_warmup: float = 0.0,
        warmup_shape: str = "linear",
        warmup_from: float = 0.0,
        eval_steps: int = 20,
        test_attacks: Sequence[str] = ("pgd", "cw"),
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 2e-4,
        head_weight_decay: float | None = None,
        schedule: str = "shares",
        milestones: Sequence[float] = (0.75, 0.9),
        mean: list[float] | None = None,
        std: list[float] | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        checks.one_of("criterion", criterion, CRITERIA)
        checks.at_least("beta", beta, 0)
        checks.at_least("head_weight_decay", head_weight_decay or 0, 0)

    # The network --------------------------------------------------------------------------------------------------

    def make_network(self) -> nn.Module:
        """Build the network from its name and what replaces parts of it."""
        options = self.hparams
        checks.one_of("network", options["network"], CONFIGURATIONS)
        named = CONFIGURATIONS[options["network"]]
        depths = named.depths if options["depths"] is None else options["depths"]
        return RobustWideResNet(
            options["num_classes"],
            options["channels"],
            named.widths if options["widths"] is None else options["widths"],
            depths,
            [1, *[2] * (len(depths) - 1)] if options["strides"] is None else options["strides"],
            named.stem_stride if options["stem_stride"] is None else options["stem_stride"],
            options["stem"],
            options["activation"],
            [0.0] * len(depths) if options["dropout"] is None else options["dropout"],
        )

    def operations(self) -> int:
        """Multiply-adds of the network for one image of `img_size`."""
        side = int(self.hparams["img_size"])
        return multiply_adds(self.network, (int(self.hparams["channels"]), side, side))

    # The method ---------------------------------------------------------------------------------------------------

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """The criterion on a batch; arguments as in `AdversarialClassifier.loss`."""
        return self.criterion(self.hparams["criterion"], x, y, index, share)

    def local_lipschitz(self, x: Tensor, x_adv: Tensor, distance: str = "l1") -> Tensor:
        """L(x) (N,) of some images, see `zoo.methods.robust_wrn.lipschitz`; in evaluation mode, without gradients.

        Args:
            x: (N, C, H, W) images in [0, 1].
            x_adv: the same, attacked.
            distance: `l1` of the logits, or `kl` of the probabilities.
        """
        with self.inference(), torch.no_grad():
            return local_lipschitz(self.logits(x), self.logits(x_adv), x, x_adv, distance)

    # Evaluation ---------------------------------------------------------------------------------------------------

    def test_scores(self) -> dict[str, Metric]:
        """The local Lipschitz constant under PGD as well, if that is measured."""
        probe = ("lipschitz", "lipschitz_kl") if "pgd" in self.hparams["test_attacks"] else ()
        return {**super().test_scores(), **{name: MeanMetric() for name in probe}}

    def observe(
        self, stage: str, name: str, batch: dict[str, Any], x_adv: Tensor, logits: tuple[Tensor, Tensor]
    ) -> None:
        """Measure the local Lipschitz constant under PGD."""
        if stage == "test" and name == "pgd":
            for score, distance in (("lipschitz", "l1"), ("lipschitz_kl", "kl")):
                self.scores.update(stage, score, local_lipschitz(*logits, batch["image"], x_adv, distance))
