"""Image data with a backdoor: any data of `ImagesDataModule`, of which some training pictures carry a trigger.

The attacker chooses training pictures by number (`plan`), puts a trigger on them (`triggers`) and gives them a label of
choice. Validation and test pictures stay as they are, with their true labels; each comes beside itself with the
trigger, so that every evaluation can say how often the backdoor opens. Labels and pictures are made from those of the
base as they are read, so nothing is stored and nothing is rounded twice.

Sets that were poisoned elsewhere: `attack: given` takes an npz archive as it is. Optional keys beside those of the
images: `is_poison` (or `is_poison_train`, `train_is_poison`), a truth value for each training picture, and
`triggered_images` (or `x_triggered`), each test picture with the trigger.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.images import ImagesDataModule
from datamodules.images.dataset import ImageSet, resized
from datamodules.images.read import SPLIT_WORDS, to_planes, wrong
from datamodules.poisoned.plan import LABELS, choose_poisoned, wanted_labels
from datamodules.poisoned.sets import PoisonedSet, PoisonedSource, TriggeredSet
from datamodules.poisoned.triggers import ATTACKS, CLEAN_LABEL, Trigger
from zoo import checks
from zoo.errors import BadInput
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays

__all__ = ["ATTACKS", "LABELS", "PoisonedDataModule", "Trigger"]

_RATE = 0.1
"""Of the constructor; where it is another, the user wants pictures to be poisoned."""
_TRUTH = ("is_poison", "is_poison_train", "train_is_poison")
_TRIGGERED = ("triggered_images", "x_triggered", "test_triggered_images", "x_test_triggered")


class PoisonedDataModule(ImagesDataModule):
    """Images of which some of the training part carry a backdoor.

    Batch: as of `ImagesDataModule`. Training batches say which pictures are poisoned (`is_poison` bool (B,), for
    measurements only); validation and test batches hold `triggered` float32 (B, C, S, S), the same pictures with the
    trigger, and `wanted` int64 (B,), the label that the attacker wants. Where that is the true one, there is nothing to
    attack.

    Args:
        attack: the trigger, one of badnets-grid, badnets-square, four-corners, random-pixels, blend, sig, sig-mix,
            trojan (see `datamodules.poisoned.triggers`); or given, for data that are taken as they are, such as an npz
            archive that was poisoned elsewhere. None: given for the data at a root, badnets-grid for embedded ones.
        rate: share of the training pictures to poison; with clean labels share of the target class; 0 for none, and
            then only the test pictures have a trigger.
        target: class that the attacker wants.
        labels: all-to-one (poisoned pictures get the target as label), all-to-all (y + 1 mod K) or clean (they keep
            theirs, and only the target class is poisoned); None: clean for sig, else all-to-one.
        indices: numbers of the training pictures to poison, in place of a rate.
        poison_seed: of the choice and of whatever a trigger draws.
        trigger_size: side of the white square, or root of the number of random pixels.
        alpha: share of the mixed picture in blend.
        delta: amplitude of sig, in 0..255.
        pattern: file of the mixed picture (blend) or of the mask (trojan).
        test_shift: pixels by which the trigger of validation and test is moved up and to the left.
        test_strength: strength of their trigger; 1 is that of training.
        root: folder of the data, or an npz file; None for embedded data.
        format: as of `ImagesDataModule`.
        img_size: side S; None keeps that of the data.
        channels: 1 or 3; None keeps that of the data.
        batch_size: images per batch and process.
        num_workers: loader processes.
        seed: order and augmentation.
        val_size: images held out of the training split for validation, a number or a share; they are not poisoned.
        train_size: number or share of the training images to use; None: all.
        test_size: number or share of the test images to use; None: all.
        split_seed: another number holds out and chooses other images.
        crop: pixels of zero padding from which training images are cropped at random, behind the trigger.
        flip: probability of a horizontal flip of training images.
        cutout: side of the black square that covers a random place of training images; 0 for none.
        attribute: which of CelebA's attributes is the label.
        predict_root: folder of images for `predict`; None: the test split, without triggers.
    """

    describes_data: ClassVar[tuple[str, ...]] = (
        *ImagesDataModule.describes_data,
        "attack",
        "rate",
        "target",
        "labels",
        "indices",
        "pattern",
    )

    def __init__(
        self,
        attack: str | None = None,
        rate: float = _RATE,
        target: int = 0,
        labels: str | None = None,
        indices: Sequence[int] | None = None,
        poison_seed: int = 0,
        trigger_size: int = 3,
        alpha: float = 0.2,
        delta: float = 20.0,
        pattern: str | None = None,
        test_shift: int = 0,
        test_strength: float = 1.0,
        root: str | None = None,
        format: str = "auto",
        img_size: int | None = None,
        channels: int | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        val_size: float | None = None,
        train_size: float | None = None,
        test_size: float | None = None,
        split_seed: int = 0,
        crop: int = 0,
        flip: float = 0.0,
        cutout: int = 0,
        attribute: str = "Smiling",
        predict_root: str | None = None,
    ) -> None:
        super().__init__(
            root=root, format=format, img_size=img_size, channels=channels, batch_size=batch_size,
            num_workers=num_workers, seed=seed, val_size=val_size, train_size=train_size, test_size=test_size,
            split_seed=split_seed, crop=crop, flip=flip, attribute=attribute, predict_root=predict_root, cutout=cutout,
        )  # fmt: skip
        self.attack = attack or ("badnets-grid" if root is None else "given")
        checks.one_of("attack", self.attack, (*ATTACKS, "given"))
        if labels is not None:
            checks.one_of("labels", labels, LABELS)
        if not 0 <= rate <= 1:
            raise BadInput(f"rate: expected a share of the pictures in [0, 1], got {rate}.")
        bounds = ("alpha", alpha, 0, 1), ("test_strength", test_strength, 0, 10), ("delta", delta, -255, 255)
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise BadInput(f"{name}: expected a number from {low} to {high}, got {value}.")
        if target < 0 or trigger_size < 1 or poison_seed < 0:
            raise BadInput(
                "target and poison_seed must be at least 0 and trigger_size at least 1, got "
                f"{target}, {poison_seed} and {trigger_size}."
            )
        chosen = {"indices": indices is not None, "rate": rate not in (0, _RATE), "pattern": pattern is not None}
        for name in (name for name, said in chosen.items() if said and self.attack == "given"):
            raise BadInput(
                f"{name}: data at a root are taken as they are, unless an attack is named (attack is 'given'): leave "
                f"{name} out, or name the attack, one of {', '.join(ATTACKS)}."
            )
        self._trigger: Trigger | None = None

    # The attack ---------------------------------------------------------------------------------------------------

    @property
    def label_mode(self) -> str:
        """One of `LABELS`: the argument, or what is usual for the attack."""
        usual = "clean" if self.attack in CLEAN_LABEL else "all-to-one"
        return str(self.hparams["labels"] or usual)

    @property
    def trigger(self) -> Trigger:
        """The trigger, for pictures of the size of the data."""
        if self._trigger is None:
            facts, given = self.facts(), self.hparams
            self._trigger = Trigger(
                self.attack,
                facts["channels"],
                facts["img_size"],
                size=given["trigger_size"],
                alpha=given["alpha"],
                delta=given["delta"],
                pattern=given["pattern"],
                seed=given["poison_seed"],
            )
        return self._trigger

    def _wanted(self, labels: np.ndarray) -> np.ndarray:
        classes = int(self.facts()["num_classes"])
        if self.hparams["target"] >= classes:
            raise BadInput(f"target: expected a class from 0 to {classes - 1}, got {self.hparams['target']}.")
        return wanted_labels(labels, self.label_mode, self.hparams["target"], classes)

    def _stamp(self, pixels: np.ndarray) -> np.ndarray:
        return self.trigger(pixels)

    def _test_stamp(self, pixels: np.ndarray) -> np.ndarray:
        return self.trigger(pixels, shift=self.hparams["test_shift"], strength=self.hparams["test_strength"])

    # Splits -------------------------------------------------------------------------------------------------------

    def dataset(self, split: str) -> ImageSet:
        """Build one split."""
        plain = super().dataset(split)
        if split == "predict":
            return plain
        return self._poisoned(plain) if split == "train" else self._triggered(plain, split)

    def _poisoned(self, plain: ImageSet) -> ImageSet:
        source, labels = plain.source, plain.labels
        assert labels is not None
        assert source.labels is not None
        if self.attack == "given":
            truth = self._truth(len(source))
            return PoisonedSet(
                source, plain.chosen, None if truth is None else truth[plain.chosen], plain.augment, self.seed
            )
        given, classes = self.hparams, int(self.facts()["num_classes"])
        chosen = choose_poisoned(
            labels, given["rate"], self.label_mode, given["target"], classes, given["poison_seed"], given["indices"]
        )
        self.trigger  # noqa: B018  (a trigger that does not fit is refused before training)
        flags = np.zeros(len(source), bool)
        flags[plain.chosen[chosen]] = True
        wanted = source.labels if self.label_mode == "clean" else self._wanted(source.labels)
        changed = PoisonedSource(source, flags, wanted, self._stamp)
        return PoisonedSet(changed, plain.chosen, chosen, plain.augment, self.seed)

    def _triggered(self, plain: ImageSet, split: str) -> ImageSet:
        assert plain.labels is not None
        wanted = self._wanted(plain.labels)
        if self.attack != "given":
            self.trigger  # noqa: B018
            return TriggeredSet(plain.source, plain.chosen, wanted, self._test_stamp)
        pictures = self._given(len(plain.source)) if split == "test" else None
        if pictures is None:
            return plain  # the trigger is unknown, so only accuracy can be measured
        return TriggeredSet(plain.source, plain.chosen, wanted, None, pictures[plain.chosen])

    # Sets poisoned elsewhere --------------------------------------------------------------------------------------

    def _extra(self, split: str, keys: Sequence[str]) -> tuple[Path, str, np.ndarray] | None:
        """File, key and content of the first of these keys in the archive of a split; None if there is none."""
        if self.root is None or self.format != "npz":
            return None
        root = self._where()
        paths = [root] if root.is_file() else [root / f"{word}.npz" for word in SPLIT_WORDS[split]]
        for path in paths:
            if not path.is_file():
                continue
            try:
                with open_arrays(path) as file:
                    for key in keys:
                        if key in file:
                            return path, key, file[key]
            except UnreadableError as error:
                raise wrong(path, "file", error.expected, error.got) from error
        return None

    def _truth(self, count: int) -> np.ndarray | None:
        """Which pictures of the training file are poisoned, if it says so."""
        stored = self._extra("train", _TRUTH)
        if stored is None:
            return None
        path, key, values = stored
        if values.shape != (count,) or values.dtype.kind not in "biu" or not np.isin(values, (0, 1)).all():
            raise wrong(path, key, f"{count} values 0 or 1, one for each image", f"{values.dtype} {values.shape}")
        return values.astype(bool)

    def _given(self, count: int) -> np.ndarray | None:
        """Test pictures with the trigger, if the archive has them."""
        stored = self._extra("test", _TRIGGERED)
        if stored is None:
            return None
        path, key, values = stored
        facts = self.facts()
        pixels = to_planes(values, path, key)
        if len(pixels) != count:
            raise wrong(path, key, f"{count} images, one for each test image", len(pixels))
        return resized(pixels, facts["img_size"], facts["channels"])
