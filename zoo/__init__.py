"""Published research methods as Lightning modules with verified checkpoints.

    import zoo

    zoo.list_models(task="object-detection")    # ids
    model = zoo.load(name)                      # trained, verified, in evaluation mode
    results = model.predict("street.jpg")

Importing this package imports neither torch nor lightning; they come with the first `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.files import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from zoo import errors
    from zoo.base import RoundModule, ZooModule
    from zoo.index import info, list_models, register
    from zoo.robustness.evaluate import evaluate_robustness
    from zoo.robustness.natural import evaluate_corruptions
    from zoo.store import datamodule, load, publish, pull, push, save, verify
    from zoo.training.estimators import SeriesClassifier, SeriesRegressor

__all__ = [
    "RoundModule",
    "SeriesClassifier",
    "SeriesRegressor",
    "ZooModule",
    "__version__",
    "datamodule",
    "errors",
    "evaluate_corruptions",
    "evaluate_robustness",
    "info",
    "list_models",
    "load",
    "publish",
    "pull",
    "push",
    "register",
    "save",
    "verify",
]

_HOME = {
    **dict.fromkeys(("ZooModule", "RoundModule"), "zoo.base"),
    **dict.fromkeys(("info", "list_models", "register"), "zoo.index"),
    "evaluate_corruptions": "zoo.robustness.natural",
    "evaluate_robustness": "zoo.robustness.evaluate",
    **dict.fromkeys(("datamodule", "load", "publish", "pull", "push", "save", "verify"), "zoo.store"),
    **dict.fromkeys(("SeriesClassifier", "SeriesRegressor"), "zoo.training.estimators"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "errors":
        return import_module("zoo.errors")
    from zoo.errors import nearest

    raise AttributeError(f"module 'zoo' has no attribute {name!r}.{nearest(name, __all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
