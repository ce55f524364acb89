"""The classifier and its training as a Lightning module; the paper and its equations stand in `zoo.methods.dh_at`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo import checks
from zoo.base.adversarial_classifier import CRITERIA, TESTS, AdversarialClassifier
from zoo.base.modes import in_type_of, rest
from zoo.base.module import every_step, trained_steps
from zoo.errors import BadInput
from zoo.methods.dh_at.joint import joint_loss, weights_at
from zoo.methods.dh_at.network import MERGES, DualHead
from zoo.nn.attacks import Model, pgd

__all__ = ["PHASES", "STRATEGIES", "DualHeadAT"]

STRATEGIES = ("staged", "joint", "single")

PHASES = ("main", "second", "merged")
"""What the staged strategy trains, one after the other."""

PARTS = {
    "main": ["network.conv1", "network.block1", "network.main"],
    "second": ["network.second"],
    "merged": ["network.merge"],
}
"""Phase -> what it trains; everything else rests."""

DROPS: dict[str, tuple[float, ...]] = {
    "main": (0.75, 0.9),
    "second": (0.75, 0.9),
    "merged": (25 / 60, 40 / 60, 50 / 60),
}
"""Phase -> shares of its epochs after which the learning rate falls to a tenth."""


class DualHeadAT(AdversarialClassifier):
    """A classifier with two robust heads and a network that merges them.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: a wide residual network of `zoo.nn.classifiers` (`wrn34-10`, ...), which is split behind its first
            stage.
        strategy: `staged`, `joint`, or `single`: the main head alone, for comparison.
        criterion: of the staged strategy: `sat`, `trades` or `mart`.
        merge: `network` (the aggregator) or `mean` of both logits; `main` for the single strategy.
        beta_main: weight of the KL term of the main head.
        beta_second: that of the second head; a lower one is more accurate on clean images.
        beta_merged: that of the aggregator's training.
        phases: how the epochs are shared among main head, second head and aggregator, in any unit.
        joint_weights: b0 to b3 of the joint strategy at its beginning.
        pool_kernel: features that the aggregator averages; None: 2 up to 20 classes, as in the paper, and 16 for more,
            for which its last layer would have millions of weights.
        mean: mean of each channel, for a normalisation inside the network; None for none, as in the paper.
        std: standard deviation of each channel; None if `mean` is.
        eps: radius of the perturbation in the maximum norm, in units of pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: number of steps of the training attack.
        eps_warmup: epochs in which eps (and the step) rise linearly from 0.
        eval_steps: steps of the PGD of validation and test, of size eps / 10 from a uniform start.
        test_attacks: what `test` measures; of `fgsm`, `pgd`, `cw` (30 steps), `apgd-ce`, `apgd-dlr` (50 steps), all on
            the merged logits, and PGD on the logits of a head: `pgd-main`, `pgd-second`, `pgd-sum` (of both).
        lr: learning rate, at the beginning of each phase.
        momentum: of SGD.
        weight_decay: on all parameters that are trained.
        schedule: `steps` (a tenth after fixed shares of each phase, as in the paper) or `cosine` in each phase.
        channels_last: memory layout of images and convolutions; faster on most machines.
    """

    tests = (*TESTS, "pgd-main", "pgd-second", "pgd-sum")
    logged: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "robust", "mean", *(f"robust_{name}" for name in tests))
    schedules = ("steps", "cosine")
    partial_backward = True
    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        **dict.fromkeys(("beta_main", "beta_second", "beta_merged"), (0, 1e6)),
        "pool_kernel": (1, 16),
    }

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "wrn34-10",
        strategy: str = "staged",
        criterion: str = "trades",
        merge: str = "network",
        beta_main: float = 6.0,
        beta_second: float = 3.0,
        beta_merged: float = 3.0,
        phases: Sequence[float] = (100, 100, 60),
        joint_weights: Sequence[float] = (1.0, 1.0, 1.0, 0.1),
        pool_kernel: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        eps: float = 0.031,
        attack_step: float = 0.007,
        attack_steps: int = 10,
        eps_warmup: float = 0.0,
        eval_steps: int = 20,
        test_attacks: Sequence[str] = ("pgd", "pgd-main", "pgd-second", "pgd-sum"),
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 2e-4,
        schedule: str = "steps",
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        checks.one_of("criterion", criterion, [name for name in CRITERIA if name != "natural"])
        if len(phases) != 3 or not all(0 <= part < math.inf for part in phases) or not phases[0] > 0:
            raise BadInput(f"phases: expected three shares of the epochs, the first above 0; got {list(phases)}.")
        if len(joint_weights) != 4 or not all(0 <= weight < math.inf for weight in joint_weights):
            raise BadInput(f"joint_weights: expected four weights from 0 on, b0 to b3; got {list(joint_weights)}.")

    def make_network(self) -> nn.Module:
        """Build both heads and what merges them."""
        options = self.hparams
        checks.one_of("strategy", options["strategy"], STRATEGIES)
        checks.one_of("merge", options["merge"], MERGES)
        wanted = {"single": ("main",), "joint": ("mean",), "staged": ("network", "mean")}[options["strategy"]]
        if options["merge"] not in wanted:
            raise BadInput(
                f"merge: the strategy {options['strategy']!r} takes {' or '.join(wanted)}, got {options['merge']!r}."
            )
        shape = options["num_classes"], options["channels"]
        kernel = options["pool_kernel"] or (2 if options["num_classes"] <= 20 else 16)
        return DualHead(options["network"], *shape, options["merge"], kernel)

    def roles(self) -> dict[str, str]:
        """The last layer of each head and the whole aggregator depend on the number of classes."""
        roles = {key: role for key, role in super().roles().items() if role != "head"}
        return roles | dict.fromkeys(("network.main.fc", "network.second.fc", "network.merge"), "head")

    # The heads ----------------------------------------------------------------------------------------------------

    def forward_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z1, z2 and z (N, K) of images (N, C, H, W): main head, second head, merged."""
        network: Any = self.network
        main, second = network.heads(self._inputs(x))
        return main.float(), second.float(), network.merged(main, second).float()

    def _inputs(self, x: Tensor) -> Tensor:
        """Images as the network takes them, in the type of its parameters."""
        return in_type_of(self.network, self.prepared(x))

    def main_logits(self, x: Tensor) -> Tensor:
        """z1 (N, K)."""
        network: Any = self.network
        return network.main(network.shared(self._inputs(x)))  # type: ignore[no-any-return]

    def second_logits(self, x: Tensor) -> Tensor:
        """z2 (N, K)."""
        network: Any = self.network
        return network.second(network.shared(self._inputs(x)))  # type: ignore[no-any-return]

    def sum_logits(self, x: Tensor) -> Tensor:
        """z1 + z2 (N, K)."""
        main, second, _ = self.forward_heads(x)
        return main + second

    # Training -----------------------------------------------------------------------------------------------------

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """The loss of the current phase, or of the strategy; arguments as in `AdversarialClassifier.loss`."""
        options = self.hparams
        if options["strategy"] == "joint":
            return self.joint(x, y, index, share)
        if options["strategy"] == "single":
            return self.criterion(options["criterion"], x, y, index, share, beta=options["beta_main"])
        phase = self.phase
        model: Model | None = {"main": self.main_logits, "second": self.second_logits}.get(phase)
        return self.criterion(options["criterion"], x, y, index, share, model=model, beta=options[f"beta_{phase}"])

    def joint(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """The joint loss; the attack sees the main head only and starts from noise as wide as eps."""
        eps = share * float(self.hparams["eps"])
        target = self.probabilities(x, self.main_logits)
        start: dict[str, Any] = {"start": "gaussian", "noise": eps}
        x_adv = self.attack(x, target, "kl", index, share, model=self.main_logits, **start)
        (main_adv, second_adv, _), (main, second, _) = self.forward_heads(x_adv), self.forward_heads(x)
        done = 0.0 if self._trainer is None else self.current_epoch / self._epochs()
        weights = weights_at(self.hparams["joint_weights"], done)
        return joint_loss(main, main_adv, second, second_adv, y, weights)

    @property
    def phase(self) -> str:
        """What is trained now; outside of a training everything, through the merged logits."""
        if self._trainer is None:
            return "merged"
        return self.at(self.current_epoch, self._epochs())[0]

    def at(self, epoch: float, epochs: int) -> tuple[str, int, int]:
        """Phase, first epoch of the phase, and first epoch after it."""
        begin = 0
        for phase, end in zip(PHASES, self.ends(epochs), strict=True):
            if epoch < end:
                return phase, begin, end
            begin = end
        return PHASES[-1], begin, epochs

    def ends(self, epochs: int) -> list[int]:
        """Number of epochs after which each phase ends; every phase of a positive share gets at least one.

        Args:
            epochs: of the whole training. Where they are fewer than the phases, the merged logits train everything.
        """
        parts = [float(part) for part in self.hparams["phases"]]
        if self.hparams["merge"] == "mean":
            parts[2] = 0.0  # there is nothing to train
        ends, wanted = [], sum(part > 0 for part in parts)
        if self.hparams["strategy"] != "staged":
            return [epochs] * 3  # the schedule of a head
        if epochs < wanted:
            return [0, 0, epochs]
        done, previous = 0.0, 0
        for part in parts:
            done += part
            wanted -= part > 0
            end = round(epochs * done / sum(parts))
            least = min(previous + (part > 0), epochs)
            previous = min(max(end, least), max(epochs - wanted, least))
            ends.append(previous)
        return ends

    def _epochs(self) -> int:
        """Epochs of the whole training, also where only its steps are limited."""
        epochs = self.trainer.max_epochs
        if epochs is not None and epochs > 0:
            return epochs
        return max(1, math.ceil(trained_steps(self.trainer) / self.trainer.num_training_batches))

    def on_train_start(self) -> None:
        """Warn if there are fewer epochs than phases, which makes it another method."""
        super().on_train_start()
        epochs = self._epochs()
        if self.hparams["strategy"] == "staged" and not self.ends(epochs)[0] and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            warnings.warn(
                f"max_epochs={epochs} is less than one for each of the phases {list(self.hparams['phases'])}: the "
                "merged logits train both heads at once, which is not the staged strategy.",
                stacklevel=2,
            )

    def on_train_epoch_start(self) -> None:
        """Let everything rest that the phase does not train, batch statistics included."""
        if self.hparams["strategy"] == "staged" and self.ends(self._epochs())[0]:
            rest(self, *(p for phase, parts in PARTS.items() if phase != self.phase for p in parts))

    def setup(self, stage: str) -> None:
        """Wake what a training rested that ended by an error: an optimiser would leave it out."""
        rest(self)
        super().setup(stage)

    def on_fit_end(self) -> None:
        """Nothing rests after the training."""
        rest(self)

    def configure_optimizers(self) -> Any:
        """SGD with momentum and weight decay; the schedule begins again with each phase."""
        options = self.hparams
        optimizer = torch.optim.SGD(
            [p for p in self.parameters() if p.requires_grad],
            lr=options["lr"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
        )
        epochs, steps = self._epochs(), trained_steps(self.trainer)

        def factor(step: int) -> float:
            epoch = min(step / steps * epochs, epochs - 1e-9)
            phase, begin, end = self.at(epoch, epochs)
            done = (epoch - begin) / (end - begin)
            if options["schedule"] == "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            return 0.1 ** sum(done >= share - 1e-9 for share in DROPS[phase])  # type: ignore[no-any-return]

        return every_step(torch.optim.lr_scheduler.LambdaLR(optimizer, factor))

    # Evaluation ---------------------------------------------------------------------------------------------------

    def attacked(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Adversarial images of an evaluation: PGD on a head or on the sum of both, or an attack of the base."""
        if not name.startswith("pgd-"):
            return super().attacked(name, batch)
        single = self.hparams["strategy"] == "single"
        model: Model = self.main_logits if single else getattr(self, f"{name.removeprefix('pgd-')}_logits")
        eps = float(self.hparams["eps"])
        options: dict[str, Any] = {"eps": eps, "step": eps / 10, "steps": int(self.hparams["eval_steps"])}
        return pgd(model, batch["image"], batch["label"], index=batch["index"], check=False, **options)

    # Prediction ---------------------------------------------------------------------------------------------------

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Results of a batch: those of the base for the merged logits, and the logits of the heads.

        Returns:
            logits and probs (N, K), label (N,), name (N strings), main_logits and second_logits (N, K).
        """
        main, second, merged = self.forward_heads(batch["image"])
        label, names = merged.argmax(1), self.class_names
        results = {"logits": merged, "probs": merged.softmax(1), "label": label}
        results |= {"name": [names[k] for k in label.tolist()]}  # type: ignore[dict-item]
        return {**results, "main_logits": main, "second_logits": second}
