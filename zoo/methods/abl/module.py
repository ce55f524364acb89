"""The classifier and its three phases as a Lightning module; the paper and its equations stand in `zoo.methods.abl`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.base import Scores
from zoo.base.data import TrainingPart
from zoo.base.image_classifier import ImageClassifier
from zoo.base.ranks import copy_first_rank
from zoo.errors import BadInput, InvalidConfig
from zoo.files import write_whole
from zoo.methods.abl.isolation import Isolation, isolated_count, lowest, read_suspects, training_losses
from zoo.methods.abl.losses import KINDS, REDUCTIONS, isolation_loss
from zoo.methods.abl.scores import BackdoorScores
from zoo.methods.abl.start import copy_weights, matching

__all__ = ["ABL"]


class ABL(ImageClassifier):
    """A classifier that isolates what it learns fastest, and unlearns it.

    An epoch belongs to a phase by its number: the first `isolate` epochs isolate, the last `unlearn` of the trainer's
    `max_epochs` unlearn, those between fine-tune on what was not isolated. Without either, all epochs train on
    everything: the network without a defence. With `suspects` there is no isolation, and with `max_epochs` equal to
    `unlearn` nothing but unlearning.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images that `predict` makes.
        network: a name of `zoo.nn.classifiers`, such as `wrn16-1` or `cifar-resnet18`.
        pretrained: start from timm's weights.
        mean: mean of each channel, for a normalisation inside the network; None for none, as in the paper.
        std: standard deviation of each channel; None if `mean` is.
        isolate: T_te, epochs of isolation; 0 for none.
        unlearn: epochs of unlearning at the end; 0 for none.
        isolation: loss of the first phase, `lga`, `flooding` or `plain`.
        gamma: floor of the loss.
        reduction: whether the floor holds for the mean of a `batch` or for each `sample`.
        share: p, share of the training samples that is isolated.
        unlearn_lr: learning rate of unlearning.
        unlearn_batch_size: samples per step and process of unlearning.
        unlearn_statistics: whether batch statistics go on being learned while unlearning, as in the authors' code.
            Within a few steps those of the isolated samples replace those of all, which costs accuracy.
        ascent_cap: cross-entropy above which a batch is not unlearned further; None for no limit.
        max_drop: unlearning ends when accuracy on the validation set falls by more than this below that of the
            fine-tuned network; None for no limit.
        suspects: what to unlearn in place of an isolation: numbers of training samples, or a file with them.
        start: a trained classifier to start from: `id:tag`, a folder, a .ckpt, `hf://...` of any method with the same
            network, or a file with its state dict. Used once; a checkpoint of this run does not need it.
        lr: learning rate of isolation and fine-tuning.
        momentum: of SGD (Nesterov's).
        weight_decay: on all parameters.
        milestones: epochs of fine-tuning after which the learning rate falls to a tenth.
        channels_last: memory layout of images and convolutions.
    """

    # the last network is the result: while a backdoor is unlearned accuracy falls, so it must not choose
    monitor = ("val/epochs", "max")
    logged = ("loss", "accuracy", "worst_recall", "asr", "ra", "target_recall", "accuracy_without_target", "epochs")

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "wrn16-1",
        pretrained: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        isolate: int = 20,
        unlearn: int = 20,
        isolation: str = "lga",
        gamma: float = 0.5,
        reduction: str = "batch",
        share: float = 0.01,
        unlearn_lr: float = 5e-4,
        unlearn_batch_size: int = 64,
        unlearn_statistics: bool = True,
        ascent_cap: float | None = None,
        max_drop: float | None = None,
        suspects: str | Sequence[int] | None = None,
        start: str | None = None,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        milestones: Sequence[int] = (40,),
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        checks.one_of("isolation", isolation, KINDS)
        checks.one_of("reduction", reduction, REDUCTIONS)
        checks.share_of_one("share", share, ends=False)
        for name, value, least in (("isolate", isolate, 0), ("unlearn", unlearn, 0), ("gamma", gamma, 0)):
            checks.at_least(name, value, least)
        checks.at_least("unlearn_batch_size", unlearn_batch_size, 1)
        checks.above("unlearn_lr", unlearn_lr, 0)
        checks.above("lr", lr, 0)  # that of unlearning is a multiple of it
        if ascent_cap is not None:
            checks.above("ascent_cap", ascent_cap, 0)
        if suspects is not None and isolate:
            raise InvalidConfig(f"suspects are unlearned in place of an isolation: set isolate to 0, got {isolate}.")
        if not isolate and suspects is None and unlearn:
            raise InvalidConfig(
                f"unlearn: {unlearn} epochs need something to unlearn: isolate it (isolate above 0), give it (suspects)"
                " or set unlearn to 0."
            )
        self.scores = Scores(backdoor=BackdoorScores(num_classes))
        self.isolated: Isolation | None = None
        self.accuracy_before: float | None = None
        """Of validation, at the end of fine-tuning."""
        self._sums = torch.zeros(4)  # loss and number of poisoned, of clean training samples
        self._epoch_of_part = -1
        self._last_phase: str | None = None

    # Phases -------------------------------------------------------------------------------------------------------

    @property
    def defends(self) -> bool:
        """Whether anything is isolated or unlearned."""
        return bool(self.hparams["isolate"]) or self.hparams["suspects"] is not None

    def phase(self, epoch: int | None = None) -> str:
        """`isolate`, `finetune` or `unlearn`.

        Args:
            epoch: from 0; None: the current one.
        """
        if self._trainer is None:
            return "finetune"
        epoch = self.current_epoch if epoch is None else epoch
        if epoch < self.hparams["isolate"]:
            return "isolate"
        last = self.trainer.max_epochs or 0
        return "unlearn" if self.hparams["unlearn"] and epoch >= last - self.hparams["unlearn"] > -1 else "finetune"

    def training_part(self, data: Any) -> TrainingPart:
        """What the coming epoch trains on: all pictures as they are, those that were not isolated, or those that were.

        Args:
            data: the training set.
        """
        phase, self._epoch_of_part = self.phase(), self.current_epoch
        if not self.defends:
            return TrainingPart()
        if phase == "isolate":
            return TrainingPart(augment=False)  # a crop or a cutout may remove the trigger
        isolated = self.isolated or self.isolate_from(data)
        if phase == "unlearn":
            return TrainingPart(isolated.indices.tolist(), False, int(self.hparams["unlearn_batch_size"]))
        others = torch.ones(len(data), dtype=torch.bool)
        others[torch.from_numpy(isolated.indices)] = False
        if not others.any():
            raise BadInput(
                f"All {len(data)} training pictures are to be unlearned, none is left for fine-tuning: give fewer "
                f"suspects, or train for unlearn ({self.hparams['unlearn']}) epochs only."
            )
        return TrainingPart(others.nonzero().flatten().tolist())

    def isolate_from(self, data: Any) -> Isolation:
        """D_b: the given suspects, or the pictures with the lowest loss. All ranks call it, and get the same.

        Args:
            data: the training set, whose items have `index`, `image` and `label`.
        """
        suspects = self.hparams["suspects"]
        if suspects is not None:
            self.isolated = read_suspects(suspects, len(data))
        else:
            module: Any = getattr(self.trainer, "datamodule", None)
            with self.inference():
                index, losses = training_losses(
                    data, self, lambda batch: self.transfer_batch_to_device(batch, self.device, 0), type(module).collate
                )
            self.isolated = lowest(index, losses, self.hparams["share"])
        return self.isolated

    @property
    def isolated_indices(self) -> list[int]:
        """Numbers of the isolated training samples, by rising loss; empty before the isolation."""
        return [] if self.isolated is None else self.isolated.indices.tolist()

    # Training -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """L1, or one part of L2. Logs `train/loss`."""
        losses = F.cross_entropy(self(self.lay_out(batch["image"])).float(), batch["label"], reduction="none")
        phase, options = self.phase(), self.hparams
        if phase == "isolate":
            loss = isolation_loss(losses, options["isolation"], options["gamma"], options["reduction"])
        elif phase == "unlearn":
            loss = -losses.mean().clamp(max=float("inf") if options["ascent_cap"] is None else options["ascent_cap"])
        else:
            loss = losses.mean()
        if self._trainer is not None:
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["index"]))
            self._watch_parts(losses.detach(), batch.get("is_poison"))
        return loss

    def _watch_parts(self, losses: Tensor, is_poison: Tensor | None) -> None:
        """Add up the losses of poisoned and clean samples, where the truth is known; for the log only."""
        if is_poison is None:
            return
        poison = torch.stack([is_poison, ~is_poison]).float()
        sums = torch.stack([(poison * losses).sum(1), poison.sum(1)], 1).flatten()
        self._sums = self._sums.to(sums.device) + sums

    def configure_optimizers(self) -> Any:
        """SGD with Nesterov's momentum, whose learning rate follows the phases."""
        options = self.hparams
        optimizer = torch.optim.SGD(
            [p for p in self.parameters() if p.requires_grad],
            lr=options["lr"],
            momentum=options["momentum"],
            nesterov=options["momentum"] > 0,
            weight_decay=options["weight_decay"],
        )
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: self.rate(epoch))]

    def rate(self, epoch: int) -> float:
        """Factor of the learning rate in an epoch."""
        options, phase = self.hparams, self.phase(epoch)
        if phase == "unlearn":
            return float(options["unlearn_lr"] / options["lr"])
        passed = sum(epoch - options["isolate"] >= milestone for milestone in options["milestones"])
        return 1.0 if phase == "isolate" else 0.1**passed

    # Hooks --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take over the weights to start from, and have a loader made for each epoch.

        Raises:
            BadInput: if these weights do not fit.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if self.hparams["start"] is not None:
            copy_weights(self, self.hparams["start"])
            self.hparams["start"] = None  # a checkpoint of this run has its own weights
        if self.defends:
            self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Warn if there are too few epochs for all phases.

        Raises:
            BadInput: if there are too few pictures to isolate one, which would only be noticed after epochs.
        """
        super().on_fit_start()
        self._last_phase = None
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        isolate, unlearn, epochs = self.hparams["isolate"], self.hparams["unlearn"], self.trainer.max_epochs or -1
        split = getattr(getattr(self.trainer, "datamodule", None), "split", None)
        if split is not None and 0 < isolate <= epochs:
            isolated_count(self.hparams["share"], len(split("train")))
        if 0 < epochs < isolate + unlearn:
            warnings.warn(
                f"max_epochs={epochs} is less than isolate and unlearn together ({isolate + unlearn}): not all phases "
                "will be reached, so a backdoor may stay.",
                stacklevel=2,
            )

    def on_train_end(self) -> None:
        """Warn if the training ended before it came to unlearning, by a limit of steps or of time."""
        super().on_train_end()
        epochs, needed = self.trainer.max_epochs or -1, self.hparams["isolate"] + self.hparams["unlearn"]
        said = 0 < epochs < needed  # when the training began
        if self.hparams["unlearn"] and self._last_phase not in (None, "unlearn") and not said:
            warnings.warn(
                f"the training ended in the phase {self._last_phase}, before unlearning, so a backdoor may stay: give "
                f"max_epochs, of which the last {self.hparams['unlearn']} unlearn, and no smaller limit.",
                stacklevel=2,
            )

    def on_train_start(self) -> None:
        """Measure the accuracy that unlearning may lower, where no fine-tuning comes before it."""
        super().on_train_start()
        if self.hparams["max_drop"] is None or self.phase() != "unlearn" or self.accuracy_before is not None:
            return
        counts = torch.zeros(2, device=self.device)
        with self.inference():
            for batch in self.trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
                there = self.transfer_batch_to_device(batch, self.device, 0)
                right = self(there["image"]).argmax(1) == there["label"]
                counts += counts.new_tensor([float(right.sum()), float(len(right))])
        right, count = self.sum_over_ranks(counts).tolist()
        self.accuracy_before = right / count if count else None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Forget the momentum where a phase begins: that of descent would carry ascent the wrong way.

        Raises:
            InvalidConfig: if the loader cannot follow the phases.
        """
        super().on_train_batch_start(batch, batch_idx)
        phase, isolate, epochs = self.phase(), self.hparams["isolate"], self.trainer.max_epochs or -1
        goes_on = phase != "isolate" or epochs > isolate
        if self.defends and goes_on and self._epoch_of_part != self.current_epoch:
            raise InvalidConfig(
                "abl trains on another part of the data in each phase: give trainer.fit a data module of the zoo "
                "(datamodule=...), not a loader."
            )
        self._last_phase = None if self.trainer.fast_dev_run else phase  # type: ignore[attr-defined]
        if batch_idx == 0 and self.current_epoch and self.phase(self.current_epoch - 1) != phase:
            optimizer: Any = self.optimizers()
            optimizer.optimizer.state.clear()
        if phase == "unlearn" and not self.hparams["unlearn_statistics"]:
            for part in self.network.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def on_train_epoch_end(self) -> None:
        """Isolate at the end of that phase; log what is known of both parts."""
        super().on_train_epoch_end()
        copy_first_rank(self.network.buffers())  # batch statistics differ, and all ranks must score alike
        module: Any = getattr(self.trainer, "datamodule", None)
        split = getattr(module, "split", None)
        data = split("train") if split is not None else None
        last = self.current_epoch == self.hparams["isolate"] - 1
        if last and data is not None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.isolate_from(data)
        self._log_parts()
        if self.isolated is None or data is None:
            return
        report = self.isolated.report(data)
        for name in ("precision", "recall"):
            if name in report:
                self.log(f"train/isolation_{name}", report[name])
        if last or (self.hparams["isolate"] == 0 and self.current_epoch == 0):
            self._write_report(report)

    def _log_parts(self) -> None:
        """Mean loss of poisoned and of clean samples in this epoch, and by how much the second is higher."""
        sums = self.sum_over_ranks(self._sums.to(self.device))
        self._sums = torch.zeros_like(self._sums)
        for name, total, count in (("poison", sums[0], sums[1]), ("clean", sums[2], sums[3])):
            if count:
                self.log(f"train/loss_{name}", total / count)
        if sums[1] and sums[3]:
            self.log("train/loss_gap", sums[2] / sums[3] - sums[0] / sums[1])

    def _write_report(self, report: dict[str, Any]) -> None:
        """`isolation.json` in the run's folder, if the run is logged."""
        folder = self.trainer.log_dir
        if self.loggers and folder is not None and self.trainer.is_global_zero:
            write_whole(Path(folder) / "isolation.json", json.dumps(report, indent=1) + "\n")

    def log_scores(self, stage: str) -> dict[str, Any]:
        """Log the metrics; after one of unlearning's epochs, end it if accuracy has fallen too far."""
        values = super().log_scores(stage)
        if stage == "val":
            self.log("val/epochs", float(self.current_epoch + 1))
        if stage == "val" and self._trainer is not None and self.trainer.state.fn == "fit" and "accuracy" in values:
            self._watch_accuracy(float(values["accuracy"]))
        return values

    def _watch_accuracy(self, accuracy: float) -> None:
        drop = self.hparams["max_drop"]
        if drop is None or self.trainer.sanity_checking:
            return
        if self.phase() != "unlearn":
            self.accuracy_before = accuracy
        elif self.accuracy_before is not None and accuracy < self.accuracy_before - drop:
            self.trainer.should_stop = True

    # Checkpoints --------------------------------------------------------------------------------------------------

    def collected_state(self) -> dict[str, Any]:
        """Losses of both parts so far in this epoch, on this rank."""
        return {"sums": self._sums.cpu()}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Take back what `collected_state` returned."""
        self._sums = state.get("sums", torch.zeros(4))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was isolated."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["isolation"] = {
            "indices": None if self.isolated is None else torch.from_numpy(self.isolated.indices),
            "accuracy_before": self.accuracy_before,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what was isolated."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get("isolation") or {}
        indices = stored.get("indices")
        self.isolated = None if indices is None else Isolation(indices.cpu().numpy())
        self.accuracy_before = stored.get("accuracy_before")

    # Evaluation ---------------------------------------------------------------------------------------------------

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score clean pictures, and the same ones with the trigger where the data have them."""
        logits = self(batch["image"]).float()
        self.scores.update_loss(stage, F.cross_entropy(logits, batch["label"]), len(batch["index"]))
        triggered = self(batch["triggered"]).argmax(1) if "triggered" in batch else None
        self.scores.update(stage, "backdoor", logits.argmax(1), batch["label"], triggered, batch.get("wanted"))

    # Other classifiers --------------------------------------------------------------------------------------------

    @classmethod
    def from_classifier(cls, start: str | Path, suspects: str | Path | Sequence[int] | np.ndarray, **init: Any) -> ABL:
        """A trained classifier of any method, ready to unlearn some of its training samples and nothing else.

        Train it with `Trainer(max_epochs=model.hparams["unlearn"])`.

        Args:
            start: whatever `zoo.load` takes; or, with `network`, a file with a state dict.
            suspects: numbers of training samples, also as arrays (of `zoo.methods.abl.baselines`), or a file with them.
            init: other arguments, such as `unlearn` or, for a state dict, `network`, `num_classes` and `channels`.

        Raises:
            BadInput: if it is no classifier of images with a network of `zoo.nn.classifiers`, or is more than that.
        """
        if not isinstance(start, (str, Path)):
            raise BadInput(
                f"start: expected a name, folder or file of weights, got {type(start).__name__}: save it first."
            )
        start = str(start)
        if isinstance(suspects, (np.ndarray, Tensor)):
            suspects = suspects.tolist()
        elif isinstance(suspects, Path):
            suspects = str(suspects)
        given = {} if Path(start).suffix in (".pt", ".pth", ".safetensors") else matching(start)
        if not given and "network" not in init:
            raise BadInput(f"start {start}: a file with a state dict needs the name of its network, as network=.")
        model = cls(**{**given, "isolate": 0, "suspects": suspects, **init})
        copy_weights(model, start)
        return model
