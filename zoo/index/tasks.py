"""The tasks: what a prediction holds, the Hub's name for it, and what the examples of a card feed. No torch here.

A new task is one line here: the index, `zoo list`, the conformance suite, cards and `zoo new` read this table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COLUMNS", "KEYS", "RESULTS", "TASKS", "Task"]


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        results: keys of one prediction, explained in `KEYS`. A method may add keys of its own, never another name for
            one of these.
        hub: the Hub's pipeline tag; None where none of its tags fits.
        reads: what one input is: `image`, `video`, `volume`, `series`, `table`, `graph`, `skeletons`, `tracks`,
            `gradients`, or `nothing` where predictions are drawn at random.
        prints: keys that the example in a card prints; empty: the whole prediction.
        template: what `zoo new` copies by default; `plain` where there is no base of the task yet.
    """

    results: tuple[str, ...]
    hub: str | None
    reads: str
    prints: tuple[str, ...] = ()
    template: str = "plain"

    @property
    def saves(self) -> tuple[str, ...]:
        """Formats that `zoo predict --save` can write these results in."""
        boxes = {"boxes", "scores", "labels"} <= set(self.results)
        return ("csv", "json", *(("yolo", "coco") if boxes else ()), *(("geojson",) if self.reads == "tracks" else ()))

    @property
    def example_file(self) -> str | None:
        """The file that usage lines predict for; None where a card cannot assume that the reader has one."""
        return "picture.jpg" if self.reads == "image" else None


_CLASS = ("logits", "probs", "label", "name")
_BOXES = ("boxes", "scores", "labels", "names")
_VALUE = ("value", "interval")

TASKS: dict[str, Task] = {
    "gradient-inversion": Task(("image", "label"), None, "gradients"),
    "graph-classification": Task(_CLASS, "graph-ml", "graph"),
    "image-classification": Task(_CLASS, "image-classification", "image", template="image_classifier"),
    "image-segmentation": Task(("mask", "scores", "names"), "image-segmentation", "image"),
    "image-to-image": Task(("image",), "image-to-image", "image"),
    "image-to-text": Task(("text", "score"), "image-to-text", "image", ("text", "score")),
    "keypoint-detection": Task(("points", "scores", "labels", "names"), "keypoint-detection", "image"),
    "object-detection": Task(_BOXES, "object-detection", "image", ("names", "scores", "boxes"), "detector"),
    "panoptic-segmentation": Task((*_BOXES, "masks", "panoptic", "segments_info"), "image-segmentation", "image"),
    "skeleton-classification": Task(_CLASS, None, "skeletons"),
    "tabular-classification": Task(_CLASS, "tabular-classification", "table"),
    "tabular-regression": Task(_VALUE, "tabular-regression", "table"),
    "time-series-classification": Task(_CLASS, None, "series", template="series"),
    "time-series-forecasting": Task(_VALUE, "time-series-forecasting", "series", template="series"),
    "time-series-regression": Task(_VALUE, None, "series", template="series"),
    "trajectory-join": Task(("pairs", "durations", "intervals"), None, "tracks"),
    "unconditional-image-generation": Task(("image",), "unconditional-image-generation", "nothing"),
    "video-classification": Task(_CLASS, "video-classification", "video"),
    "video-to-video": Task(("video",), "video-to-video", "video"),
    "volume-detection": Task(("centers", "diameters", "scores"), "object-detection", "volume"),
}
"""Every task, by the Hub's pipeline tag where it has exactly that task, else by a name of ours."""

RESULTS: dict[str, tuple[str, ...]] = {name: task.results for name, task in TASKS.items()}
"""Keys of a prediction per task."""

KEYS = {
    "boxes": "(n, 4) float: x1, y1, x2, y2 in pixels of the input; x2 and y2 are the outer edges",
    "centers": "(n, 3) float: z, y, x in voxels of the input",
    "diameters": "(n,) float, in voxels of the input",
    "durations": "(n,) float: seconds that each pair spends close together",
    "image": "(channels, height, width) float in [0, 1]",
    "interval": "lower and upper end of each value: its unit, and its shape with a last axis of 2",
    "intervals": "n arrays (k, 2) float: from when to when each pair is close, in seconds",
    "label": "int: number of the class",
    "labels": "(n,) int: number of each one's class",
    "logits": "(classes,) float: scores before the softmax",
    "mask": "(classes, height, width) bool: the pixels of each class, which may overlap",
    "masks": "(n, height, width) float in [0, 1]: the pixels of each object, which may overlap",
    "name": "text: name of the class",
    "names": "list of text: name of each one's class (of each class, beside `mask`)",
    "pairs": "(n, 2): which tracks come close to each other",
    "panoptic": "(height, width) int: number of the segment that each pixel belongs to; 0: none",
    "points": "(n, 2) float: x, y in pixels of the input; NaN where a point is not visible",
    "probs": "(classes,) float in [0, 1]",
    "score": "float in [0, 1]: confidence",
    "scores": "confidence in [0, 1]: (n,) of each one; beside `mask`, (classes, height, width) of each pixel",
    "segments_info": "list of {id, label, name}, as in COCO's panoptic format",
    "text": "text that was read",
    "value": "float, or (steps,) of a forecast, in the unit of the data",
    "video": "(frames, channels, height, width) float in [0, 1]",
}
"""What each key of a prediction holds."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "boxes": ("x1", "y1", "x2", "y2"),
    "centers": ("z", "y", "x"),
    "diameters": ("diameter",),
    "durations": ("seconds",),
    "intervals": ("start", "end"),
    "labels": ("label",),
    "names": ("name",),
    "pairs": ("query", "track"),
    "points": ("x", "y"),
    "scores": ("score",),
}
"""Keys that hold one entry for each object of an input, and the columns that a table of objects has for them."""
