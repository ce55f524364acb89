"""Which training pictures are poisoned, and with what label. It depends on labels and seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo import checks
from zoo.errors import BadInput

__all__ = ["LABELS", "choose_poisoned", "wanted_labels"]

LABELS = ("all-to-one", "all-to-all", "clean")
"""What becomes of the label y of a poisoned picture: the target; y + 1 mod K; nothing (only the target class is
poisoned)."""


def wanted_labels(labels: np.ndarray, mode: str, target: int, classes: int) -> np.ndarray:
    """What an attacker wants pictures with the trigger to be called.

    Args:
        labels: int (N,), the true ones.
        mode: one of `LABELS`.
        target: class of the attacker.
        classes: K.

    Returns:
        int64 (N,). Where it is the true label, there is nothing to attack.
    """
    return (labels + 1) % classes if mode == "all-to-all" else np.full(len(labels), target, np.int64)


def choose_poisoned(
    labels: np.ndarray,
    rate: float,
    mode: str,
    target: int,
    classes: int,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> np.ndarray:
    """Choose the training pictures that carry the trigger.

    The rate is a share of all pictures, of which those of the target class are never chosen, since their label would
    stay; for clean labels it is a share of the target class, the only one that is poisoned.

    Args:
        labels: int (N,), the true ones.
        rate: in [0, 1]; 0 for none.
        mode: one of `LABELS`.
        target: class of the attacker.
        classes: K.
        seed: of the choice.
        indices: the pictures, in place of a choice.

    Returns:
        bool (N,).

    Raises:
        BadInput: if the target is no class, the rate poisons no picture or more than there are, or an index is none.
    """
    checks.one_of("labels", mode, LABELS)
    if not 0 <= target < classes:
        raise BadInput(f"target: expected a class from 0 to {classes - 1}, got {target}.")
    if not 0 <= rate <= 1:
        raise BadInput(f"rate: expected a share of the pictures in [0, 1], got {rate}.")
    poisoned = np.zeros(len(labels), bool)
    if indices is not None:
        poisoned[_checked(indices, len(labels))] = True
        return poisoned
    if rate == 0:
        return poisoned
    clean = mode == "clean"
    able = np.flatnonzero(wanted_labels(labels, mode, target, classes) != labels)
    if clean:
        able = np.flatnonzero(labels == target)
    count, whole = round(rate * (len(able) if clean else len(labels))), "target class" if clean else "training pictures"
    if count < 1:
        share = len(able) if clean else len(labels)
        raise BadInput(
            f"rate: {rate} of {share} pictures poisons none: raise it, or give 0 for data without an attack."
        )
    if count > len(able):
        raise BadInput(f"rate: {rate} of the {whole} is {count} pictures, only {len(able)} of them can be poisoned.")
    poisoned[np.random.default_rng([seed, 78]).permutation(able)[:count]] = True
    return poisoned


def _checked(indices: Sequence[int], count: int) -> np.ndarray:
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
        raise BadInput(f"indices: expected at least one whole number, got {list(indices)[:5]}.")
    if chosen.min() < 0 or chosen.max() >= count:
        raise BadInput(
            f"indices: expected numbers of training pictures from 0 to {count - 1}, got {chosen.min()} to "
            f"{chosen.max()}."
        )
    if repeated := checks.repeated(chosen.tolist()):
        raise BadInput(f"indices: expected each picture once, {repeated[0]} is there more than once.")
    return chosen.astype(np.int64)
