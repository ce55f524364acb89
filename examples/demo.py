"""A tour in a few minutes: detect, draw, fine-tune on two processes, measure, save, reload. `make demo` runs it.

Every step prints the Python line or the command it stands for. Results are in `demo_output/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("demo_output")
CLASSES = ["star", "ring", "cross"]
DATA = {"shapes": True, "classes": CLASSES, "train_size": 768, "val_size": 64, "test_size": 128, "seed": 0}


def say(title: str) -> None:
    """Announce a step."""
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n## {title}", flush=True)


def code(line: str) -> None:
    """Show the line a step stands for."""
    print(f"    {line}", flush=True)


def score(module: Any, data: Any) -> dict[str, float]:
    """Test metrics of a module, with a silent Trainer."""
    import lightning

    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    (metrics,) = trainer.test(module, data, verbose=False)
    return {name: float(metrics[f"test/{name}"]) for name in ("map", "map_50")}


def detect() -> None:
    """Load published weights and find digits in a scene they never saw."""
    import zoo
    from datamodules.worlds.digit_scenes import compose

    say("1. Load trained weights; the file's sha256 is compared with the index on every load")
    code('model = zoo.load("alpha-iou-yolo")')
    model = zoo.load("alpha-iou-yolo")
    print(model.report)

    say("2. Detect handwritten digits on a photograph; neither was in the training data")
    scene, _, labels = compose("machu-picchu", seed=7, size=(256, 192), split="test")
    scene.save(OUT / "scene.png")
    code(f'result = model.predict("{OUT}/scene.png")[0]')
    code(f'model.show("{OUT}/scene.png", result).save("{OUT}/digits.png")')
    result = model.predict(OUT / "scene.png")[0]
    model.show(OUT / "scene.png", result).save(OUT / "digits.png")
    print(f"in the scene: {', '.join(str(int(d)) for d in sorted(labels))}")
    names = sorted(zip(result["names"], result["scores"].tolist(), strict=True))
    print("detected:     " + ", ".join(f"{name} ({score:.2f})" for name, score in names))


def fine_tune() -> Path:
    """Teach the model other classes on two processes; returns the checkpoint."""
    settings = {
        **{f"data.{key}": str(value).lower() if isinstance(value, bool) else value for key, value in DATA.items()},
        "data.batch_size": 16,
        "model.lr": 0.001,
        "trainer.max_epochs": 4,
        "trainer.check_val_every_n_epoch": 4,
        "trainer.num_sanity_val_steps": 0,
        "trainer.accelerator": "cpu",
        "trainer.devices": 2,
        "trainer.strategy": "ddp",
        "trainer.default_root_dir": OUT / "runs",
    }
    start = ["fit", "--zoo", "alpha-iou-yolo", "--weights", "alpha-iou-yolo:digitscenes-n"]
    command = [sys.executable, str(ROOT / "train.py"), *start, *(f"--{key}={value}" for key, value in settings.items())]
    say("4. Fine-tune on two processes (DDP); only the class head is new")
    code(" ".join(["python train.py", *(f"'{part}'" if "[" in part else part for part in command[2:])]))
    started = time.time()
    # one thread for each of the two processes
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"})
    print(f"took {time.time() - started:.0f} s")
    return max((OUT / "runs").rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)


def main() -> None:
    """Run the tour."""
    started = time.time()
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore")
    import logging

    import lightning  # sets its log level when imported
    import torch

    import zoo

    for logger in (lightning.pytorch._logger, logging.getLogger("lightning.pytorch.utilities.rank_zero")):
        logger.setLevel(logging.ERROR)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    detect()

    say("3. Other classes: how good is it before it has seen any?")
    code(f'model = zoo.load("alpha-iou-yolo", class_names={CLASSES})')
    model = zoo.load("alpha-iou-yolo", class_names=CLASSES)
    print(model.report)
    code(f'data = zoo.datamodule("alpha-iou-yolo", shapes=True, classes={CLASSES}, ...)   # or root="my_coco"')
    data = zoo.datamodule("alpha-iou-yolo", **DATA)
    before = score(model, data)
    print(f"test mAP50:95 {before['map']:.3f}, mAP50 {before['map_50']:.3f} (it finds boxes, but guesses classes)")

    checkpoint = fine_tune()

    say("5. The same test afterwards")
    code(f'tuned = zoo.load("{checkpoint}")')
    tuned = zoo.load(checkpoint)
    after = score(tuned, zoo.datamodule("alpha-iou-yolo", **DATA))
    for name, title in (("map", "mAP50:95"), ("map_50", "mAP50")):
        print(f"test {title} {before[name]:.3f} -> {after[name]:.3f}")

    say("6. Save it as safetensors, load that, and get the same answer")
    code(f'zoo.save(tuned, "{OUT}/shapes"); again = zoo.load("{OUT}/shapes")')
    zoo.save(tuned, OUT / "shapes")
    again = zoo.load(OUT / "shapes")
    picture = zoo.datamodule("alpha-iou-yolo", **DATA).split("test")[0]["image"]  # type: ignore[index]
    first, second = tuned.predict(picture)[0], again.predict(picture)[0]
    same = all(torch.equal(first[key], second[key]) for key in ("boxes", "scores", "labels"))
    again.show(picture, second).save(OUT / "shapes.png")
    print(f"detected {', '.join(second['names']) or 'nothing'}; identical to before saving: {same}")
    if not same:
        raise SystemExit("the reloaded model answers differently")
    print(f"\nPictures: {OUT}/digits.png, {OUT}/shapes.png. Done in {time.time() - started:.0f} s.")
    print("Next: zoo list; zoo info alpha-iou-yolo; docs/own-data.md")


if __name__ == "__main__":
    main()
