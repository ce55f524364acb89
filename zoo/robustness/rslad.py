"""RSLAD: a small network learns robustness from the soft labels of a robust one.

Zi, Zhao, Ma, Jiang: "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", ICCV
2021, arXiv 2108.07969. Student S, frozen robust teacher T, p softmax of logits, KL(a || b) = sum_k a_k log(a_k / b_k):

    x'   = argmax over ||x' - x||_inf <= eps of KL(p_T(x) || p_S(x'))   -> RSLAD.attack
    L    = w KL(p_T(x) || p_S(x')) + (1 - w) KL(p_T(x) || p_S(x)),  w = 5/6   -> RSLAD.loss

T sees clean images only and no true label is used. Baselines are the same class with another `method`
(`_rslad_losses.py`):

    sat     CE(S(x'), y)                                                     x' from CE        Madry et al. 2018
    trades  CE(S(x), y) + beta KL(p_S(x) || p_S(x'))                         x' from the KL    Zhang et al. 2019
    ard     (1 - a) CE(S(x), y) + a t^2 KL(p_T(x) || p_S(x'))                x' from CE        Goldblum et al. 2020
    iad     ard, its term + (1 - p_T(y | x')^b) KL(p_S(x) || p_S(x'))        x' from CE        Zhu et al. 2022, IAD-I
    natural CE(S(x), y)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from zoo.base import trained_steps
from zoo.errors import BadInput, InvalidConfig, nearest
from zoo.nn.attacks import apgd, cw_margin, fgsm, pgd
from zoo.nn.classifiers import Normalize, create_classifier, head_of, laid_out, layout_of
from zoo.nn.image_classifier import ImageClassifier
from zoo.robustness._rslad_losses import BASELINES, kl
from zoo.robustness._rslad_teacher import Teacher, find_teacher

__all__ = ["METHODS", "RSLAD", "Teacher", "find_teacher"]

METHODS = ("rslad", *BASELINES)
TAUGHT = ("rslad", "iad", "ard")
HARD = ("none", "clean", "adversarial", "both")
TESTS = ("fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr")
SCHEDULES = ("steps", "cosine")


class RSLAD(ImageClassifier):
    """A classifier with adversarial training and distillation.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: the student, a name of `zoo.nn.classifiers` (`cifar-resnet18`, `resnet10-w8`, `timm/NAME`, ...).
        pretrained: start from timm's weights.
        mean: per channel, for a normalisation inside the network; None for none, as in the paper.
        std: likewise.
        method: `rslad`, or a baseline: `iad`, `ard`, `trades`, `sat`, `natural`.
        teacher: `id:tag`, a folder, a .ckpt or `hf://...`; with `teacher_network`, a file with a state dict. Needed by
            rslad, iad and ard when training starts. In Python any function may be given: `model.teach(function)`.
        teacher_network: name of the network in such a file.
        eps: radius of the perturbation in the maximum norm, in units of pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: its number of steps.
        eps_warmup: epochs in which eps (and the step) rise linearly from 0.
        adversarial_weight: w, share of the adversarial term.
        kl_scale: factor of rslad's loss. The authors average over classes as well, which is 0.1 for ten of them.
        hard: terms of rslad (`clean`, `adversarial`, `both`) whose soft labels are replaced by the true ones.
        beta: weight of the KL term of trades.
        alpha: a, share of the distillation term of ard and iad.
        temperature: t of ard and iad.
        iad_power: b, how quickly iad loses trust in the teacher.
        iad_begin: share of the epochs in which iad trusts it fully.
        eval_steps: steps of the PGD of validation and test, of size eps / 10 from a uniform start.
        test_attacks: what `test` measures; of `fgsm`, `pgd`, `cw` (30 steps), `apgd-ce`, `apgd-dlr` (50 steps).
        lr: learning rate.
        momentum: of SGD.
        weight_decay: on all parameters.
        schedule: `steps` (a tenth after each milestone) or `cosine` to zero.
        milestones: epochs.
        channels_last: memory layout of images and convolutions; faster on most machines (not used for the narrowest
            networks, see `layout_of`).
    """

    task = "image-classification"
    monitor = ("val/robust", "max")
    logged = ("loss", "accuracy", "robust", *(f"robust_{name}" for name in TESTS))
    parameter_roles: ClassVar[dict[str, str]] = {"network.linear": "head", "network.fc": "head"}

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "cifar-resnet18",
        pretrained: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        method: str = "rslad",
        teacher: str | None = None,
        teacher_network: str | None = None,
        eps: float = 8 / 255,
        attack_step: float = 2 / 255,
        attack_steps: int = 10,
        eps_warmup: float = 0.0,
        adversarial_weight: float = 5 / 6,
        kl_scale: float = 0.1,
        hard: str = "none",
        beta: float = 6.0,
        alpha: float = 1.0,
        temperature: float = 1.0,
        iad_power: float = 0.1,
        iad_begin: float = 0.3,
        eval_steps: int = 20,
        test_attacks: Sequence[str] = ("pgd", "cw"),
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 2e-4,
        schedule: str = "steps",
        milestones: Sequence[int] = (215, 260, 285),
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self._check_arguments()
        self.network = create_classifier(network, num_classes, channels, pretrained=pretrained)
        self.parameter_roles = {f"network.{head_of(self.network)}": "head"}  # type: ignore[misc]
        self.normalize = Normalize(mean, std) if mean is not None and std is not None else nn.Identity()
        self.layout = layout_of(self.network, channels_last)
        self.network.to(memory_format=self.layout)
        self.teacher: Teacher | None = None
        self._resumed_teacher: dict[str, str] = {}
        names = ["val_robust", "test_robust", "val_accuracy", "test_accuracy"]
        names += [f"test_robust_{attack}" for attack in test_attacks]
        self.scores = nn.ModuleDict({k: MulticlassAccuracy(num_classes, average="micro") for k in names})
        self.losses = nn.ModuleDict({k: MeanMetric() for k in ("val_loss", "test_loss")})

    def _check_arguments(self) -> None:
        hp = self.hparams
        known = {"method": METHODS, "hard": HARD, "schedule": SCHEDULES}
        for key, values, allowed in (
            *((key, [hp[key]], allowed) for key, allowed in known.items()),
            ("test_attacks", list(hp["test_attacks"]), TESTS),
        ):
            for value in values:
                if value not in allowed:
                    raise BadInput(f"{key}: expected {', '.join(allowed)}; got {value!r}.{nearest(value, allowed)}")
        names, count = hp["class_names"], hp["num_classes"]
        if names is not None and len(names) != count:
            raise BadInput(f"{len(names)} class_names were given for {count} classes.")
        if not 0 < hp["eps"] <= 1:
            hint = f" Is {hp['eps']:g}/255 = {hp['eps'] / 255:.4g} meant?" if 1 < hp["eps"] <= 255 else ""
            raise BadInput(f"eps: expected a radius in (0, 1], since pixels are in [0, 1]; got {hp['eps']:g}.{hint}")
        if hp["attack_steps"] < 0 or hp["eval_steps"] < 1 or hp["attack_step"] < 0:
            raise BadInput("attack_steps and attack_step must be at least 0, and eval_steps at least 1.")
        for key in ("adversarial_weight", "alpha", "iad_begin"):
            if not 0 <= hp[key] <= 1:
                raise BadInput(f"{key} must be in [0, 1], got {hp[key]}.")
        if (hp["mean"] is None) != (hp["std"] is None) or len(hp["mean"] or [0] * hp["channels"]) != hp["channels"]:
            raise BadInput(
                f"mean and std need one value for each of the {hp['channels']} channels, or both be left out."
            )

    # Network ------------------------------------------------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K) of images float (N, C, H, W) in [0, 1]."""
        channels = int(self.hparams["channels"])
        if image.ndim != 4 or image.shape[1] != channels:
            raise BadInput(f"forward takes images (N, {channels}, H, W) in [0, 1], got {tuple(image.shape)}.")
        return self.network(self.normalize(laid_out(image, self.layout)))

    # Teacher ------------------------------------------------------------------------------------------------------

    def teach(self, teacher: Callable[[Tensor], Tensor], name: str = "a function") -> RSLAD:
        """Set the teacher: anything that maps images to logits. A module is frozen and put into evaluation mode."""
        self.teacher = Teacher(teacher, int(self.hparams["num_classes"]), name)
        return self

    def setup(self, stage: str) -> None:
        """Load the teacher when training starts.

        Raises:
            InvalidConfig: if the method needs one and none is named.
        """
        super().setup(stage)
        hp = self.hparams
        if stage != "fit" or hp["method"] not in TAUGHT:
            return
        if self.teacher is None and hp["teacher"] is not None:
            self.teacher = find_teacher(hp["teacher"], hp["teacher_network"], hp["num_classes"], hp["channels"])
        if self.teacher is None:
            self.taught(torch.empty(0))  # says what is missing, before anything is computed

    def on_fit_start(self) -> None:
        """The teacher follows the student to its device; Lightning does not know it.

        Raises:
            InvalidConfig: on resuming, if another teacher is found than the one before.
        """
        super().on_fit_start()
        if self.teacher is None:
            return
        before = self._resumed_teacher.get("sha256")
        if before and before != self.teacher.sha256:
            raise InvalidConfig(
                f"This run was taught by weights with sha256 {before[:16]}; {self.teacher.name} now has "
                f"{self.teacher.sha256[:16] or 'an unknown one'}. Resume with the same teacher, or start anew."
            )
        self.teacher.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the teacher, whose weights are not stored."""
        super().on_save_checkpoint(checkpoint)
        if self.teacher is not None:
            checkpoint["teacher"] = {"name": self.teacher.name, "sha256": self.teacher.sha256}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember who taught; see `on_fit_start`."""
        super().on_load_checkpoint(checkpoint)
        self._resumed_teacher = dict(checkpoint.get("teacher") or {})

    # Training -----------------------------------------------------------------------------------------------------

    def attack(self, x: Tensor, target: Tensor, loss: str, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """Inner maximisation by projected gradient ascent, the student in evaluation mode.

        KL starts from Gaussian noise of standard deviation 0.001, cross-entropy from a uniform point of the ball.

        Args:
            x: (N, C, H, W) clean images.
            target: p (N, K) for `kl`, labels (N,) for `ce`.
            loss: what is increased.
            index: (N,) identity of the samples, to which the start belongs.
            share: of eps, during warm-up.
        """
        hp = self.hparams
        seed = int(torch.randint(2**31, ()))  # of the host's generator, which exact resume restores
        start: Any = "gaussian" if loss == "kl" else "uniform"
        eps, step = share * hp["eps"], share * hp["attack_step"]
        first = self._trainer is None or self.global_step == 0  # checks of range and logits cost a synchronisation each
        options: dict[str, Any] = {"loss": loss, "start": start, "seed": seed, "index": index, "check": first}
        return pgd(self, x, target, eps=eps, step=step, steps=hp["attack_steps"], **options)

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """Loss of a batch, by the chosen method.

        The student sees x' first and x second, in training mode, so that its batch statistics hold both.

        Args:
            x: (N, C, H, W) clean images.
            y: (N,) labels; rslad uses none, unless `hard` says so.
            index: (N,) identity of the samples.
            share: of eps.
        """
        hp = self.hparams
        x = laid_out(x, self.layout)
        if hp["method"] != "rslad":
            return BASELINES[hp["method"]](self, x, y, index, share)
        log_t = self.taught(x).log_softmax(1)
        adv = self.attack(x, log_t.exp(), "kl", index, share)
        log_adv, log_clean = self(adv).float().log_softmax(1), self(x).float().log_softmax(1)
        w, hard = hp["adversarial_weight"], hp["hard"]
        robust = F.nll_loss(log_adv, y) if hard in ("adversarial", "both") else kl(log_t, log_adv)
        clean = F.nll_loss(log_clean, y) if hard in ("clean", "both") else kl(log_t, log_clean)
        return hp["kl_scale"] * (w * robust + (1 - w) * clean)

    def taught(self, x: Tensor) -> Tensor:
        """The teacher's logits (N, K), without gradients.

        Raises:
            InvalidConfig: if there is no teacher.
        """
        if self.teacher is None:
            raise InvalidConfig(
                f"method {self.hparams['method']} learns from a teacher: name one, as in --model.teacher "
                "rslad:fmnist-resnet10w24-trades, or call model.teach(function)."
            )
        return self.teacher(x)

    def introspects(self) -> bool:
        """Whether iad has stopped trusting the teacher fully."""
        if self._trainer is None:
            return True
        return self.current_epoch >= self.hparams["iad_begin"] * max(0, self.trainer.max_epochs or 0)

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Loss of a batch; logs `train/loss`."""
        warmup, share = self.hparams["eps_warmup"], 1.0
        if warmup > 0 and self._trainer is not None:
            share = min(1.0, (self.current_epoch + batch_idx / self.trainer.num_training_batches) / warmup)
        loss = self.loss(batch["image"], batch["label"], batch["index"], share)
        if self._trainer is not None:
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["index"]))
        return loss

    def configure_optimizers(self) -> Any:
        """SGD with momentum, by default as in the paper: a tenth after epochs 215, 260 and 285."""
        hp = self.hparams
        learned = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(learned, lr=hp["lr"], momentum=hp["momentum"], weight_decay=hp["weight_decay"])
        if hp["schedule"] == "steps":
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, list(hp["milestones"]), 0.1)]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trained_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    # Evaluation ---------------------------------------------------------------------------------------------------

    def attacked(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Adversarial images of an evaluation; the start belongs to the sample, so batches do not matter."""
        eps = float(self.hparams["eps"])
        given: dict[str, Any] = {"eps": eps, "index": batch["index"], "check": False}
        x, y = batch["image"], batch["label"]
        if name == "fgsm":
            return fgsm(self, x, y, **given)
        if name == "cw":
            return cw_margin(self, x, y, step=eps / 10, **given)
        if name.startswith("apgd"):
            return apgd(self, x, y, steps=50, loss=name.removeprefix("apgd-"), **given)
        return pgd(self, x, y, step=eps / 10, steps=int(self.hparams["eval_steps"]), **given)

    def _evaluate(self, stage: str, batch: dict[str, Any], attacks: Sequence[str]) -> None:
        x, y, count = batch["image"], batch["label"], len(batch["index"])
        scores: Any = self.scores
        losses: Any = self.losses
        logits = self(x).float()
        losses[f"{stage}_loss"].update(F.cross_entropy(logits, y), weight=count)
        worst = logits.argmax(1)
        scores[f"{stage}_accuracy"].update(worst, y)
        for name in attacks:
            label = self(self.attacked(name, batch)).argmax(1)
            if stage == "test":
                scores[f"test_robust_{name}"].update(label, y)
            worst = torch.where(worst == y, label, worst)  # right without an attack and under each of them
        scores[f"{stage}_robust"].update(worst, y)
        found = {**losses, **scores}.items()
        self.log_dict({k.replace("_", "/", 1): v for k, v in found if k.startswith(stage)}, batch_size=count)

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Log `val/loss`, `val/accuracy` on clean images, and `val/robust` under PGD."""
        self._evaluate("val", batch, ("pgd",))

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Log the same, each of `test_attacks` as `test/robust_NAME`, and the worst case as `test/robust`."""
        self._evaluate("test", batch, self.hparams["test_attacks"])
