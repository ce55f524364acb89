"""The federated learner as a Lightning module; the paper and its equations stand in `zoo.methods.uav_swarm_fl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.base.compiled import unwrapped
from zoo.base.modes import in_type_of
from zoo.federated.clients import ClientAlgorithm, create_client
from zoo.federated.images import FederatedClassifier
from zoo.federated.rules import Rule, create_rule
from zoo.methods.uav_swarm_fl.network import ProjectedClassifier, features_of
from zoo.nn.classifiers import head_of

__all__ = ["ALGORITHMS", "UAVSwarm"]


@dataclass(frozen=True)
class Algorithm:
    """What an algorithm consists of.

    Attributes:
        client: name of the clients' part.
        rule: name of the server's part.
        wrap: what it adds to the network, given the module's hyper-parameters.
        client_options: hyper-parameters that go to the client, where they are given.
        rule_options: hyper-parameters that go to the rule, where they are given.
    """

    client: str = "plain"
    rule: str = "fedavg"
    wrap: Callable[[nn.Module, Mapping[str, Any]], nn.Module] = lambda network, options: network
    client_options: tuple[str, ...] = ()
    rule_options: tuple[str, ...] = ()


def _projected(network: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    return ProjectedClassifier(network, options["projection"], options["num_classes"])


ALGORITHMS = {
    "fedavg": Algorithm(),
    "fedprox": Algorithm(client="fedprox", client_options=("mu",)),
    "fedadam": Algorithm(rule="fedadam", rule_options=("eta",)),
    "fedadagrad": Algorithm(rule="fedadagrad", rule_options=("eta",)),
    "fedyogi": Algorithm(rule="fedyogi", rule_options=("eta",)),
    "moon": Algorithm(client="moon", wrap=_projected, client_options=("mu", "temperature")),
}
"""The algorithms by name."""


class UAVSwarm(FederatedClassifier):
    """A classifier trained by federated rounds.

    Args:
        algorithm: fedavg, fedprox, fedadam, fedadagrad, fedyogi or moon.
        mu: weight of the proximal or contrastive term; None: 0.01 for fedprox, 1 for moon.
        temperature: T of moon.
        projection: width of the representation that moon compares.
        eta: learning rate of the server, of fedadam, fedadagrad and fedyogi; None: that of the rule.
        rule: another aggregation rule than the algorithm's, by name (`median`, `krum`, ...).
        rule_options: options of the rule.
        local_epochs: E, passes over a client's images in a round.
        lr: learning rate of the clients.
        momentum: of the clients' SGD.
        nesterov: whether the clients' momentum looks ahead.
        weight_decay: on all parameters.
        optimizer: sgd, adam or adamw.
        optimizer_policy: `fresh` optimisers in every round, or `persistent` ones.
        milestones: rounds at which the clients' learning rate falls to a tenth.
        transforms: what updates go through on the client, such as `[{name: clip, norm: 1.0}]`.
        client_processes: processes that train clients side by side on this machine; None: one per thread of torch.
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images in pixels.
        network: a name of `zoo.nn.classifiers`: `lenet5`, `cifar-resnet18-gn`, `timm/resnet18-gn`, ... Statistics of
            batch normalisation do not average well where clients differ.
        mean: of each channel, for a normalisation inside the network; None for none.
        std: standard deviation of each channel, for that normalisation.
    """

    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {"projection": (1, 1_000_000)}

    def __init__(
        self,
        algorithm: str = "fedavg",
        mu: float | None = None,
        temperature: float = 0.5,
        projection: int = 256,
        eta: float | None = None,
        rule: str | None = None,
        rule_options: dict[str, Any] | None = None,
        local_epochs: int = 3,
        lr: float = 0.02,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 1e-5,
        optimizer: str = "sgd",
        optimizer_policy: str = "fresh",
        milestones: Sequence[int] = (),
        transforms: list[dict[str, Any]] | None = None,
        client_processes: int | None = None,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
        network: str = "lenet5",
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()

    @property
    def parts(self) -> Algorithm:
        """What the chosen algorithm consists of.

        Raises:
            BadInput: if there is none of that name.
        """
        checks.one_of("algorithm", self.hparams["algorithm"], ALGORITHMS)
        return ALGORITHMS[self.hparams["algorithm"]]

    def make_network(self) -> nn.Module:
        """The named classifier; for moon with a projection between features and classes."""
        wrap = self.parts.wrap
        return wrap(super().make_network(), self.hparams)

    def make_client(self) -> ClientAlgorithm:
        """The clients' part of the algorithm."""
        return create_client(self.parts.client, **self._given(self.parts.client_options))

    def make_rule(self) -> Rule:
        """The server's part of the algorithm, or the rule that replaces it."""
        options = {**(self.hparams["rule_options"] or {}), **self._given(self.parts.rule_options)}
        return create_rule(self.hparams["rule"] or self.parts.rule, **options)

    def _given(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self.hparams[name] for name in names if self.hparams[name] is not None}

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of a client's batch, and the representation (n, projection) for moon."""
        plain = unwrapped(network)
        if not isinstance(plain, ProjectedClassifier):
            return super().local_step(network, batch)
        logits, z = plain.both(in_type_of(network, self.prepared(batch["image"])))
        return F.cross_entropy(logits.float(), batch["label"]), z.float()

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Results of a batch; besides the usual ones `features` (N, d), what the last layer sees."""
        with features_of(self.network, head_of(self.network)) as seen:
            results = super().predict_step(batch, batch_idx)
        return {**results, "features": seen[0].float()}
