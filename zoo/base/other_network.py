"""The other trained network of a method: a teacher, a victim, an image model.

It is named by a string argument (`teacher="ID:TAG"`, a folder, a file), loaded when training starts, frozen, always in
evaluation mode, and never part of a checkpoint, which only remembers its name and the hash of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.base.module import ZooModule
from zoo.errors import BadInput, InvalidConfig
from zoo.files import file_sha256
from zoo.nn.attacks import check_logits
from zoo.nn.classifiers import create_classifier, load_classifier_weights

__all__ = ["FrozenClassifier", "FrozenNetwork", "OtherNetworks", "find_classifier", "find_network"]


class FrozenNetwork:
    """A network that is used and not learned.

    It is no `nn.Module`, so that no `train()`, optimiser or state dict ever reaches it.

    Args:
        model: any function of tensors; a module is frozen and put into evaluation mode.
        name: how a checkpoint calls it.
        sha256: of its weights; empty if unknown.

    Raises:
        BadInput: if it is no function.
    """

    def __init__(self, model: Callable[..., Any], name: str = "a function", sha256: str = "") -> None:
        if not callable(model):
            raise BadInput(
                f"model: expected a module or a function of tensors, got {type(model).__name__} {str(model)[:80]!r}. "
                "A trained network is named where the model is made (such as teacher='ID:TAG'), or loaded: zoo.load."
            )
        self.model, self.name, self.sha256 = model, name, sha256
        if isinstance(model, nn.Module):
            model.eval().requires_grad_(False)

    def to(self, device: torch.device) -> FrozenNetwork:
        """Move it, if it is a module."""
        if isinstance(self.model, nn.Module):
            self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the function returns, without gradients to its parameters or inputs."""
        return self.model(*args, **options)


class FrozenClassifier(FrozenNetwork):
    """A frozen network that returns logits, which are checked once.

    Args:
        model: maps inputs (N, ...) to logits (N, K).
        num_classes: K.
        name: how a checkpoint calls it.
        sha256: of its weights; empty if unknown.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], num_classes: int, name: str, sha256: str = "") -> None:
        super().__init__(model, name, sha256)
        self.num_classes = num_classes
        self.checked = False

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (N, K) in single precision.

        Raises:
            BadInput: if it does not return logits of as many classes.
        """
        logits: Tensor = super().__call__(x)
        if not self.checked:  # once: it costs a host synchronisation
            check_logits(logits, len(x))
            if logits.shape[1] != self.num_classes:
                raise BadInput(
                    f"{self.name} tells {logits.shape[1]} classes apart, this model {self.num_classes}: "
                    "both must know the same ones, in the same order."
                )
            self.checked = True
        return logits.float()


class OtherNetworks(ZooModule):
    """Base, or mixin before another base, of methods that use trained networks which they do not train.

        class Student(OtherNetworks, AdversarialClassifier):
            references = ("teacher",)

    The constructor has an argument of each name, a string or None. When training starts each network is loaded by
    `find_other`, unless `use` set it before, and moved to the module's device. A checkpoint holds its name and sha256
    under the argument's name; a run that resumes with other weights is refused.
    """

    references: ClassVar[tuple[str, ...]] = ()
    """Arguments that name a network."""

    def __init__(self) -> None:
        super().__init__()
        self.others: dict[str, FrozenNetwork] = {}
        self._others_before: dict[str, dict[str, str]] = {}

    def needed_references(self) -> tuple[str, ...]:
        """Those of `references` that training needs with these arguments; all by default."""
        return self.references

    def find_other(self, argument: str) -> FrozenNetwork:
        """Load the network that an argument names; a subclass overrides this to check that it fits."""
        return find_network(str(self.hparams[argument]))

    def use(self, argument: str, network: FrozenNetwork) -> None:
        """Set the network of an argument, in place of loading one."""
        self.others[argument] = network

    def other(self, argument: str) -> FrozenNetwork:
        """The network of an argument.

        Raises:
            InvalidConfig: if there is none.
        """
        if argument not in self.others:
            raise InvalidConfig(
                f"{type(self).__name__} learns from a {argument} here: name one, as in --model.{argument} ID:TAG, a "
                f"folder, a .ckpt or hf://OWNER/REPO; or set it in Python by model.use({argument!r}, network)."
            )
        return self.others[argument]

    def setup(self, stage: str) -> None:
        """Load the networks when training starts.

        Raises:
            InvalidConfig: if one is needed and not named.
        """
        super().setup(stage)
        if stage != "fit":
            return
        for argument in self.needed_references():
            if argument not in self.others and self.hparams[argument] is not None:
                with torch.random.fork_rng(devices=[]):  # building draws numbers: training must not depend on which
                    self.others[argument] = self.find_other(argument)
            self.other(argument)  # says what is missing, before anything is computed

    def on_fit_start(self) -> None:
        """Move the networks to the module's device, since Lightning does not know them.

        Raises:
            InvalidConfig: on resuming, if one has other weights than before.
        """
        super().on_fit_start()
        for argument, network in self.others.items():
            before = self._others_before.get(argument, {}).get("sha256")
            if before and before != network.sha256:
                raise InvalidConfig(
                    f"The {argument} of this run had weights with sha256 {before[:16]}; {network.name} now has "
                    f"{network.sha256[:16] or 'an unknown one'}. Resume with the same {argument}, or start a new run."
                )
            network.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the networks, whose weights are not stored."""
        super().on_save_checkpoint(checkpoint)
        for argument, network in self.others.items():
            checkpoint[argument] = {"name": network.name, "sha256": network.sha256}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember which weights were used; see `on_fit_start`."""
        super().on_load_checkpoint(checkpoint)
        self._others_before = {a: dict(checkpoint[a]) for a in self.references if checkpoint.get(a)}


def find_network(name: str) -> FrozenNetwork:
    """Load a trained method.

    Args:
        name: whatever `zoo.load` takes: `id:tag`, a folder, a .ckpt, `hf://...`.
    """
    from zoo.store import load

    module = load(name)
    return FrozenNetwork(module, name, (module.report.sha256 if module.report is not None else "") or "")


def find_classifier(
    name: str,
    network: str | None,
    num_classes: int,
    channels: int,
    argument: str,
    class_names: Sequence[str] | None = None,
) -> FrozenClassifier:
    """Load a classifier of images.

    Args:
        name: whatever `zoo.load` takes; or, with `network`, a file with the state dict of a network that another
            project trained.
        network: its name in `zoo.nn.classifiers`.
        num_classes: K.
        channels: of the images.
        argument: which names it, for messages.
        class_names: of the K classes, in label order; None if unknown.

    Raises:
        BadInput: if it has other classes or takes other images; loading has its own errors.
    """
    if network is not None:
        model = create_classifier(network, num_classes, channels)
        load_classifier_weights(model, name)
        return FrozenClassifier(model, num_classes, name, file_sha256(Path(name).expanduser()))
    if Path(name).suffix in (".pt", ".pth", ".safetensors"):
        raise BadInput(
            f"{argument} {name}: a file with a state dict needs the name of its network, as in "
            f"--model.{argument}_network wrn34-10."
        )
    loaded = find_network(name)
    module = loaded.model
    assert isinstance(module, ZooModule)
    if module.task != "image-classification":
        raise BadInput(f"{argument} {name}: expected a classifier of images, it is for {module.task}.")
    theirs: dict[str, Any] = dict(module.hparams)
    for key, ours, word in (("num_classes", num_classes, "classes"), ("channels", channels, "colour channels")):
        if theirs.get(key, ours) != ours:
            raise BadInput(
                f"The {argument} {name} has {theirs[key]} {word}, this model {ours}: choose one trained on the same "
                f"data, or the data's {key}."
            )
    known, numbers = theirs.get("class_names"), [str(i) for i in range(num_classes)]  # numbers stand for no names
    if known and class_names and list(class_names) not in (list(known), numbers):
        raise BadInput(
            f"The {argument} {name} has the classes {', '.join(known)[:80]}, this model {', '.join(class_names)[:80]}: "
            "choose one trained on the same classes in the same order."
        )
    return FrozenClassifier(module, num_classes, name, loaded.sha256)
