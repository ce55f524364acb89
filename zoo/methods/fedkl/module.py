"""The federated learner as a Lightning module; the paper and its equations stand in `zoo.methods.fedkl`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.base.compiled import unwrapped
from zoo.base.modes import in_type_of
from zoo.base.module import Scores
from zoo.errors import BadInput
from zoo.federated.clients import ClientAlgorithm, ParamScope, Work, register_client
from zoo.federated.images import FederatedClassifier
from zoo.federated.rules import Rule, create_rule
from zoo.methods.fedkl.keys import SUFFIX, read_lock, write_lock
from zoo.methods.fedkl.lock import LOCAL, LockedNetwork
from zoo.methods.fedkl.network import make_network

__all__ = ["PRESETS", "SOURCES", "FedKL", "KeyLockClient"]

PRESETS: dict[str, dict[str, str]] = {
    "official": {"gate": "relu", "shift_gate": "relu", "keys": "uniform"},
    "strong": {"gate": "softplus", "shift_gate": "identity", "keys": "signs"},
}
"""What distinguishes the authors' locks from those whose keys are of mean zero and whose channels all start open."""

SOURCES = ("seeded", "system")
"""Where keys come from: the seed of the run, so that it can be repeated; or the system's own random numbers."""

_PREFIX = "network."


@register_client("key-lock")
class KeyLockClient(ClientAlgorithm):
    """A client draws its key and lock layers in its first round, and keeps them.

    Args:
        source: `seeded`, from the seed of run, round and client, so that all who know the seed know the keys;
            `system`, from the random numbers of the operating system.
    """

    name = "key-lock"

    def __init__(self, source: str = "seeded") -> None:
        checks.one_of("key_source", source, SOURCES)
        self.source = source

    def begin(self, work: Work) -> None:
        """Draw the lock, unless the client has one."""
        network = unwrapped(work.network)
        if not isinstance(network, LockedNetwork) or "local" in work.state:
            return
        if self.source == "seeded":
            network.reset_lock()
            return
        with torch.random.fork_rng(devices=[]):
            torch.random.seed()  # type: ignore[no-untyped-call]
            network.reset_lock()


class FedKL(FederatedClassifier):
    """A classifier trained by federated rounds, whose clients keep a key and lock layers to themselves.

    `forward` is the network without lock, which is all that is published; `unlock` opens it with a client's file. The
    scores of a fit are those with the lock of the first client; `locked` is the accuracy without any.

    Args:
        preset: official or strong; see `zoo.methods.fedkl`.
        layers: `single`, the first convolution is locked; `all`: every one but shortcuts.
        control: lock; `batch-norm`, the same network with affine batch normalisation in place of the locks; or none.
        key_length: L.
        gate: activation of the scale: relu, sigmoid, softplus or identity; None: that of the preset.
        shift_gate: activation of the shift; None: that of the preset.
        keys: distribution of keys: uniform or signs; None: that of the preset.
        key_source: `seeded`, so that a run can be repeated, or `system`, for keys that are secret.
        share_statistics: whether clients send the running statistics of locked blocks, which tell the mean and
            variance of the first map's channels.
        local_epochs: passes over a client's images in a round.
        lr: learning rate of the clients in round 0.
        momentum: of the clients' SGD.
        nesterov: whether the clients' momentum looks ahead.
        weight_decay: on all parameters.
        optimizer_policy: `persistent` (momentum stays with the client, as in the authors' code) or `fresh`.
        milestones: rounds at which the learning rate is multiplied by `decay`.
        decay: 0.2 in the authors' code.
        transforms: what updates go through on the client, such as `[{name: clip, norm: 1.0}]`.
        client_processes: processes that train clients side by side on this machine; None: one per thread of torch.
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3; the data module replicates grey ones.
        img_size: side of the square images in pixels.
        network: lenet, resnet20, resnet32, resnet18, resnet34 or vgg16, or a name of `zoo.nn.classifiers`.
        mean: of each channel, for a normalisation inside the network; None for none.
        std: standard deviation of each channel, for that normalisation.
    """

    logged: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "change", "locked")  # type: ignore[assignment]
    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {"key_length": (1, 1_000_000)}

    def __init__(
        self,
        preset: str = "strong",
        layers: str = "single",
        control: str = "lock",
        key_length: int = 1024,
        gate: str | None = None,
        shift_gate: str | None = None,
        keys: str | None = None,
        key_source: str = "seeded",
        share_statistics: bool = True,
        local_epochs: int = 1,
        lr: float = 0.01,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        optimizer_policy: str = "persistent",
        milestones: Sequence[int] = (),
        decay: float = 0.2,
        transforms: list[dict[str, Any]] | None = None,
        client_processes: int | None = None,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "lenet",
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.scores = Scores(accuracy=self.accuracy(), locked=self.accuracy())
        self.unlocked = False

    # Parts --------------------------------------------------------------------------------------------------------

    def make_network(self) -> nn.Module:
        """The backbone with its locks, or the control."""
        options = self.hparams
        checks.one_of("preset", options["preset"], PRESETS)
        lock: dict[str, Any] = dict(PRESETS[options["preset"]])
        lock |= {name: options[name] for name in lock if options[name] is not None}
        sizes = (options["num_classes"], options["channels"], options["img_size"])
        return make_network(
            options["network"],
            *sizes,
            options["control"],
            options["layers"],
            key_length=options["key_length"],
            **lock,
        )

    def make_rule(self) -> Rule:
        """The mean of the clients, each counting the same."""
        return create_rule("fedavg", weighting="uniform")

    def make_client(self) -> ClientAlgorithm:
        """Clients that keep their lock."""
        return KeyLockClient(self.hparams["key_source"])

    def make_scope(self) -> ParamScope:
        """Locks stay with the clients, and so do the statistics of locked blocks where these are not shared."""
        rules = [(LOCAL, "local")]
        if not self.hparams["share_statistics"] and isinstance(self.network, LockedNetwork):
            names = "|".join(re.escape(name) for name in self.network.names)
            rules.append((rf"^network\.({names})\.norm\.", "local"))
        return ParamScope(rules)

    def local_training(self) -> Any:
        """Local training with the decay of the authors' schedule."""
        from dataclasses import replace

        return replace(super().local_training(), decay=self.hparams["decay"])

    def roles(self) -> dict[str, str]:
        """The held lock is not published; once it is a client's own, nothing of the module is."""
        role = "private" if getattr(self, "unlocked", False) else "training"
        return {**super().roles(), **{_PREFIX + name: role for name in self.lock_state()}}

    # Locks --------------------------------------------------------------------------------------------------------

    def lock_state(self) -> dict[str, Tensor]:
        """Entries of the network's state dict that belong to one client; empty for the controls."""
        network = unwrapped(self.network)
        if not isinstance(network, LockedNetwork):
            return {}
        pattern = re.compile(LOCAL)
        return {name: value for name, value in network.state_dict().items() if pattern.search(name)}

    def update(self) -> dict[str, Tensor]:
        """Average, and take up the lock of the first client, with which the fit is scored."""
        values = super().update()
        owners = sorted(client for client, state in self.client_states.items() if "local" in state)
        if owners and (own := self.lock_state()):
            local = self.client_states[owners[0]]["local"]
            values |= {_PREFIX + name: local[name] for name in own}
        return values

    def write_keys(self, folder: str | Path) -> list[Path]:
        """Write each client's key and lock layers into a file of its own, `client_<i>.key.safetensors`.

        Args:
            folder: of the files, which others must not see.

        Raises:
            BadInput: if no client has been trained.
        """
        owners = {c: s["local"] for c, s in sorted(self.client_states.items()) if "local" in s}
        if not owners:
            raise BadInput("write_keys: no client has a key yet; train, or load a .ckpt of the training.")
        own = self.lock_state()
        return [
            write_lock(Path(folder) / f"client_{client}{SUFFIX}", {name: local[name] for name in own})
            for client, local in owners.items()
        ]

    def unlock(self, key: str | Path | Mapping[str, Tensor]) -> None:
        """Open the network with a client's lock; from then on, nothing of the module is saved or pushed.

        Args:
            key: a file of `write_keys`, or the entries in it.

        Raises:
            BadInput: if it does not fit, or the network has no locks.
        """
        own = self.lock_state()
        if not own:
            raise BadInput(f"key: this network has no lock (control={self.hparams['control']}).")
        held = dict(key) if isinstance(key, Mapping) else read_lock(key, own)
        with torch.no_grad():
            for name, value in own.items():
                if name not in held or held[name].shape != value.shape:
                    shape = tuple(held[name].shape) if name in held else "nothing"
                    raise BadInput(f"key: expected {name} of shape {tuple(value.shape)}, got {shape}.")
                value.copy_(held[name])
        self.unlocked = True

    # Network ------------------------------------------------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]: without lock, unless it was opened."""
        network = unwrapped(self.network)
        if self.unlocked or not isinstance(network, LockedNetwork):
            return super().forward(image)
        channels = int(self.hparams["channels"])
        if image.ndim != 4 or image.shape[1] != channels:
            raise BadInput(f"forward takes images (N, {channels}, H, W) in [0, 1], got {tuple(image.shape)}.")
        return network.locked(in_type_of(self.network, self.prepared(image)))

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score with the held lock, and the accuracy without."""
        logits = self.logits_of(self.network, batch["image"]).float()
        self.scores.update_loss(stage, F.cross_entropy(logits, batch["label"]), len(batch["index"]))
        self.scores.update(stage, "accuracy", logits, batch["label"])
        self.scores.update(stage, "locked", self(batch["image"]).float(), batch["label"])

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0, key: str = "") -> dict[str, Any]:
        """Results of a batch; besides the usual ones `unlocked` (N bools), whether a client's lock was open.

        Args:
            batch: of images.
            batch_idx: its number.
            key: a client's key file, for this call; empty: as the module stands.
        """
        if not key:
            results = super().predict_step(batch, batch_idx)
            return {**results, "unlocked": [self.unlocked] * len(batch["index"])}
        before, was = {name: value.clone() for name, value in self.lock_state().items()}, self.unlocked
        try:
            self.unlock(key)
            return self.predict_step(batch, batch_idx)
        finally:
            with torch.no_grad():
                for name, value in self.lock_state().items():
                    value.copy_(before[name])
            self.unlocked = was
