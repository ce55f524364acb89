"""Methods small enough to test the contract with: every way of learning once, before real ones of that kind exist."""

from __future__ import annotations

from zoo.index import Entry, entries, register

_DATA = "toys.tables:TableDataModule"
_PAPER = {"title": "A toy of the test suite", "year": 2026}
_REGRESSION = {"kind": "regression", "batch_size": 7}
_CLASSES = {"kind": "classes", "batch_size": 8}

TOYS = [
    Entry(
        id="toy-ridge",
        model="toys.ridge:ToyRidge",
        data=_DATA,
        task="tabular-regression",
        summary="Ridge regression, solved once from a Gram matrix.",
        paper=_PAPER,
        licence="Apache-2.0",
        can=("batch_independent", "export", "onnx", "compile"),
        learns="closed-form",
        tiny={"model": {"features": 4}, "data": _REGRESSION},
    ),
    Entry(
        id="toy-average",
        model="toys.average:ToyFedAvg",
        data=_DATA,
        task="tabular-classification",
        summary="Federated averaging of a linear classifier: each rank trains on its share, then all are averaged.",
        paper=_PAPER,
        licence="Apache-2.0",
        can=("batch_independent", "num_classes"),
        learns="rounds",
        tiny={"model": {"features": 4, "num_classes": 3}, "data": _CLASSES},
    ),
    Entry(
        id="toy-neighbours",
        model="toys.neighbours:ToyNeighbours",
        data=_DATA,
        task="tabular-classification",
        summary="Nearest neighbours: the training set is the model, an elastic buffer.",
        paper=_PAPER,
        licence="Apache-2.0",
        can=("batch_independent",),
        learns="closed-form",
        tiny={"model": {"features": 4, "num_classes": 3}, "data": _CLASSES},
    ),
    Entry(
        id="toy-classifier",
        model="toys.classifier:ToyClassifier",
        data=_DATA,
        task="tabular-classification",
        summary="A small network with dropout and tied layers.",
        paper=_PAPER,
        licence="Apache-2.0",
        can=("batch_independent", "num_classes", "export", "onnx", "compile"),
        tiny={"model": {"features": 4, "num_classes": 3, "dropout": 0.2, "tied": True}, "data": _CLASSES},
    ),
    Entry(
        id="toy-student",
        model="toys.classifier:ToyStudent",
        data=_DATA,
        task="tabular-classification",
        summary="The same with batch normalisation, an inner buffer and a frozen teacher.",
        paper=_PAPER,
        licence="Apache-2.0",
        can=("batch_independent", "num_classes", "export", "onnx", "compile"),
        tiny={"model": {"features": 4, "num_classes": 3, "norm": True, "teacher": 6}, "data": _CLASSES},
    ),
    Entry(
        id="toy-adversary",
        model="toys.adversary:ToyAdversary",
        data=_DATA,
        task="tabular-regression",
        summary="Two networks against each other, two optimisers, manual optimisation.",
        paper=_PAPER,
        licence="Apache-2.0",
        can=("batch_independent", "export"),
        tiny={"model": {"features": 4}, "data": _REGRESSION},
    ),
]


def register_toys() -> None:
    """Add the toys to the index of this process."""
    known = entries()
    for toy in TOYS:
        if toy.id not in known:
            register(toy)
