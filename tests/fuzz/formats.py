"""Every kind of file that is read: how a good one is made, which files of it are damaged, and how it is read."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from toys import hub as toys

import zoo
from datamodules.boxes import BoxesDataModule
from datamodules.boxes.records import image_size
from datamodules.clients import ClientsDataModule
from datamodules.images import ImagesDataModule
from datamodules.series import SeriesDataModule
from datamodules.steel import SteelStripDataModule
from datamodules.tracks import TracksDataModule
from zoo.claims.results import read_results
from zoo.claims.schema import read_claims
from zoo.index.reading import read_index
from zoo.index.recipes import read_sections
from zoo.inputs.images import read_frames, read_image
from zoo.nn.classifiers import create_classifier, load_classifier_weights
from zoo.store import read_state
from zoo.store.checkpoint import read_checkpoint
from zoo.store.folder import golden_problems

__all__ = ["FORMATS", "Format"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        make: writes a good folder.
        files: pattern below it of the files that are damaged.
        read: reads the folder; the second argument is the damaged file, the third alternates between policies.
        words: that mean something in this format.
        weight: share of the files; below 1 where one takes long.
    """

    make: Callable[[Path], Any]
    files: str
    read: Callable[[Path, Path, bool], Any]
    words: tuple[bytes, ...] = ()
    weight: float = 1.0


FORMATS: dict[str, Format] = {}


# Boxes ------------------------------------------------------------------------------------------------------------


def _boxes(kind: str) -> tuple[Callable[[Path], Any], Callable[[Path, Path, bool], Any]]:
    def make(root: Path) -> None:
        BoxesDataModule().fake(root, kind, images=3)

    def read(root: Path, file: Path, skip: bool) -> None:
        data = BoxesDataModule(str(root), format=kind, img_size=32, on_error="skip" if skip else "raise")
        data.facts()
        split: Any = data.split("train")
        data.collate([split[i] for i in range(len(split))][:4])

    return make, read


_make, _read = _boxes("coco")
FORMATS["coco"] = Format(_make, "annotations/*train*.json", _read)
_make, _read = _boxes("voc")
FORMATS["voc"] = Format(_make, "**/Annotations/*.xml", _read, (b"<object>", b"<name>", b"<difficult>1</difficult>"))
FORMATS["voc lists"] = Format(_make, "**/ImageSets/Main/*.txt", _read)
_make, _read = _boxes("yolo")
FORMATS["yolo txt"] = Format(_make, "labels/train/*.txt", _read)
FORMATS["yolo yaml"] = Format(_make, "*.yaml", _read, (b"names: [a, b]", b"{0: a, x: b}"))


def _make_classes(root: Path) -> None:
    BoxesDataModule().fake(root, "yolo", images=3)
    for path in root.glob("*.yaml"):
        path.unlink()
    (root / "classes.txt").write_text("".join(f"class {i}\n" for i in range(80)))


FORMATS["yolo classes"] = Format(_make_classes, "classes.txt", _read)


def _make_cvat(root: Path) -> None:
    BoxesDataModule().fake(root, "coco", images=4)
    items = BoxesDataModule(str(root), img_size=32).records("train").items
    images = [
        f'<image name="train2017/{item.path.name}" width="{width}" height="{height}">'
        + "".join(f'<box label="a" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"/>' for b in item.boxes.tolist())
        + "</image>"
        for item in items
        for height, width in [item.size or (0, 0)]
    ]
    text = f"<annotations><label><name>a</name></label>{''.join(images)}</annotations>"
    (root / "annotations.xml").write_text(text)


FORMATS["cvat"] = Format(_make_cvat, "annotations.xml", _boxes("cvat")[1], (b"<polygon>", b"<image ", b"<box "))


# Pictures ---------------------------------------------------------------------------------------------------------


def _pictures(ending: str, **options: Any) -> Format:
    def make(root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(3)
        pictures = [Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)) for _ in range(2)]
        pictures[0].save(root / f"a.{ending}", **options)
        pictures[1].quantize(5).convert("RGB" if ending in ("jpg", "webp", "ppm") else "P").save(root / f"b.{ending}")
        if ending in ("gif", "webp", "tiff"):
            pictures[0].save(root / f"c.{ending}", save_all=True, append_images=pictures[1:])

    def read(root: Path, file: Path, skip: bool) -> None:
        if skip:
            read_image(file)
        elif ending == "gif":
            read_frames(file)
        else:
            with contextlib.suppress(zoo.inputs.UnreadableError):
                image_size(file)
            read_image(file)

    return Format(make, f"*.{ending}", read, weight=0.7)


FORMATS |= {e: _pictures(e) for e in ("png", "jpg", "tiff", "gif", "webp", "bmp", "ppm")}


def _images(kind: str, files: str, module: type[ImagesDataModule] = ImagesDataModule, **options: Any) -> Format:
    def make(root: Path) -> None:
        ImagesDataModule().fake(root, kind, images=10)

    def read(root: Path, file: Path, skip: bool) -> None:
        data = module(root=str(root), format=kind, **options)
        data.facts()
        split: Any = data.split("test" if "test" in file.name or "t10k" in file.name else "train")
        split[0]

    return Format(make, files, read, weight=0.5 if kind.startswith("c") else 1.0)


FORMATS["idx"] = _images("mnist", "**/*ubyte.gz")
FORMATS["cifar-10"] = _images("cifar-10", "*/*batch*")
FORMATS["svhn"] = _images("svhn", "*.mat")
FORMATS["gtsrb"] = _images("gtsrb", "**/*.csv")
FORMATS["celeba"] = _images("celeba", "celeba/*.txt")
FORMATS["npz images"] = _images("npz", "*.npz")


def _make_plain_idx(root: Path) -> None:
    import gzip

    ImagesDataModule().fake(root, "mnist", images=10)
    for path in root.rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


FORMATS["idx plain"] = Format(_make_plain_idx, "**/*ubyte", FORMATS["idx"].read)


def _make_metadata(root: Path) -> None:
    ImagesDataModule().fake(root, "folders", images=10)
    for split in ("train", "test"):
        names = [p.relative_to(root / split).as_posix() for p in sorted((root / split).rglob("*.png"))]
        rows = [f"{name},{i % 3},{i / 7:.3f},{i}" for i, name in enumerate(names)]
        (root / split / "metadata.csv").write_text("\n".join(["file_name,group,x,y", *rows]) + "\n")


def _read_metadata(root: Path, file: Path, skip: bool) -> None:
    data = ClientsDataModule(root=str(root), format="folders", partition="spatial" if skip else "group", num_clients=3)
    data.facts()
    data.split("train")


FORMATS["metadata"] = Format(_make_metadata, "*/metadata.csv", _read_metadata, weight=0.5)


# Series and signals -----------------------------------------------------------------------------------------------


def _series(kind: str) -> Format:
    def make(root: Path) -> None:
        SeriesDataModule(length=16, train_size=9, test_size=6).fake(root, kind)

    def read(root: Path, file: Path, skip: bool) -> None:
        missing = "interpolate" if skip else "refuse"
        data = SeriesDataModule(
            root=str(root), format=kind, missing=missing, target="value" if skip and kind != "ts" else "auto"
        )
        data.facts()
        split: Any = data.split("train")
        split[0]

    words = (b"@data", b"@classLabel true", b"@targetLabel true", b":", b"?", b"@dimensions 9")
    return Format(make, f"*.{kind}", read, words)


FORMATS |= {f"series {kind}": _series(kind) for kind in ("ts", "tsv", "npz")}


def _make_steel(root: Path) -> None:
    SteelStripDataModule(length=64).fake(root)


def _read_steel(root: Path, file: Path, skip: bool) -> None:
    from zoo.methods.steel_roughness.inputs import read_section

    if skip and file.suffix == ".npz":
        read_section(file, 0, 8, None, True)
        return
    data = SteelStripDataModule(root=str(root))
    data.facts()
    split: Any = data.split("train")
    split[0]


FORMATS["steel npz"] = Format(_make_steel, "coil_000/*.npz", _read_steel)
FORMATS["steel csv"] = Format(_make_steel, "splits.csv", _read_steel)


# Tracks -----------------------------------------------------------------------------------------------------------


def _tracks(kind: str, files: str, *words: bytes) -> Format:
    def make(root: Path) -> None:
        TracksDataModule().fake(root, kind, tracks=4)
        for path in root.rglob("*"):  # a few points of each are enough
            if path.suffix in (".csv", ".plt", ".txt") and kind != "porto":
                path.write_text("".join(path.read_text().splitlines(keepends=True)[:40]))

    def read(root: Path, file: Path, skip: bool) -> None:
        chosen = kind if skip else None  # recognised in every other case
        data = TracksDataModule(root=str(root), format=chosen, on_error="skip" if skip else "raise")
        data.facts()
        split: Any = data.split("predict")
        data.collate([split[i] for i in range(len(split))][:4])

    return Format(make, files, read, words)


FORMATS["tracks csv"] = _tracks("csv", "*.csv", b"id,lon,lat,t\n", b"2024-05-01T10:00:00Z")
FORMATS["geojson"] = _tracks("geojson", "*.geojson", b'"coordinates"', b'"times"')
FORMATS["geolife"] = _tracks("geolife", "**/*.plt")
FORMATS["tdrive"] = _tracks("tdrive", "*/*.txt")
FORMATS["porto"] = _tracks("porto", "*.csv", b'"[[', b"POLYLINE")
FORMATS["flights"] = _tracks("flights", "*.json.gz")
FORMATS["gpx"] = _tracks("gpx", "*.gpx", b"<trkpt>", b"<time>", b"<trkseg>", b"<!ENTITY x 'y'>")
FORMATS["kml"] = _tracks("kml", "*.kml", b"<when>", b"<gx:coord>", b"<Placemark>")


# Weights, configurations and evidence -----------------------------------------------------------------------------


def _make_saved(root: Path) -> None:
    zoo.register(toys.entry(), replace=True)
    zoo.save(toys.trained(), root / "saved")


def _read_saved(root: Path, file: Path, skip: bool) -> None:
    zoo.load(root / "saved", weights=not skip)


def _read_tensors(root: Path, file: Path, skip: bool) -> None:
    read_state(file, finite=not skip)


def _read_golden(root: Path, file: Path, skip: bool) -> None:
    golden_problems(toys.trained(), file)


FORMATS["config.json"] = Format(_make_saved, "saved/config.json", _read_saved)
FORMATS["saved weights"] = Format(_make_saved, "saved/model.safetensors", _read_saved, weight=0.3)
FORMATS["safetensors"] = Format(_make_saved, "saved/model.safetensors", _read_tensors)
FORMATS["golden"] = Format(_make_saved, "saved/golden.safetensors", _read_golden)


def _make_checkpoint(root: Path) -> None:
    zoo.register(toys.entry(), replace=True)
    module = toys.trained()
    content: dict[str, Any] = {"epoch": 1, "global_step": 3, "state_dict": module.state_dict()}
    content |= {"pytorch-lightning_version": "2.6.6", "hyper_parameters": dict(module.hparams), "callbacks": {}}
    module.on_save_checkpoint(content)
    root.mkdir(parents=True, exist_ok=True)
    torch.save(content, root / "last.ckpt")


def _read_checkpoint(root: Path, file: Path, skip: bool) -> None:
    if skip:
        read_checkpoint(file)
    else:
        zoo.load(file)


FORMATS["ckpt"] = Format(_make_checkpoint, "*.ckpt", _read_checkpoint)


def _make_weights(root: Path) -> None:
    """A state dict as torch writes it, and as it did before version 1.6."""
    root.mkdir(parents=True, exist_ok=True)
    state = create_classifier("resnet10-w7", 2, 1).state_dict()
    for name, modern in (("new.pt", True), ("old.pth", False)):
        torch.save({"net": state, "epoch": 3}, root / name, _use_new_zipfile_serialization=modern)


def _read_weights(root: Path, file: Path, skip: bool) -> None:
    load_classifier_weights(create_classifier("resnet10-w7", 2, 1), file)


FORMATS["weights"] = Format(_make_weights, "*.pt*", _read_weights)


def _make_texts(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    whole = (ROOT / "checkpoints.yaml").read_text(encoding="utf-8")
    blocks = whole.split("\n\n")
    (root / "index.yaml").write_text("\n\n".join(blocks[:2]) if len(blocks) > 4 else whole, encoding="utf-8")
    recipe = next((ROOT / "zoo" / "methods").glob("*/recipes/*.yaml"))
    (root / "recipe.yaml").write_bytes(recipe.read_bytes())
    card = ROOT / "model_cards" / "soft-rocket"
    (root / "claims.yaml").write_bytes((card / "claims.yaml").read_bytes())
    results = json.loads((card / "results.json").read_text(encoding="utf-8"))
    results["runs"] = dict(list(results["runs"].items())[:3])
    (root / "results.json").write_text(json.dumps(results), encoding="utf-8")


def _read_index(root: Path, file: Path, skip: bool) -> None:
    read_index(file)


def _read_recipe(root: Path, file: Path, skip: bool) -> None:
    read_sections(file, "recipe")


def _read_claims(root: Path, file: Path, skip: bool) -> None:
    from zoo.index import entries

    read_claims(entries()["soft-rocket"], file)


def _read_results(root: Path, file: Path, skip: bool) -> None:
    read_results(file)


FORMATS["index"] = Format(_make_texts, "index.yaml", _read_index, (b"init:", b"sha256: 0"))
FORMATS["recipe"] = Format(_make_texts, "recipe.yaml", _read_recipe, (b"model:", b"after: [x]"))
FORMATS["claims"] = Format(_make_texts, "claims.yaml", _read_claims, (b"expect: higher", b"arms: {}"))
FORMATS["results"] = Format(_make_texts, "results.json", _read_results)


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Nothing of what readers print is shown."""
    return contextlib.redirect_stdout(io.StringIO())
