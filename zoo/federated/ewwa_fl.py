"""EWWA-FL: the server weights every element of the model by its own shares over the clients.

Hu, Ren, Hu, Deng, Xie: "An Element-Wise Weights Aggregation Method for Federated Learning", ICDM Workshops 2023, arXiv
2404.15919. Per element, for clients i = 1..K whose weights came back as w_i:

    g_i = w_t - w_i                                pseudo-gradient
    u_i = s_t m_i / (sqrt(v_i) + eps)              normalised step; m_i, v_i moments of g_i as in adam, adagrad or yogi
    p_i = exp(u_i) / sum_j exp(u_j)                shares
    w_{t+1} = sum_i p_i w_i

The rule is in `_rules_ewwa.py`. The paper's text and the released code differ in two respects, which `variant` chooses:

    paper      shares by softmax; every client has moments of its own
    official   shares by c_i = log(u_i - u_min + 1) + 1e-8; one m and v, which the clients update one after the other

Clients take one local epoch with an optimiser whose momentum persists over rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput, nearest
from zoo.federated._clients_transforms import create_transform
from zoo.federated._image_learner import FederatedClassifier
from zoo.federated.clients import LocalTraining, create_client
from zoo.federated.rules import RoundContext, Rule, create_rule

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EWWAFL", "VARIANTS"]

VARIANTS = {
    "paper": {"normaliser": "softmax", "moments": "per-client", "noise": 1e-12},
    "official": {"normaliser": "log", "moments": "shared", "noise": 0.0},
}
"""What distinguishes the paper's text from the authors' code."""

BASELINES = ("fedavg", "fedadam", "fedadagrad", "fedyogi")


class EWWAFL(FederatedClassifier):
    """A classifier trained by federated rounds with element-wise shares.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images; grey ones are replicated by the data module.
        img_size: side of the square images.
        network: a name of `zoo.nn.classifiers`: `strided-lenet` (the paper's LeNet), `lenet5`, `cifar-resnet20`, ...
        mean: per channel, for a normalisation inside the network; None for none.
        std: likewise.
        algorithm: ewwa, or a baseline: fedavg (unweighted mean), fedadam, fedadagrad, fedyogi.
        server: adam, adagrad or yogi, the second moment of ewwa.
        variant: `paper` or `official`.
        normaliser: softmax or log; None: that of the variant.
        moments: per-client or shared; None: that of the variant.
        sign: `signed`, as published: whoever lowers a weight gets the larger share; or `magnitude`.
        shares: `computed`, or `random` ones of equal spread, a control.
        prior: `uniform`, as published, or `examples`.
        eta: learning rate of the server, of fedadam, fedadagrad and fedyogi; None: that of the rule.
        local_epochs: passes over a client's images in a round.
        lr: learning rate of the clients in round 0.
        momentum: of their SGD.
        nesterov: whether it looks ahead.
        weight_decay: on all parameters.
        optimizer_policy: `persistent` (momentum stays with the client, as in the authors' code) or `fresh`.
        milestones: rounds at which the learning rate falls to a tenth; the authors: a third and two thirds.
        transforms: what updates go through on the client, such as `[{name: clip, norm: 1.0}]`.
        client_processes: see `FederatedLearner.federate`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "strided-lenet",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        algorithm: str = "ewwa",
        server: str = "adam",
        variant: str = "paper",
        normaliser: str | None = None,
        moments: str | None = None,
        sign: str = "signed",
        shares: str = "computed",
        prior: str = "uniform",
        eta: float | None = None,
        local_epochs: int = 1,
        lr: float = 0.01,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 1e-4,
        optimizer_policy: str = "persistent",
        milestones: Sequence[int] = (),
        transforms: list[dict[str, Any]] | None = None,
        client_processes: int | None = None,
    ) -> None:
        super().__init__()
        self.contributions: list[dict[str, Any]] = []
        self.federate(
            self.network,
            self._rule(),
            create_client("plain"),
            LocalTraining(
                epochs=local_epochs,
                lr=lr,
                momentum=momentum,
                nesterov=nesterov,
                weight_decay=weight_decay,
                policy=optimizer_policy,
                milestones=tuple(milestones),
            ),
            transforms=[create_transform(t) for t in transforms or []],
            client_processes=client_processes,
        )

    def _rule(self) -> Rule:
        hp = self.hparams
        for key, known in (("algorithm", ("ewwa", *BASELINES)), ("variant", tuple(VARIANTS))):
            if hp[key] not in known:
                raise BadInput(f"{key}: expected {', '.join(known)}; got {hp[key]!r}.{nearest(hp[key], known)}")
        if hp["algorithm"] != "ewwa":
            own = {} if hp["eta"] is None or hp["algorithm"] == "fedavg" else {"eta": hp["eta"]}
            return create_rule(hp["algorithm"], weighting="uniform", **own)
        options = {**VARIANTS[hp["variant"]], **{k: hp[k] for k in ("normaliser", "moments") if hp[k] is not None}}
        chosen = {k: hp[k] for k in ("sign", "shares", "prior")}
        return create_rule("ewwa", optimiser=hp["server"], **options, **chosen)

    # Contributions ------------------------------------------------------------------------------------------------

    def round_done(self, ctx: RoundContext, told: Mapping[str, float]) -> None:
        """Keep the round's mean shares."""
        for name, value in told.items():
            kind, _, rest = name.partition("/")
            if kind == "share":
                client, _, entry = rest.partition("/")
                row = {"round": ctx.round, "entry": entry, "client": int(client), "share": float(value)}
                self.contributions.append(row)

    def contribution_report(self) -> list[dict[str, Any]]:
        """Rows of `round`, `entry` (name of a tensor), `client`, `share` (mean over the tensor's elements).

        The shares of one round and tensor sum to 1. Empty before the first round, and for baselines, which have none.
        """
        return [dict(row) for row in self.contributions]

    def contribution_picture(self) -> Image.Image:
        """The report as a picture: for each tensor, clients downwards, rounds to the right, deviation from 1/K.

        Raises:
            BadInput: if there were no rounds yet.
        """
        from zoo.federated._ewwa_fl_picture import draw_contributions

        return draw_contributions(self.contributions)

    def on_fit_start(self) -> None:
        """Forget the rounds of another run."""
        if not self._resumed:
            self.contributions = []
        super().on_fit_start()

    def on_train_end(self) -> None:
        """Hand the picture to the logger."""
        if self.loggers and self.contributions:
            import numpy as np
            import torch

            pixels = np.asarray(self.contribution_picture()).transpose(2, 0, 1)
            self.log_image("train/contributions", torch.from_numpy(pixels.copy()))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the report."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["federated"]["contributions"] = self.contribution_report()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.contributions = list((checkpoint.get("federated") or {}).get("contributions", []))
