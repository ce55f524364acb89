"""What others use to find poisoned training pictures, from the Adversarial Robustness Toolbox (extra `backdoor-eval`).

    activation_clustering     Chen et al. 2018: two clusters of a class's features, the smaller one is suspicious
    spectral_signatures       Tran et al. 2018: features that are farthest along the first singular vector of a class

Both need a network that was trained on the data, and return numbers of pictures, which `ABL(suspects=...)` can unlearn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zoo.base.image_classifier import ImageClassifier
from zoo.errors import MissingExtra

__all__ = ["activation_clustering", "art_classifier", "spectral_signatures"]


def _art() -> Any:
    try:
        import art
    except ImportError as error:
        raise MissingExtra(
            'The baselines need the Adversarial Robustness Toolbox: pip install "lightning-method-zoo[backdoor-eval]"'
        ) from error
    return art


def art_classifier(model: ImageClassifier) -> Any:
    """A classifier of the zoo as one of the toolbox, whose layer 0 are the features before the last linear layer.

    Args:
        model: in evaluation mode.
    """
    _art()
    from art.estimators.classification import PyTorchClassifier

    options = model.hparams
    shape = (int(options["channels"]), int(options["img_size"]), int(options["img_size"]))
    loss, classes = torch.nn.CrossEntropyLoss(), int(options["num_classes"])
    device = "gpu" if model.device.type == "cuda" else "cpu"
    return PyTorchClassifier(
        model.eval(), loss, input_shape=shape, nb_classes=classes, clip_values=(0.0, 1.0), device_type=device
    )


def _features(model: ImageClassifier, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """What the last linear layer gets, (N, D)."""
    seen: list[torch.Tensor] = []
    head = [m for m in model.network.modules() if isinstance(m, torch.nn.Linear)][-1]
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().cpu()))
    try:
        with model.inference():
            for start in range(0, len(images), batch_size):
                model(torch.from_numpy(images[start : start + batch_size]).to(model.device))
    finally:
        handle.remove()
    return torch.cat(seen).numpy()


def activation_clustering(model: ImageClassifier, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Numbers of the pictures that the toolbox's `ActivationDefence` takes for poisoned.

    Args:
        model: trained on the pictures.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int (N,), as given.
    """
    _art()
    from art.defences.detector.poison import ActivationDefence

    defence = ActivationDefence(
        art_classifier(model), images, np.eye(int(model.hparams["num_classes"]))[labels], ex_re_threshold=None
    )
    features = _features(model, images)  # those of the last linear layer, for any network
    defence._get_activations = lambda *_: features
    before = np.random.get_state()
    np.random.seed(0)  # its clusters start at random, from numpy's global state
    try:
        _, clean = defence.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA")
    finally:
        np.random.set_state(before)
    return np.flatnonzero(np.asarray(clean) == 0)


def spectral_signatures(
    model: ImageClassifier, images: np.ndarray, labels: np.ndarray, expected: float = 0.1
) -> np.ndarray:
    """Numbers of the pictures that the toolbox's `SpectralSignatureDefense` takes for poisoned.

    Args:
        model: trained on the pictures.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int (N,), as given.
        expected: share of poisoned pictures that is assumed; half as many again are suspected.
    """
    _art()
    from art.defences.detector.poison import SpectralSignatureDefense

    defence = SpectralSignatureDefense(
        art_classifier(model), images, np.eye(int(model.hparams["num_classes"]))[labels], expected_pp_poison=expected
    )
    features = _features(model, images)
    defence.classifier.get_activations = lambda *_, **__: features
    _, clean = defence.detect_poison()
    return np.flatnonzero(np.asarray(clean) == 0)
