"""The other network of a distillation: found by name, frozen, always in evaluation mode, never part of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.base import ZooModule
from zoo.errors import BadInput
from zoo.nn.attacks import check_logits
from zoo.nn.classifiers import create_classifier, load_classifier_weights

__all__ = ["Teacher", "find_teacher"]


class Teacher:
    """A frozen classifier. It is no `nn.Module`, so that no `train()`, optimiser or state dict ever reaches it.

    Args:
        model: maps images (N, C, H, W) to logits (N, K).
        num_classes: K.
        name: how a checkpoint calls it.
        sha256: of its weights; empty if unknown.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], num_classes: int, name: str, sha256: str = "") -> None:
        self.model, self.num_classes, self.name, self.sha256 = model, num_classes, name, sha256
        self.checked = False
        if isinstance(model, nn.Module):
            model.eval().requires_grad_(False)

    def to(self, device: torch.device) -> Teacher:
        """Move it, if it is a module."""
        if isinstance(self.model, nn.Module):
            self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) in single precision.

        Raises:
            BadInput: if it does not return logits of as many classes.
        """
        logits = self.model(x)
        if not self.checked:  # once: it costs a host synchronisation
            check_logits(logits, len(x))
            if logits.shape[1] != self.num_classes:
                raise BadInput(
                    f"The teacher {self.name} tells {logits.shape[1]} classes apart, the student {self.num_classes}: "
                    "both must know the same ones, in the same order."
                )
            self.checked = True
        return logits.float()


def find_teacher(name: str, network: str | None, num_classes: int, channels: int) -> Teacher:
    """Load a teacher.

    Args:
        name: whatever `zoo.load` takes (`id:tag`, a folder, a .ckpt, `hf://...`); or, with `network`, a file with the
            state dict of a network that another project trained.
        network: its name in `zoo.nn.classifiers`.
        num_classes: K.
        channels: of the images.

    Raises:
        BadInput: if it has other classes or takes other images; loading has its own errors.
    """
    with torch.random.fork_rng(devices=[]):  # building it draws numbers, which must not depend on who the teacher is
        if network is not None:
            from zoo.files import file_sha256

            model = create_classifier(network, num_classes, channels)
            load_classifier_weights(model, name)
            return Teacher(model, num_classes, name, file_sha256(Path(name).expanduser()))
        if Path(name).suffix in (".pt", ".pth", ".safetensors"):
            raise BadInput(
                f"teacher {name}: a file with a state dict needs the name of its network, as in "
                "--model.teacher_network wrn34-10."
            )
        import zoo

        found = zoo.load(name)
    _check(found, name, num_classes, channels)
    sha256 = found.report.sha256 if found.report is not None else ""
    return Teacher(found, num_classes, name, sha256 or "")


def _check(found: ZooModule, name: str, num_classes: int, channels: int) -> None:
    if found.task != "image-classification":
        raise BadInput(f"teacher {name}: expected a classifier of images, found {found.task}.")
    given: dict[str, Any] = dict(found.hparams)
    for key, mine, word in (("num_classes", num_classes, "classes"), ("channels", channels, "colour channels")):
        if given.get(key, mine) != mine:
            raise BadInput(
                f"The teacher {name} has {given[key]} {word}, the student {mine}: choose a teacher trained on the same "
                f"data, or the data's {key}."
            )
