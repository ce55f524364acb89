"""Weights of another trained classifier, of whatever method, as a start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zoo.base.image_classifier import ImageClassifier
from zoo.base.other_network import find_network
from zoo.errors import BadInput, UnknownName
from zoo.nn.classifiers import create_classifier, load_classifier_weights

__all__ = ["FILES", "copy_weights", "matching"]

FILES = (".pt", ".pth", ".safetensors")
"""Endings of files with a state dict."""

_SHAPE = ("network", "num_classes", "channels", "img_size", "mean", "std")


def _classifier(name: str) -> ImageClassifier:
    with torch.random.fork_rng(devices=[]):  # building draws numbers: training must not depend on which
        model = find_network(name).model
        network = model.hparams.get("network") if isinstance(model, ImageClassifier) else None
        known = isinstance(network, str) and _known(network)
    if not isinstance(model, ImageClassifier) or not known:
        own = f" and has a network of its own ({network})" if network else ""
        raise BadInput(
            f"start {name}: expected a classifier of images with a network of zoo.nn.classifiers, it is "
            f"{type(model).__name__}, for {getattr(model, 'task', 'something else')}{own}."
        )
    return model


def _known(network: str) -> bool:
    """Whether `zoo.nn.classifiers` has a network of this name."""
    try:
        with torch.device("meta"):
            create_classifier(network, 2)
    except UnknownName:
        return False
    return True


def matching(name: str) -> dict[str, Any]:
    """Constructor arguments that give a classifier the network of another one, and its classes.

    Args:
        name: whatever `zoo.load` takes.
    """
    theirs = _classifier(name).hparams
    return {key: theirs.get(key) for key in (*_SHAPE, "class_names") if key in theirs}


def copy_weights(model: ImageClassifier, start: str) -> None:
    """Give a classifier the weights of another one with the same network.

    Args:
        model: changed in place.
        start: whatever `zoo.load` takes, or a file with a state dict.

    Raises:
        BadInput: if it has another network, other classes or another normalisation, or is more than its network.
    """
    if Path(start).suffix in FILES:
        load_classifier_weights(model.network, start)
        return
    other = _classifier(start)
    ours, theirs = model.hparams, other.hparams
    for key in _SHAPE:
        mine, its = ours.get(key), theirs.get(key)
        if key != "img_size" and mine != its:
            raise BadInput(
                f"start {start} has {key} {its}, this model {mine}: give the model that of the other one "
                "(ABL.from_classifier does)."
            )
    names = ours.get("class_names"), theirs.get("class_names")
    numbers = [str(i) for i in range(int(ours["num_classes"]))]
    if names[0] and names[1] and names[0] != names[1] and numbers not in names:
        raise BadInput(
            f"start {start} has the classes {', '.join(names[1])[:80]}, this model {', '.join(names[0])[:80]}: choose "
            "one with the same classes in the same order."
        )
    state, wanted = other.network.state_dict(), model.network.state_dict()
    same = {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in wanted.items()}
    if same:
        model.network.load_state_dict(state)
    if not same or not _agree(model, other):
        raise BadInput(
            f"start {start}: {type(other).__name__} is more than a plain {theirs['network']}, in which its weights "
            "would be another classifier: choose one that consists of this network alone."
        )


def _agree(model: ImageClassifier, other: ImageClassifier) -> bool:
    """Whether both give the same logits, as far as rounding goes, for pictures of noise."""
    channels, side = int(other.hparams["channels"]), int(other.hparams["img_size"])
    x = torch.rand(4, channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), model.inference(), other.inference():
        ours, theirs = (m(x.to(m.device)).float().cpu() for m in (model, other))
    return torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max()))
