"""Object-detection data: COCO, Pascal VOC and YOLO-text folders, and the embedded DigitScenes.

Layouts, below `root`:

    coco   annotations/instances_{train,val}2017.json with {train,val}2017/*.jpg; also instances_{train,val}.json,
           and {train,valid,test}/_annotations.coco.json beside the images
    voc    VOCdevkit/VOC{2007,2012}/{JPEGImages,Annotations,ImageSets/Main}, or one such set directly in `root`
    yolo   {images,labels}/{train,val}/* with data.yaml or classes.txt; also {train,val}/{images,labels}
    cvat   annotations.xml with images/

Sets without splits are divided by `val_share`: one COCO file, Annotations/ without lists, XML or text files beside the
images (LabelImg; YOLO with classes.txt), images/ with labels/, a task of CVAT (see `datamodules.boxes.whole`).
`BoxesDataModule.fake(folder)` writes a miniature of each to look at.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datamodules.base import ZooDataModule, data_cache
from datamodules.boxes.advice import doubts, fitting, median_side
from datamodules.boxes.augment import Augment, make_augment
from datamodules.boxes.coco import find_coco, read_coco, read_coco_categories
from datamodules.boxes.cvat import cvat_class_names, read_cvat
from datamodules.boxes.dataset import BoxesDataset, FileSource, SceneSource, collate_boxes
from datamodules.boxes.fake import write_fake
from datamodules.boxes.labels import draw_subset, parse_noise
from datamodules.boxes.records import POLICIES, Checker, Record, Records, choose_classes
from datamodules.boxes.scenes import load_scenes
from datamodules.boxes.voc import find_voc, read_voc, voc_class_names
from datamodules.boxes.whole import find_whole, share_of
from datamodules.boxes.yolo import find_yolo, read_yolo, yolo_class_names
from datamodules.worlds.digit_scenes import SceneConfig
from zoo import checks
from zoo.errors import BadData, BadInput, RepositoryNotFound
from zoo.inputs.geometry import check_size

__all__ = ["FORMATS", "BoxesDataModule"]

FORMATS = ("auto", "coco", "voc", "yolo", "cvat", "digit-scenes")
_RAM_LIMIT = 1_000_000_000  # bytes of letterboxed images that cache="auto" keeps in memory
_FEW_PIXELS = 8  # sides of objects below this are hardly seen
_HEADER_LIMIT = 20_000  # images whose headers check_images=None reads at the start

_log = logging.getLogger(__name__)


class BoxesDataModule(ZooDataModule):
    """Images with axis-aligned boxes.

    Batch: `index` int64 (B,), `image` float32 (B, 3, S, S) in 0..1, `boxes` and `labels` lists of float32 (n, 4) xyxy
    in input pixels and int64 (n,), `image_id` list, and the way back to original pixels: `scale` (B,), `pad` (B, 2)
    left and top, `size` (B, 2) height and width (see `zoo.inputs.geometry.to_original`). For scores: `area`, lists of
    float32 (n,) original pixels where the data say them, else 0; `ignored` and `ignored_labels`, lists of regions whose
    detections do not count.

    Args:
        root: folder of the data; None for the embedded DigitScenes.
        format: coco, voc, yolo, cvat, digit-scenes, or auto to find out.
        img_size: side of the square input, a multiple of 32; images are letterboxed on grey.
        batch_size: images per batch and process.
        num_workers: loader processes.
        seed: order, augmentation, label noise and subset; never the embedded scenes, so that test scores compare.
        classes: class names to use, in label order; other boxes are dropped (DigitScenes: not drawn). None: all.
        train_size: number of DigitScenes for training.
        val_size: number of DigitScenes for validation.
        test_size: number of DigitScenes for the test.
        scene_seed: another number gives other DigitScenes.
        shapes: DigitScenes also show ellipses, polygons, stars, rings and crosses.
        extra_photos: DigitScenes for training also use photographs of other installed packages (the data then differ
            between machines).
        label_noise: training boxes only: "uniform:E" shifts and stretches each by up to E of its sides; "mixture:P"
            does so by 0.5 with probability P, else by 0.05. Drawn once per seed.
        subset: fraction of the training images to use.
        augment: preset "none", "light" (flip, colour, shift, zoom) or "full" (also mosaic and mixup); `flip` to
            `mixup` override it. Digits are not flipped unless `flip` says so.
        flip: probability of a horizontal flip.
        flip_vertical: probability of a vertical flip.
        hsv: largest relative change of hue, saturation, value.
        degrees: largest rotation, in degrees.
        translate: largest shift, as a fraction of the image.
        scale: largest relative change of size; 0.5 zooms 0.5 to 1.5 times.
        shear: largest shear, in degrees.
        mosaic: probability of joining four images.
        mixup: probability of blending in another image.
        mosaic_epochs: number of epochs with mosaic and mixup; None for all.
        multi_scale: training batches vary in size by up to this many steps of 32 px.
        train_split: name of the split for training. COCO and YOLO: a folder such as "train2017"; VOC: lists such as
            "2007/trainval+2012/trainval". None: the usual names.
        val_split: name of the split for validation, written as for training. None: the usual names.
        test_split: name of the split for the test, written as for training. None: the usual names.
        val_share: share of the images for validation and test, where the data have no splits.
        voc_one_based: VOC coordinates count from 1 and include the last pixel (the official sets do).
        voc_difficult: objects flagged difficult count. Otherwise they are not trained on, and neither right nor wrong
            to detect, like crowd regions of COCO.
        on_error: "raise" names every broken entry at once; "clip" cuts boxes at the border of the image and leaves out
            what else is broken; "skip" leaves out whatever is broken. Up to 2 px over the border is cut in any case.
        min_side: boxes with a side shorter than this, in original pixels, are left out with a warning; detecting them
            is neither right nor wrong.
        check_images: read every image's header at the start; None: if there are at most 20,000.
        follow_symlinks: accept links that lead out of `root`.
        cache: "ram" keeps letterboxed images in memory, "none" decodes each time, "auto" keeps up to 1 GB.
        predict_root: folder of images for `predict`; None: the test split.
    """

    describes_data: ClassVar[tuple[str, ...]] = (
        *ZooDataModule.describes_data,
        "classes",
        "train_split",
        "val_split",
        "test_split",
        "voc_one_based",
        "voc_difficult",
    )

    def __init__(
        self,
        root: str | None = None,
        format: str = "auto",
        img_size: int = 160,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        classes: list[str] | None = None,
        train_size: int = 4000,
        val_size: int = 1000,
        test_size: int = 1000,
        scene_seed: int = 0,
        shapes: bool = False,
        extra_photos: bool = False,
        label_noise: str | None = None,
        subset: float = 1.0,
        augment: str = "none",
        flip: float | None = None,
        flip_vertical: float | None = None,
        hsv: list[float] | None = None,
        degrees: float | None = None,
        translate: float | None = None,
        scale: float | None = None,
        shear: float | None = None,
        mosaic: float | None = None,
        mixup: float | None = None,
        mosaic_epochs: int | None = None,
        multi_scale: int = 0,
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        val_share: float = 0.2,
        voc_one_based: bool = True,
        voc_difficult: bool = False,
        on_error: str = "raise",
        min_side: float = 2.0,
        check_images: bool | None = None,
        follow_symlinks: bool = False,
        cache: str = "auto",
        predict_root: str | None = None,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.img_size = check_size(img_size)
        self.classes = None if classes is None else [str(name) for name in classes]
        self.noise = parse_noise(label_noise)
        self.augmentation = self._augmentation(root, augment)
        self._format: str | None = None if format == "auto" else format
        self._names: tuple[list[str], list[int]] | None = None
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Refuse unusable arguments now, not after minutes of reading."""
        given = self.hparams
        for key, known in (("format", FORMATS), ("cache", ("auto", "ram", "none")), ("on_error", POLICIES)):
            checks.one_of(key, given[key], known)
        if given["format"] != "auto" and (given["format"] == "digit-scenes") != (self.root is None):
            arguments = f"format={given['format']!r} and root={given['root']!r}"
            raise BadInput(
                "coco, voc, yolo and cvat need root (the folder of the data), digit-scenes takes none; got "
                f"{arguments}."
            )
        for key, least in (("train_size", 1), ("val_size", 1), ("test_size", 1), ("multi_scale", 0), ("min_side", 0)):
            if given[key] < least:
                raise BadInput(f"{key}: expected at least {least}, got {given[key]}.")
        draw_subset(10, given["subset"], self.seed)
        if not 0 < given["val_share"] < 1:
            raise BadInput(f"val_share: expected a share in (0, 1), got {given['val_share']}.")

    def _augmentation(self, root: str | None, preset: str) -> Augment:
        keys = ("flip", "flip_vertical", "hsv", "degrees", "translate", "scale", "shear", "mosaic", "mixup")
        given = {key: self.hparams[key] for key in keys}
        if root is None and given["flip"] is None:
            given["flip"] = 0.0  # a mirrored digit is another sign
        return make_augment(preset, given)

    # What the data are --------------------------------------------------------------------------------------------

    @property
    def format(self) -> str:
        """The format in use, detected on first use if it was "auto"."""
        if self._format is None:
            self._format = "digit-scenes" if self.root is None else self._detect(self._folder())
        return self._format

    def _folder(self) -> Path:
        assert self.root is not None
        if not self.root.is_dir():
            raise RepositoryNotFound(
                f"root: expected a folder with images and boxes, but there is nothing at {self.root}."
            )
        return self.root.resolve()

    def _detect(self, root: Path) -> str:
        for name in ("coco", "voc", "yolo"):
            if any(self._find(name, root, split) is not None for split in ("train", "val", "test")):
                return name
        for name in ("coco", "voc", "cvat", "yolo"):
            if find_whole(name, root) is not None:
                return name
        seen = ", ".join(sorted(path.name for path in root.iterdir())[:12]) or "nothing"
        raise BadData(
            f"{root}: no data format recognised. Looked for COCO (annotations/instances_train2017.json or "
            "train/_annotations.coco.json), VOC (VOCdevkit/VOC2007/ or ImageSets/Main/ beside Annotations/) and YOLO "
            "(images/train/ with labels/train/, or train/images/), and for sets without splits: one COCO file, XML or "
            f"text files beside the images, annotations.xml of CVAT. There is: {seen}. "
            "Pass format= and train_split= if the names differ; fake(folder) writes an example of each layout."
        )

    def _find(self, kind: str, root: Path, split: str) -> Any:
        name = self.hparams[f"{split}_split"]
        finders: dict[str, Any] = {"coco": find_coco, "voc": find_voc, "yolo": find_yolo}
        return finders[kind](root, split, name) if kind in finders else None

    def _whole(self) -> Any:
        """The files of a set without splits; None if it has some, or they were named."""
        root, splits = self._folder(), ("train", "val", "test")
        if any(self.hparams[f"{s}_split"] or self._find(self.format, root, s) is not None for s in splits):
            return None
        return find_whole(self.format, root)

    def _split_files(self, split: str) -> Any:
        """Where a split is; a missing test split is replaced by val, which is said once."""
        root = self._folder()
        files = self._find(self.format, root, split) or self._whole()
        if files is None and split == "test":
            warnings.warn(f"{root} has no test split with annotations: testing on the val split", stacklevel=3)
            return self._split_files("val")
        if files is None:
            raise BadData(
                f"{root}: expected a {split} split in {self.format} format, got none. "
                f"Pass {split}_split= if it has an unusual name."
            )
        return files

    def read_facts(self) -> dict[str, Any]:
        """Class names, their ids in the data set, and the input size; no image is opened."""
        names, ids = self._class_names()
        if self.classes is not None and self.format != "digit-scenes":
            chosen = choose_classes(Records([], names, ids), self.classes)
            names, ids = chosen.class_names, chosen.category_ids
        return {
            "num_classes": len(names),
            "class_names": list(names),
            "category_ids": list(ids),
            "img_size": self.img_size,
            "channels": 3,
        }

    @property
    def has_class_names(self) -> bool:
        """Not so for YOLO labels without a file of names."""
        names, _ = self._class_names()
        return self.format != "yolo" or names != [str(i) for i in range(len(names))]

    def _class_names(self) -> tuple[list[str], list[int]]:
        """All classes of the data (before `classes` chooses among them) and their ids."""
        if self._names is None:
            if self.format == "digit-scenes":
                names = list(self._scene_config().names)
                self._names = names, list(range(len(names)))
            elif self.format == "coco":
                self._names = read_coco_categories(self._any_split()[0])
            else:
                if self.format == "yolo":
                    names = yolo_class_names(self._folder())
                elif self.format == "cvat":
                    names = cvat_class_names(self._any_split()[0])
                else:
                    names = voc_class_names(self._any_split())
                self._names = names, list(range(len(names)))
            if not self._names[0]:
                raise BadData(f"{self.root}: expected at least one class, got no objects in the training annotations")
        return self._names

    def _any_split(self) -> Any:
        for split in ("train", "val", "test"):
            files = self._find(self.format, self._folder(), split)
            if files is not None:
                return files
        return self._split_files("train")

    def _scene_config(self) -> SceneConfig:
        given = self.hparams
        classes = None if self.classes is None else tuple(self.classes)
        return SceneConfig(self.img_size, given["scene_seed"], classes, given["shapes"], given["extra_photos"])

    # Data sets ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Render the embedded scenes once per machine (Lightning calls this on one process only)."""
        if self.format != "digit-scenes":
            return
        doing = getattr(getattr(getattr(self, "trainer", None), "state", None), "fn", None)
        later = () if self.hparams["predict_root"] else ("test",)
        needed = {"validate": ("val",), "test": ("test",), "predict": later}.get(str(doing), ("train", "val"))
        for split in needed:
            self._scenes(split)

    def _scenes(self, split: str) -> SceneSource:
        count = int(self.hparams[f"{split}_size"])
        return SceneSource(load_scenes(self._scene_config(), split, count, data_cache(), _log.info))

    def _source(self, split: str) -> SceneSource | FileSource:
        if self.format == "digit-scenes":
            return self._scenes(split)
        return FileSource(self.records(split).items)

    def records(self, split: str) -> Records:
        """Read and check the annotations of a split of the user's data.

        Raises:
            BadData: naming every broken entry.
        """
        given = self.hparams
        root, files = self._folder(), self._split_files(split)
        checker = Checker(root, given["on_error"], given["min_side"], follow_symlinks=given["follow_symlinks"])
        records = self._read(files, checker)
        if len(records.items) > 1 and self._whole() is not None:
            records.items = [records.items[i] for i in share_of(len(records.items), split, given["val_share"])]
        check = given["check_images"]
        if self.format != "yolo" and (check or (check is None and len(records.items) <= _HEADER_LIMIT)):
            records.items = [item for item in records.items if checker.header(item)]
        if not records.items:
            checker.problems.add(split, "split", "at least one usable image", "none")
        elif split == "train" and not any(len(item.boxes) for item in records.items):
            checker.problems.add(split, "annotations", "at least one box to train on", checker.none_because())
        checker.finish(split)
        return choose_classes(records, self.classes)

    def _read(self, files: Any, checker: Checker) -> Records:
        names, ids = self._class_names()
        if self.format == "voc":
            return read_voc(files, names, checker, self.hparams["voc_one_based"], self.hparams["voc_difficult"])
        if self.format == "yolo":
            return read_yolo(files, names, checker)
        if self.format == "cvat":
            return read_cvat(files, names, checker)
        records = read_coco(files[0], files[1], checker)
        if (records.class_names, records.category_ids) != (names, ids):
            expected = f"those of the first split, {names[:20]}"
            checker.problems.add(checker.name(files[0]), "categories", expected, records.class_names[:20])
        return records

    def summary(self, split: str) -> list[str]:
        """Boxes of each class, and how large they are when the network sees them."""
        source: Any = self.split(split)
        objects = [source.targets(i) for i in range(len(source))]
        names = self.facts()["class_names"]
        counts = np.bincount(np.concatenate([labels for _, labels in objects]), minlength=len(names))
        lines = ["boxes: " + ", ".join(f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True))]
        if isinstance(source.source, FileSource) and counts.sum():
            lines.append(self._size_line(source.source.records))
        return lines + (doubts(names, counts.tolist()) if split == "train" else [])

    def fitting(self, epochs: int) -> dict[str, Any]:
        """Picture size, batch, augmentation and epochs that fit the user's pictures; see `advice.fitting`."""
        source = self._source("train")
        if not isinstance(source, FileSource):
            return {}
        now: dict[str, Any] = {key: self.hparams[key] for key in ("batch_size", "augment")}
        return fitting(source.records, img_size=self.img_size, epochs=epochs, **now)

    def _size_line(self, records: Sequence[Record]) -> str:
        """The median side of the boxes in the letterboxed input, and what helps if that is little."""
        median = self.img_size * median_side(records)
        line = f"median side of a box: {median:.0f} of {self.img_size} input pixels"
        return line + (": few. A larger img_size shows more of them" if 0 < median < _FEW_PIXELS else "")

    def dataset(self, split: str) -> BoxesDataset:
        """Build one split."""
        if split == "predict":
            source = self._predict_source()
            return BoxesDataset(source, self.img_size)
        source = self._source(split)
        if split != "train":
            return BoxesDataset(source, self.img_size, keep=self._keep(source, len(source)))
        given = self.hparams
        chosen = draw_subset(len(source), given["subset"], self.seed)
        return BoxesDataset(
            source,
            self.img_size,
            chosen,
            self.augmentation,
            given["mosaic_epochs"],
            given["multi_scale"],
            self.noise,
            self.seed,
            keep=self._keep(source, len(chosen)),
        )

    def _keep(self, source: SceneSource | FileSource, count: int) -> bool:
        mode = self.hparams["cache"]
        if source.in_memory or mode != "auto":
            return bool(mode == "ram" and not source.in_memory)
        # loader processes live for an epoch, and what they keep dies with them
        return self.num_workers == 0 and count * self.img_size**2 * 3 <= _RAM_LIMIT

    def _predict_source(self) -> SceneSource | FileSource:
        place = self.hparams["predict_root"]
        if place is None:
            return self._source("test")
        folder = Path(place).expanduser().resolve()
        if not folder.is_dir():
            raise RepositoryNotFound(f"predict_root: expected a folder of images, but there is nothing at {folder}.")
        checker = Checker(folder, self.hparams["on_error"], follow_symlinks=self.hparams["follow_symlinks"])
        records = [Record(path, path.relative_to(folder).as_posix()) for path in checker.listing.images(folder)]
        records = [item for item in records if checker.image(item.path, "image", item.path) and checker.header(item)]
        if not records:
            checker.problems.add(folder.name, "folder", "at least one image", "none")
        checker.finish("predict")
        return FileSource(records)

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Join items into a batch."""
        return collate_boxes(items)

    def fake(self, folder: str | Path, format: str | None = None, images: int = 6) -> Path:
        """Write a miniature of a real layout into `folder` and return it.

        Args:
            folder: where to; made if needed.
            format: coco, voc or yolo; None: this module's own format (coco for the embedded data).
            images: number of images per split.
        """
        kind = format or (self._format if self._format in ("coco", "voc", "yolo") else "coco")
        checks.one_of("format", kind, ("coco", "voc", "yolo"))
        return write_fake(Path(folder), str(kind), images, self.classes)
