"""Images with one label each: MNIST, Fashion-MNIST, CIFAR, SVHN, EuroSAT, CelebA, GTSRB, class folders, npz archives.

Layouts, below `root`:

    fashion-mnist   FashionMNIST/raw/*-ubyte[.gz] (torchvision), raw/*, or the four idx files themselves (Debian)
    mnist           MNIST/raw/*, the same idx files
    cifar-10        cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}
    cifar-100       cifar-100-python/{train,test,meta}
    svhn            {train,test}_32x32.mat, cropped digits (extra `matlab`)
    eurosat         EuroSAT/2750/CLASS/*.jpg
    celeba          celeba/img_align_celeba/*.jpg with list_attr_celeba.txt and list_eval_partition.txt
    gtsrb           GTSRB/{Training/CLASS,Final_Test/Images}/*.ppm with GT-*.csv; gtsrb-roi: cut to the sign
    folders         {train,val,test}/CLASS/*.png, or CLASS/*.png alone
    npz             {train,val,test}.npz with `images` and `labels`, or one file with `train_images`, `x_train`, ...

Without a `root`: 20,000 training and 5,000 test pictures of Fashion-MNIST, or 5,000 digits of MNIST, both embedded; or
9,600 training and 3,200 test tiles of LandCoverMap (`datamodules.worlds.land_cover`), rendered once.
`ImagesDataModule.fake(folder)` writes a miniature of each layout to look at.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import default_collate

from datamodules.base import Problems, TrainSampler, ZooDataModule, data_cache
from datamodules.fitting import small_set
from datamodules.images.advice import evenly, fitting_side, median_side, moments, thumbnails
from datamodules.images.celeba import celeba_attributes, find_celeba, read_celeba
from datamodules.images.dataset import ArraySource, Augment, CutMix, FileSource, ImageSet, Source, resized, stratified
from datamodules.images.extra import HalfSampler, JoinedSource, find_extra, with_extra
from datamodules.images.fake import write_extra, write_fake
from datamodules.images.folders import class_folders, find_eurosat, image_files, same_inside, training_classes
from datamodules.images.formats import ARRAYS, EMBEDDED, FORMATS, detected, embedded
from datamodules.images.gtsrb import GTSRB_NAMES, find_gtsrb, read_gtsrb
from datamodules.images.read import Pictures, read_npz, wrong
from datamodules.images.world import land_cover_pictures
from datamodules.worlds.land_cover import CLASSES as LAND_COVER_NAMES
from datamodules.worlds.land_cover import TILE
from zoo import checks
from zoo.errors import BadData, BadInput, InvalidConfig, RepositoryNotFound, nearest
from zoo.inputs import UnreadableError
from zoo.inputs.images import open_picture

__all__ = ["FORMATS", "ImagesDataModule"]

_FOLDERS = ("folders", "eurosat")
_SIGNS = ("gtsrb", "gtsrb-roi")
_FILES = (*_FOLDERS, "celeba", *_SIGNS)


class ImagesDataModule(ZooDataModule):
    """Images with one label each.

    Batch: `index` int64 (B,), `image` float32 (B, C, S, S) in [0, 1] (normalisation belongs in the network, so that
    perturbations are measured in pixels), `label` int64 (B,); `predict` batches have no label.

    Args:
        root: folder of the data, or an npz file; None for embedded data.
        format: fashion-mnist, mnist, cifar-10, cifar-100, svhn, eurosat, celeba, gtsrb, gtsrb-roi (cut to the sign),
            folders, npz, or auto to find out. Without a root: fashion-mnist (auto), mnist or land-cover.
        img_size: side S; None keeps that of the data (of the first image, for folders). Others are scaled so that the
            shorter side fits, and cut to the middle.
        channels: 1 or 3; None keeps that of the data.
        batch_size: images per batch and process.
        num_workers: loader processes; data in memory need none.
        seed: order and augmentation; never which images belong to which split, so that scores compare.
        val_size: images held out of the training split for validation where there is no val split: a number, or a
            share below 1; None: a tenth. Where there is one: a number of it to use; None: all.
        train_size: number or share of the training images (after holding out) to use; None: all.
        test_size: number or share of the test images to use; None: all. Where there is no test split, as many are held
            out of the training images; None: a fifth.
        split_seed: another number holds out and chooses other images. All choices keep the shares of the classes.
        crop: pixels of zero padding from which training images are cropped at random; 4 is usual for CIFAR.
        flip: probability of a horizontal flip of training images.
        cutout: side of the black square that covers a random place of training images; 0 for none.
        cutmix: probability that a training image gets a random rectangle of another one; batches then have `mixed`
            float32 (B, K), the shares of the labels. Only for methods that take such labels.
        extra: file of further training images, below root or anywhere: `ti_500K_pseudo_labeled.pickle`, or an npz file.
            They are one half of each batch, and epochs stay as long as without them.
        attribute: which of CelebA's attributes is the label: 0 without it, 1 with it.
        predict_root: folder of images for `predict`; None: the test split.
    """

    classes_are_whole = True
    """Whether folders inside of class folders mean nothing."""

    describes_data: ClassVar[tuple[str, ...]] = (*ZooDataModule.describes_data, "attribute", "split_seed")

    def __init__(
        self,
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
        attribute: str = "Smiling",
        predict_root: str | None = None,
        cutout: int = 0,
        cutmix: float = 0.0,
        extra: str | None = None,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, num_workers=num_workers, seed=seed)
        known = FORMATS if self.root is not None else tuple(dict.fromkeys((*FORMATS, *EMBEDDED)))
        if format not in known:
            raise BadInput(f"format: expected one of {', '.join(known)}, got {format!r}.{nearest(format, known)}")
        if self.root is None and format not in ("auto", *EMBEDDED):
            raise BadInput(f"format: {format} needs root (the folder of the data); embedded are {', '.join(EMBEDDED)}.")
        if channels not in (None, 1, 3):
            raise BadInput(f"channels: expected 1 or 3, got {channels}.")
        if img_size is not None and img_size < 1:
            raise BadInput(f"img_size: expected at least 1, got {img_size}.")
        for key in ("val_size", "train_size", "test_size"):
            if (value := self.hparams[key]) is not None and (value <= 0 or (value > 1 and value % 1 != 0)):
                raise BadInput(f"{key}: expected a whole number of images or a share in (0, 1), got {value}.")
        if crop < 0 or cutout < 0 or not 0 <= flip <= 1:
            raise BadInput(
                f"crop and cutout: expected at least 0, and flip in [0, 1]; got {crop}, {cutout} and {flip}."
            )
        checks.share_of_one("cutmix", cutmix)
        self._format = format
        self._pictures: dict[str, Pictures] = {}
        self._sources: dict[str, Source] = {}
        self._parts: dict[str, np.ndarray] | None = None
        self._classes: dict[str, Path] | None = None
        self._read_npz: dict[str, Pictures | None] = {}

    # What the data are --------------------------------------------------------------------------------------------

    @property
    def format(self) -> str:
        """The layout in use, detected on first use if it was "auto"."""
        if self._format == "auto":
            self._format = EMBEDDED[0] if self.root is None else detected(self._where())
        return self._format

    def _where(self) -> Path:
        assert self.root is not None
        if not self.root.exists():
            raise RepositoryNotFound(
                f"root: expected a folder of images or an npz file, but there is nothing at {self.root}."
            )
        return self.root.resolve()

    def read_facts(self) -> dict[str, Any]:
        """Classes, channels and size."""
        names, channels, size = self._describe()
        given = self.hparams
        return {
            "num_classes": len(names),
            "class_names": names,
            "channels": given["channels"] or channels,
            "img_size": given["img_size"] or size,
        }

    def fitting(self, epochs: int) -> dict[str, Any]:
        """Size of the input, means and deviations, batch and epochs that fit the user's pictures."""
        if self.root is None:
            return {}
        images, now = ImagesDataModule.dataset(self, "train"), self.facts()
        source, chosen = images.source, images.chosen
        few = chosen[evenly(len(chosen))]
        better = self._small_set(len(chosen), epochs)
        if isinstance(source, FileSource):
            paths = [source.paths[i] for i in few.tolist()]
            side = fitting_side(median_side(paths))
            pixels = thumbnails(paths, side or now["img_size"], now["channels"])
        else:
            side, pixels = fitting_side(self._describe()[2]), source.take(few)
        if side and side != now["img_size"]:
            better["data.img_size"] = side
        if len(pixels):
            better["model.mean"], better["model.std"] = moments(pixels)
        return better

    def _small_set(self, count: int, epochs: int) -> dict[str, Any]:
        return small_set(count, self.batch_size, epochs)

    @property
    def has_class_names(self) -> bool:
        """Not so for arrays without names."""
        names = self.facts()["class_names"]
        return self.format != "npz" or names != [str(i) for i in range(len(names))]

    def _describe(self) -> tuple[list[str], int, int]:
        """Class names, and channels and side of the images as they are."""
        kind = self.format
        if (array := ARRAYS.get(kind)) is not None:
            place = None if self.root is None else array.place(self._where())
            return array.names(place), array.channels, array.side
        if self.root is None:
            return list(LAND_COVER_NAMES), 3, TILE
        if kind == "celeba":
            attribute = self.hparams["attribute"]
            celeba_attributes(self._celeba(), attribute)
            return [f"not {attribute}", attribute], 3, 178
        if kind in _SIGNS:
            return list(GTSRB_NAMES), 3, 32
        if kind in _FOLDERS:
            names = list(self._folders("train") or {})
            return names, *self._first_file()
        pictures = self._arrays("train")
        pixels = pictures.pixels
        if self.hparams["img_size"] is None and pixels.shape[2] != pixels.shape[3]:
            raise wrong(self._where(), "images", "squares, or img_size= to cut them", pixels.shape[2:])
        names = pictures.class_names or [str(i) for i in range(int(pictures.labels.max()) + 1)]
        if len(names) < 2:
            raise wrong(self._where(), "labels", "at least two classes", "one")
        return names, pixels.shape[1], pixels.shape[2]

    def _first_file(self) -> tuple[int, int]:
        """Channels and side of the first training image."""
        path = next(p for folder in (self._folders("train") or {}).values() for p in image_files(folder))
        try:
            with open_picture(path) as image:
                return (1 if image.mode in ("L", "1", "F") or image.mode.startswith("I") else 3), min(image.size)
        except UnreadableError as error:
            raise wrong(path, "file", error.expected, error.got) from error

    def _celeba(self) -> Path:
        folder = find_celeba(self._where())
        if folder is None:
            raise BadData(f"{self.root}: expected celeba/img_align_celeba and celeba/list_attr_celeba.txt, got none.")
        return folder

    def _signs(self) -> Path:
        folder = find_gtsrb(self._where())
        if folder is None:
            raise BadData(f"{self.root}: expected GTSRB/Training or GTSRB/Final_Training/Images, got none.")
        return folder

    def _folders(self, split: str) -> dict[str, Path] | None:
        root = self._where()
        place = find_eurosat(root) or root if self.format == "eurosat" else root
        if split != "train":
            return class_folders(place, split)
        if self._classes is None:
            self._classes = training_classes(place)
            if (names := same_inside(self._classes)) and self.classes_are_whole:
                warnings.warn(
                    f"{place}: each of the classes {', '.join(list(self._classes)[:4])} holds the same folders "
                    f"({', '.join(names[:4])}). If those are the classes, set root or name the folders above train and "
                    "test.",
                    stacklevel=2,
                )
        return self._classes

    # Splits -------------------------------------------------------------------------------------------------------

    def _arrays(self, file_split: str) -> Pictures:
        """What the files of a split hold; read once."""
        if file_split not in self._pictures:
            self._pictures[file_split] = self._read(file_split)
        return self._pictures[file_split]

    def _read(self, split: str) -> Pictures:
        kind = self.format
        if self.root is None:
            return land_cover_pictures(split, data_cache()) if kind == "land-cover" else embedded(kind, split)
        if (array := ARRAYS.get(kind)) is not None:
            return array.read(array.place(self._where()), split)
        pictures = self._npz(split)
        if pictures is None:
            raise BadData(f"{self.root}: expected a {split} split, got none.")
        if split == "train":
            return pictures
        names, shape = self.facts()["class_names"], self._arrays("train").pixels.shape[1:]
        if pictures.pixels.shape[1:] != shape and self.hparams["img_size"] is None:
            raise wrong(
                self._where(), f"images of {split}", f"(N, {', '.join(map(str, shape))})", pictures.pixels.shape
            )
        if pictures.class_names is not None and pictures.class_names != names:
            shown = ", ".join(names[:8]), ", ".join(pictures.class_names[:8])
            raise wrong(self._where(), f"class_names of {split}", f"those of train ({shown[0]})", shown[1])
        return pictures.checked(self._where() / f"{split} split", len(names))

    def _has(self, split: str) -> bool:
        """Whether the data bring a split of their own."""
        if self.root is None or self.format in (*ARRAYS, *_SIGNS):
            own = self.format == "land-cover"
            return own or (split != "val" and not (self.root is None and self.format == "mnist" and split == "test"))
        if self.format == "celeba":
            return True
        if self.format in _FOLDERS:
            return self._folders(split) is not None
        return self._npz(split) is not None

    def _npz(self, split: str) -> Pictures | None:
        """A split of npz files; None if there is none. Read once."""
        if split not in self._read_npz:
            self._read_npz[split] = read_npz(self._where(), split)
        return self._read_npz[split]

    def _files(self, split: str) -> tuple[list[Path], np.ndarray]:
        """Files and labels of a split in class folders."""
        names = self.facts()["class_names"]
        problems = Problems(self._where())
        paths: list[Path] = []
        labels: list[int] = []
        for name, folder in (self._folders(split) or {}).items():
            if name not in names:
                problems.add(folder, "class", f"one of the training classes ({', '.join(names[:8])}, ...)", name)
                continue
            files = image_files(folder)
            paths += files
            labels += [names.index(name)] * len(files)
        if not paths:
            problems.add(split, "split", "at least one image", "none")
        problems.raise_if_any()
        return paths, np.array(labels, np.int64)

    def _source(self, file_split: str) -> Source:
        """Pixels and labels of what the files of a split hold; made once, for the splits cut from it share it."""
        if file_split not in self._sources:
            self._sources[file_split] = self._make_source(file_split)
        return self._sources[file_split]

    def _make_source(self, file_split: str) -> Source:
        facts, given = self.facts(), self.hparams
        if self.format in _FILES:
            boxes = None
            if self.format == "celeba":
                files, labels = read_celeba(self._celeba(), given["attribute"], file_split)
            elif self.format in _SIGNS:
                files, labels, signs = read_gtsrb(self._signs(), file_split)
                boxes = signs if self.format == "gtsrb-roi" else None
            else:
                files, labels = self._files(file_split)
            keep = self.num_workers == 0  # loader processes live for an epoch, and what they keep dies with them
            return FileSource(files, labels, facts["img_size"], facts["channels"], keep, boxes)
        pictures = self._arrays(file_split)
        pixels = pictures.pixels
        if given["img_size"] is not None or given["channels"] is not None:
            pixels = resized(pixels, facts["img_size"], facts["channels"])
        return ArraySource(pixels, pictures.labels)

    def _choose(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Share the training files' images among the splits that have no files of their own, by class."""
        given, seed = self.hparams, self.hparams["split_seed"]
        left = np.arange(len(labels))
        parts: dict[str, np.ndarray] = {}
        for number, (split, usual) in enumerate((("test", 0.2), ("val", 0.1))):
            if self._has(split):
                continue
            count = _count(given[f"{split}_size"], len(left), usual, f"{split}_size", least=1, leave=1)
            parts[split] = left[stratified(labels[left], count, 2 * seed + number)]
            left = np.setdiff1d(left, parts[split])
        count = _count(given["train_size"], len(left), 1.0, "train_size")
        parts["train"] = left[stratified(labels[left], count, seed)] if count < len(left) else left
        return parts

    def dataset(self, split: str) -> ImageSet:
        """Build one split."""
        if split == "predict":
            return self._predict_set()
        if split != "train" and self._has(split):
            source = self._source(split)
            assert source.labels is not None
            count = _count(self.hparams[f"{split}_size"], len(source), 1.0, f"{split}_size", cap=split == "val")
            chosen = stratified(source.labels, count, self.hparams["split_seed"]) if count < len(source) else None
            return ImageSet(source, chosen)
        source = self._source("train")
        assert source.labels is not None
        if self._parts is None:
            self._parts = self._choose(source.labels)
        if split != "train":
            return ImageSet(source, self._parts[split])
        return self._train_set(source, self._parts[split])

    def _train_set(self, source: Source, chosen: np.ndarray) -> ImageSet:
        """Training images, with what they go through and what is added to them."""
        given, facts = self.hparams, self.facts()
        cutmix = None
        if given["cutmix"] > 0:
            module = getattr(getattr(self, "trainer", None), "lightning_module", None)
            if module is not None and not getattr(module, "takes_mixed_labels", False):
                raise InvalidConfig(f"cutmix: {type(module).__name__} needs one label for each image: set it to 0.")
            cutmix = CutMix(given["cutmix"], facts["num_classes"])
        if given["extra"] is not None:
            source, chosen = with_extra(source, chosen, find_extra(given["extra"], self.root), facts)
        augment = Augment(*(given[key] for key in ("crop", "flip", "cutout")))
        return ImageSet(source, chosen, augment, self.seed, cutmix=cutmix)

    def train_sampler(self, data: Sized, place: dict[str, Any], every: bool) -> TrainSampler:
        """With `extra`, as many of either kind in each batch."""
        if self.hparams["extra"] is None:
            return super().train_sampler(data, place, every)
        if every or not isinstance(data, ImageSet) or not isinstance(data.source, JoinedSource):
            raise InvalidConfig("extra: this method decides itself which samples it sees: leave further images out.")
        labelled = int((data.chosen < data.source.starts[1]).sum())
        return HalfSampler(data, **place, labelled=labelled)

    def _predict_set(self) -> ImageSet:
        place = self.hparams["predict_root"]
        if place is None:
            test = self.split("test")
            assert isinstance(test, ImageSet)
            return ImageSet(test.source, test.chosen, labelled=False)
        folder = Path(place).expanduser()
        files = image_files(folder) if folder.is_dir() else []
        if not files:
            raise RepositoryNotFound(f"predict_root: expected a folder of images, got none at {folder}.")
        facts = self.facts()
        return ImageSet(FileSource(files, None, facts["img_size"], facts["channels"]))

    @staticmethod
    def collate(items: Sequence[dict[str, Any]] | dict[str, Any]) -> dict[str, Any]:
        """Join items; a batch that the data set made as a whole is one already."""
        return items if isinstance(items, dict) else default_collate(list(items))

    def fake(self, folder: str | Path, format: str | None = None, images: int = 40) -> Path:
        """Write a miniature of a real layout into `folder` and return it.

        Args:
            folder: where to; made if needed.
            format: one of `FORMATS`; None: the one that this module was built with, else class folders.
            images: training images; a quarter as many for testing.
        """
        # without looking at `root`: this writes what it would read, so there may be nothing yet
        kind = format or (self._format if self.root is not None and self._format != "auto" else "folders")
        if kind not in FORMATS[1:]:
            raise BadInput(f"format: expected one of {', '.join(FORMATS[1:])}, got {kind!r}.{nearest(kind, FORMATS)}")
        place = write_fake(Path(folder), kind, images)
        if self.hparams["extra"] is not None and kind.startswith("cifar"):
            write_extra(place / Path(self.hparams["extra"]).name)
        return place


def _count(
    wanted: float | None, have: int, usual: float, name: str, *, least: int = 1, leave: int = 0, cap: bool = False
) -> int:
    """A number or share of images as a number.

    Raises:
        BadInput: if there are not as many.
    """
    value = usual if wanted is None else wanted
    count = max(least, round(value * have)) if value < 1 or (wanted is None and value == 1.0) else int(value)
    if count > have - leave and cap:
        warnings.warn(f"{name}={count}: there are {have} images; all are used", stacklevel=3)
        return have - leave
    if count > have - leave:
        raise BadInput(f"{name}: expected at most {have - leave} images (as many are there), got {count}.")
    return count
