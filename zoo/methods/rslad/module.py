"""The student and its training as a Lightning module; the paper and its equations stand in `zoo.methods.rslad`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.base.adversarial_classifier import AdversarialClassifier
from zoo.base.other_network import FrozenClassifier, FrozenNetwork, OtherNetworks, find_classifier
from zoo.nn import adversarial_losses as losses

__all__ = ["METHODS", "RSLAD", "rslad_loss"]

METHODS = ("rslad", "iad", "ard", "trades", "sat", "natural")
TAUGHT = ("rslad", "iad", "ard")
HARD = ("none", "clean", "adversarial", "both")


def rslad_loss(
    z: Tensor, z_adv: Tensor, t: Tensor, weight: float = 5 / 6, y: Tensor | None = None, hard: str = "none"
) -> Tensor:
    """L = w KL(p_T(x) || p_S(x')) + (1 - w) KL(p_T(x) || p_S(x)).

    Args:
        z: (N, K) of the student on x.
        z_adv: (N, K) of the student on x'.
        t: (N, K) of the teacher on x.
        weight: w in [0, 1].
        y: (N,) labels, for `hard`.
        hard: terms (`none`, `clean`, `adversarial`, `both`) in which the labels replace the teacher's soft ones.
    """
    log_t = t.log_softmax(1)

    def term(logits: Tensor, labelled: bool) -> Tensor:
        if labelled:
            assert y is not None
            return F.cross_entropy(logits, y)
        return losses.kl(log_t, logits.log_softmax(1))

    robust, clean = term(z_adv, hard in ("adversarial", "both")), term(z, hard in ("clean", "both"))
    return weight * robust + (1 - weight) * clean


class RSLAD(OtherNetworks, AdversarialClassifier):
    """A classifier with adversarial training and distillation.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: the student, a name of `zoo.nn.classifiers` (`cifar-resnet18`, `resnet10-w8`, `timm/NAME`, ...).
        pretrained: start from timm's weights.
        mean: mean of each channel, for a normalisation inside the network; None for none, as in the paper.
        std: standard deviation of each channel; None if `mean` is.
        method: `rslad`, or a baseline: `iad`, `ard`, `trades`, `sat`, `natural`.
        teacher: `id:tag`, a folder, a .ckpt or `hf://...`; with `teacher_network`, a file with a state dict. Needed by
            rslad, iad and ard when training starts. In Python any function may be given: `model.teach(function)`.
        teacher_network: name of the network in such a file.
        eps: radius of the perturbation in the maximum norm, in units of pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: number of steps of the training attack.
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

    references = ("teacher",)

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
        checks.one_of("method", method, METHODS)
        checks.one_of("hard", hard, HARD)
        for name, value in (("adversarial_weight", adversarial_weight), ("alpha", alpha), ("iad_begin", iad_begin)):
            checks.share_of_one(name, value)

    # The method ---------------------------------------------------------------------------------------------------

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """L of a batch, or the loss of a baseline; arguments as in `AdversarialClassifier.loss`.

        The student sees x' first and x second, in training mode, so that its batch statistics hold both.
        """
        options = self.hparams
        if options["method"] != "rslad":
            return self.baseline(options["method"], x, y, index, share)
        t = self.taught(x)
        x_adv = self.worst_case(x, t, index, share)
        z_adv, z = self.logits(x_adv), self.logits(x)
        w = options["adversarial_weight"]
        return options["kl_scale"] * rslad_loss(z, z_adv, t, w, y, options["hard"])  # type: ignore[no-any-return]

    def worst_case(self, x: Tensor, t: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """X' (N, C, H, W), where the student is farthest from the teacher's soft labels on x.

        Args:
            x: (N, C, H, W) clean images.
            t: (N, K) the teacher's logits on them.
            index: (N,) identity of the samples.
            share: of eps, during warm-up.
        """
        return self.attack(x, t.log_softmax(1).exp(), "kl", index, share)

    # The teacher --------------------------------------------------------------------------------------------------

    def taught(self, x: Tensor) -> Tensor:
        """The teacher's logits (N, K), without gradients.

        Raises:
            InvalidConfig: if there is no teacher.
        """
        return self.other("teacher")(x)  # type: ignore[no-any-return]

    def teach(self, teacher: Callable[[Tensor], Tensor], name: str = "a function") -> RSLAD:
        """Set the teacher: anything that maps images to logits. A module is frozen and put into evaluation mode."""
        self.use("teacher", FrozenClassifier(teacher, int(self.hparams["num_classes"]), name))
        return self

    @property
    def teacher(self) -> FrozenNetwork | None:
        """The teacher, once it is set or training has started."""
        return self.others.get("teacher")

    def needed_references(self) -> tuple[str, ...]:
        """rslad, iad and ard need a teacher."""
        return self.references if self.hparams["method"] in TAUGHT else ()

    def find_other(self, argument: str) -> FrozenNetwork:
        """Load the teacher, a classifier of the same images and classes."""
        options = self.hparams
        shape = options["num_classes"], options["channels"]
        names = options["class_names"]
        return find_classifier(options["teacher"], options["teacher_network"], *shape, argument, names)

    # Baselines ----------------------------------------------------------------------------------------------------

    def baseline(self, method: str, x: Tensor, y: Tensor, index: Tensor | None, share: float) -> Tensor:
        """Loss of a method that the paper compares with; arguments as in `loss`."""
        if method not in TAUGHT:
            return self.criterion(method, x, y, index, share)
        options = self.hparams
        alpha, temperature = options["alpha"], options["temperature"]
        x_adv = self.attack(x, y, "ce", index, share)
        z_adv = self.logits(x_adv)
        if method == "ard":  # with the authors' alpha the student never sees x
            return losses.ard(None if alpha == 1 else self.logits(x), z_adv, self.taught(x), y, alpha, temperature)
        z, t = self.logits(x), self.taught(x)
        t_adv = self.taught(x_adv) if self.introspects() else None
        return losses.iad(z, z_adv, t, t_adv, y, alpha, temperature, options["iad_power"])

    def introspects(self) -> bool:
        """Whether iad has stopped trusting the teacher fully."""
        if self._trainer is None:
            return True
        return bool(self.current_epoch >= self.hparams["iad_begin"] * max(0, self.trainer.max_epochs or 0))
