"""Miniatures of the real on-disk layouts, for tests and for people who want to see what a folder must look like."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.worlds.land_cover import CLASSES
from zoo.errors import require

__all__ = ["write_extra", "write_fake"]

_CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_fake(folder: Path, kind: str, images: int) -> Path:
    """Write a layout with `images` training and a quarter as many test images: a bright bar per class, and noise."""
    folder.mkdir(parents=True, exist_ok=True)
    writers = {"folders": _folders, "npz": _npz, "cifar-10": _cifar10, "cifar-100": _cifar100}
    writers |= {"eurosat": _eurosat, "celeba": _celeba, "svhn": _svhn, "gtsrb": _gtsrb, "gtsrb-roi": _gtsrb}
    if kind in writers:
        writers[kind](folder, images)
    else:
        _idx(folder / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[kind] / "raw", images)
    return folder


def write_extra(path: Path) -> None:
    """Write 30 further images of the size of CIFAR, with labels, as they are published for it."""
    pixels, labels = _draw(30, 10, 32, 3, 6)
    _pickle(path, {"data": pixels, "extrapolated_targets": labels.astype("<i8")})


def _draw(count: int, classes: int, side: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, side, side, channels) and labels (N,); each class has its own bar."""
    rng = np.random.default_rng((seed, side))
    labels = np.arange(count) % classes
    images = rng.integers(0, 90, (count, side, side, channels), dtype=np.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        start = 1 + (label * (side - 4)) // classes
        image[start : start + 3, :, label % channels] = 255
    return images, labels


def _folders(folder: Path, images: int) -> None:
    for seed, (split, count) in enumerate((("train", images), ("val", images // 4 + 1), ("test", images // 4))):
        pixels, labels = _draw(max(count, 10), 10, 28, 1, seed)
        for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            place = folder / split / f"class_{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(place / f"{number:04d}.png")


def _eurosat(folder: Path, images: int) -> None:
    """Ten classes of 64x64, without splits."""
    pixels, labels = _draw(max(10, images), 10, 64, 3, 0)
    for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        name = CLASSES[label]
        place = folder / "EuroSAT" / "2750" / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{name}_{number + 1}.jpg", quality=95, subsampling=0)


def _celeba(folder: Path, images: int) -> None:
    """Faces 178x218 of a few people; two of the forty attributes."""
    place = folder / "celeba"
    (place / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    total = max(20, images + images // 2)
    pixels, smiles = _draw(total, 2, 178, 3, 0)
    first = total - total // 3
    split = [0 if i < first else 1 + (i % 2) for i in range(total)]
    files = [f"{i + 1:06d}.jpg" for i in range(total)]
    for name, image in zip(files, pixels, strict=True):
        tall = np.pad(image, ((20, 20), (0, 0), (0, 0)))
        Image.fromarray(tall).save(place / "img_align_celeba" / name, quality=95, subsampling=0)
    young = np.random.default_rng(0).choice([-1, 1], total)
    lines = [f"{n} {2 * s - 1:2d} {y:2d}" for n, s, y in zip(files, smiles.tolist(), young.tolist(), strict=True)]
    (place / "list_attr_celeba.txt").write_text("\n".join([str(total), "Smiling Young", *lines]) + "\n")
    (place / "list_eval_partition.txt").write_text("".join(f"{n} {s}\n" for n, s in zip(files, split, strict=True)))
    people = [f"{n} {1 + (i // 2) % 8}\n" for i, n in enumerate(files)]
    (place / "identity_CelebA.txt").write_text("".join(people))


def _npz(folder: Path, images: int) -> None:
    for seed, (split, count) in enumerate((("train", images), ("val", images // 4 + 1), ("test", images // 4))):
        pixels, labels = _draw(max(count, 10), 10, 28, 1, seed)
        np.savez(folder / f"{split}.npz", images=pixels[..., 0], labels=labels)


def _idx(folder: Path, images: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate((("train", images), ("t10k", max(10, images // 4)))):
        pixels, labels = _draw(count, 10, 28, 1, seed)
        for name, array in ((f"{part}-images-idx3", pixels[..., 0]), (f"{part}-labels-idx1", labels.astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
            with gzip.GzipFile(folder / f"{name}-ubyte.gz", "wb", mtime=0) as file:
                file.write(header + array.tobytes())


def _cifar10(folder: Path, images: int) -> None:
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        pixels, labels = _draw(max(10, images // 5 if number < 5 else images // 4), 10, 32, 3, number)
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        _pickle(place / name, {"data": _planes(pixels), "labels": labels.tolist(), "batch_label": name})
    _pickle(place / "batches.meta", {"label_names": _CIFAR10, "num_vis": 3072})


def _cifar100(folder: Path, images: int) -> None:
    place = folder / "cifar-100-python"
    place.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate((("train", max(200, images)), ("test", max(100, images // 4)))):
        pixels, labels = _draw(count, 100, 32, 3, seed)
        coarse = (labels // 5).tolist()
        _pickle(place / name, {"data": _planes(pixels), "fine_labels": labels.tolist(), "coarse_labels": coarse})
    names = [f"kind {i}" for i in range(100)]
    _pickle(place / "meta", {"fine_label_names": names, "coarse_label_names": [f"group {i}" for i in range(20)]})


def _planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def _pickle(path: Path, content: dict[str, object]) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def _svhn(folder: Path, images: int) -> None:
    """Digits 32x32, as MATLAB 5 writes them; zero has the label 10."""
    scipy: Any = require("scipy.io", "matlab")
    for seed, (split, count) in enumerate((("train", images), ("test", images // 4))):
        pixels, labels = _draw(max(count, 10), 10, 32, 3, seed)
        content = {"X": pixels.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]}
        scipy.savemat(str(folder / f"{split}_32x32.mat"), content, do_compression=True)


def _gtsrb(folder: Path, images: int) -> None:
    """A few classes of signs of several sizes, each with a border around it."""
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    place = folder / "GTSRB"
    for seed, (split, count) in enumerate((("train", images), ("test", images // 4))):
        pixels, labels = _draw(max(count, 12), 6, 24, 3, seed)
        tables: dict[Path, list[str]] = {}
        for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            edge = 4 + number % 3
            name = f"{number // 30:05d}_{number % 30:05d}.ppm" if split == "train" else f"{number:05d}.ppm"
            home = place / "Training" / f"{label:05d}" if split == "train" else place / "Final_Test" / "Images"
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.pad(image, ((edge, edge), (edge, edge), (0, 0)))).save(home / name)
            side, last = 24 + 2 * edge, 23 + edge
            table = home / f"GT-{home.name}.csv" if split == "train" else folder / "GT-final_test.csv"
            tables.setdefault(table, [head]).append(f"{name};{side};{side};{edge};{edge};{last};{last};{label}")
        for table, lines in tables.items():
            table.write_text("\n".join(lines) + "\n", encoding="utf-8")
