"""Fine-tuning by the Python lines of the README next to `zoo train`, on the same folder and with the same seed.

    python benchmarks/finetune.py [--seeds 3] [--only NAME] [--out FILE]

Three methods, a folder each with classes of its own, some ten minutes in all. A ratio is that of errors, 1 minus the
metric on the validation split after the last epoch: below 1 the Python lines are better.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image

import zoo
from datamodules.images import ImagesDataModule
from datamodules.worlds.digit_scenes import SceneConfig, render
from zoo import training
from zoo.files import versions

BARE: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: `id:tag` of the weights.
        metric: logged key.
        epochs: of both sides.
        data: arguments of the data module, given on both sides.
    """

    name: str
    metric: str
    epochs: int
    data: dict[str, Any]


CASES = (
    Case("alpha-iou-yolo:digitscenes-p", "val/map", 4, {"batch_size": 8, "img_size": 160, "augment": "none"}),
    Case("rslad:fmnist-resnet10w24-natural", "val/accuracy", 4, {"batch_size": 16}),
    Case("uav-swarm-fl:fmnist-fedavg", "val/accuracy", 4, {"batch_size": 16, "num_clients": 2, "partition": "iid"}),
)


def write_boxes(root: Path) -> Path:
    """Scenes with three kinds of digits, in COCO's format, under names of their own."""
    names = ["one", "four", "seven"]
    config = SceneConfig(160, 1, ("1", "4", "7"))
    for split, folder, count in (("train", "train", 96), ("val", "valid", 48)):
        (root / folder).mkdir(parents=True)
        content: dict[str, list[Any]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": k, "name": name} for k, name in enumerate(names)]
        for i in range(count):
            pixels, boxes, labels = render(config, split, i)[:3]
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 160})
            for (x1, y1, x2, y2), label in zip(np.asarray(boxes).tolist(), np.asarray(labels).tolist(), strict=True):
                box = {"id": len(content["annotations"]), "image_id": i, "category_id": int(label)}
                size = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                content["annotations"].append({**box, **size})
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def write_pictures(root: Path) -> Path:
    """Ten classes of clothes as folders, whose alphabet is another order than that of the weights."""
    data = ImagesDataModule()
    names = [name.replace("/", " ") for name in data.facts()["class_names"]]
    for split, each in (("train", 24), ("val", 24)):
        seen = dict.fromkeys(names, 0)
        source: Any = data.split(split)
        for i in range(len(source)):
            item = source[i]
            name = names[int(item["label"])]
            if seen[name] < each:
                place = root / split / name
                place.mkdir(parents=True, exist_ok=True)
                pixels = (item["image"][0] * 255).round().to(torch.uint8).numpy()
                Image.fromarray(pixels).save(place / f"{seen[name]}.png")
                seen[name] += 1
            elif min(seen.values()) == each:
                break
    return root


def by_python(case: Case, root: Path, seed: int) -> float:
    """The README's lines."""
    lightning.seed_everything(seed, verbose=False)
    data = zoo.datamodule(case.name, root=root, seed=seed, **case.data)
    model = zoo.load(case.name, num_classes=data.facts()["num_classes"])
    trainer = lightning.Trainer(
        max_epochs=case.epochs, accelerator="cpu", devices=1, enable_checkpointing=False, **BARE
    )
    trainer.fit(model, data)
    return float(trainer.callback_metrics[case.metric])


def by_command(case: Case, root: Path, seed: int) -> float:
    """`zoo train --weights`."""
    settings = {"data.root": root, "data.seed": seed, "seed_everything": seed, "trainer.max_epochs": case.epochs}
    settings |= {f"data.{key}": value for key, value in case.data.items()}
    settings |= {f"trainer.{key}": value for key, value in BARE.items()}
    settings |= {"trainer.accelerator": "cpu", "trainer.devices": 1, "trainer.default_root_dir": root.parent / "runs"}
    words = [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]
    done = training.run(["fit", "--zoo", case.name, "--weights", case.name, *words])
    return float(done.trainer.callback_metrics[case.metric])


def compare(case: Case, root: Path, seeds: int) -> dict[str, Any]:
    """One row: means over the seeds, and the ratio of the errors."""
    ours = [by_python(case, root, seed) for seed in range(seeds)]
    theirs = [by_command(case, root, seed) for seed in range(seeds)]
    mean, other = statistics.mean(ours), statistics.mean(theirs)
    return {
        "what": case.name,
        "metric": case.metric,
        "epochs": case.epochs,
        "python": ours,
        "command": theirs,
        "ratio": (1 - mean) / (1 - other),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", metavar="NAME", help="the cases whose name has this part")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cases = [case for case in CASES if options.only is None or options.only in case.name]
    if not cases:
        parser.error(f"--only {options.only}: there is no such case, but {', '.join(c.name for c in CASES)}")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        boxes, pictures = write_boxes(Path(folder) / "boxes"), write_pictures(Path(folder) / "pictures")
        rows = [compare(case, boxes if "map" in case.metric else pictures, options.seeds) for case in cases]
    for row in rows:
        print(f"{row['what']}: {row['metric']} {row['python']} by Python, {row['command']} by zoo train")
    content = {"versions": versions("torch", "lightning"), "threads": int(os.environ.get("OMP_NUM_THREADS", 0))}
    content |= {"seeds": options.seeds, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
