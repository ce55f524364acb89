"""A swarm of UAVs learns one classifier from images that never leave them.

Hu, Ren, Deng, Xie: "Distributed Learning for UAV Swarms", 2024, arXiv 2410.15882, compares four algorithms on such
swarms. With weights w_t of round t, w_k of client k after its local training, n_k its samples, p_k = n_k / sum n:

    fedavg      w_{t+1} = sum_k p_k w_k                                                      McMahan et al. 2017
    fedprox     clients minimise L_k(w) + mu/2 ||w - w_t||^2; then fedavg                    Li et al. 2020
    fedadam     d = sum_k p_k (w_k - w_t);  m = b1 m + (1 - b1) d;  v = b2 v + (1 - b2) d^2; Reddi et al. 2021
                w_{t+1} = w_t + eta m / (sqrt(v) + tau)
    fedadagrad  v = v + d^2
    fedyogi     v = v - (1 - b2) d^2 sign(v - d^2)
    moon        clients minimise L_k(w) + mu l_con (`clients.py`); then fedavg               Li, He, Song 2021

The server's part is in `rules.py`, the clients' in `clients.py`; who takes part in a round, whose link fails and who is
slow are arguments of the data module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.federated._clients_transforms import create_transform
from zoo.federated._image_learner import FederatedClassifier
from zoo.federated._uav_swarm_network import ProjectedClassifier, features_of
from zoo.federated.clients import LocalTraining, create_client
from zoo.federated.rules import create_rule
from zoo.nn.classifiers import head_of

__all__ = ["ALGORITHMS", "UAVSwarm"]

ALGORITHMS = ("fedavg", "fedprox", "fedadam", "fedadagrad", "fedyogi", "moon")


class UAVSwarm(FederatedClassifier):
    """A classifier trained by federated rounds.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images.
        network: a name of `zoo.nn.classifiers`: `lenet5`, `cifar-resnet18-gn`, `timm/resnet18-gn`, ... Statistics of
            batch normalisation do not average well where clients differ.
        mean: per channel, for a normalisation inside the network; None for none.
        std: likewise.
        algorithm: fedavg, fedprox, fedadam, fedadagrad, fedyogi or moon.
        mu: weight of the proximal or contrastive term; None: 0.01 for fedprox, 1 for moon.
        temperature: T of moon.
        projection: width of the representation that moon compares.
        eta: learning rate of the server, of fedadam, fedadagrad and fedyogi; None: that of the rule.
        rule: another aggregation rule than the algorithm's, by name (`median`, `krum`, ...).
        rule_options: of the rule.
        local_epochs: E, passes over a client's images in a round.
        lr: learning rate of the clients.
        momentum: of their SGD.
        nesterov: whether it looks ahead.
        weight_decay: on all parameters.
        optimizer: sgd, adam or adamw.
        optimizer_policy: `fresh` or `persistent`.
        milestones: rounds at which the clients' learning rate falls to a tenth.
        transforms: what updates go through on the client, such as `[{name: clip, norm: 1.0}]`.
        client_processes: see `FederatedLearner.federate`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
        network: str = "lenet5",
        mean: list[float] | None = None,
        std: list[float] | None = None,
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
    ) -> None:
        super().__init__()
        checks.one_of("algorithm", algorithm, ALGORITHMS)
        client, options = "plain", dict(rule_options or {})
        given = {} if mu is None else {"mu": mu}
        if algorithm == "fedprox":
            client = "fedprox"
        elif algorithm == "moon":
            client, given = "moon", {**given, "temperature": temperature}
        elif eta is not None and algorithm != "fedavg":
            options["eta"] = eta
        server = algorithm if algorithm in ("fedadam", "fedadagrad", "fedyogi") else "fedavg"
        self.federate(
            self.network,
            create_rule(rule or server, **options),
            create_client(client, **(given if client != "plain" else {})),
            LocalTraining(
                local_epochs, lr, optimizer, momentum, nesterov, weight_decay, optimizer_policy, tuple(milestones)
            ),
            transforms=[create_transform(t) for t in transforms or []],
            client_processes=client_processes,
        )

    def make_network(self) -> nn.Module:
        """The named classifier; for moon with a projection between features and classes."""
        network = super().make_network()
        if self.hparams["algorithm"] != "moon":
            return network
        return ProjectedClassifier(network, self.hparams["projection"], self.hparams["num_classes"])

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of a client's batch, and the representation (n, projection) for moon."""
        if not isinstance(network, ProjectedClassifier):
            return super().local_step(network, batch)
        logits, z = network.both(self.normalize(batch["image"]))
        return F.cross_entropy(logits.float(), batch["label"]), z.float()

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Results of a batch; besides the usual ones `features` (N, d), what the last layer sees."""
        with features_of(self.network, head_of(self.network)) as seen:
            found = super().predict_step(batch, batch_idx)
        return {**found, "features": seen[0].float()}
