"""The federated learner as a Lightning module; the paper and its equations stand in `zoo.methods.ewwa_fl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo import checks
from zoo.federated.images import FederatedClassifier
from zoo.federated.rules import RoundContext, Rule, create_rule
from zoo.methods.ewwa_fl.rule import EWWA

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
        algorithm: ewwa, or a baseline: fedavg (unweighted mean), fedadam, fedadagrad, fedyogi.
        server: adam, adagrad or yogi, the second moment of ewwa.
        variant: `paper` or `official`.
        normaliser: softmax or log; None: that of the variant.
        moments: per-client or shared; None: that of the variant.
        sign: `signed`, as published: clients that lower a weight get the larger share; or `magnitude`.
        shares: `computed`, or `random` ones of equal spread, a control.
        prior: `uniform`, as published, or `examples`.
        eta: learning rate of the server, of fedadam, fedadagrad and fedyogi; None: that of the rule.
        local_epochs: passes over a client's images in a round.
        lr: learning rate of the clients in round 0.
        momentum: of the clients' SGD.
        nesterov: whether the clients' momentum looks ahead.
        weight_decay: on all parameters.
        optimizer_policy: `persistent` (momentum stays with the client, as in the authors' code) or `fresh`.
        milestones: rounds at which the learning rate falls to a tenth; the authors: a third and two thirds.
        transforms: what updates go through on the client, such as `[{name: clip, norm: 1.0}]`.
        client_processes: processes that train clients side by side on this machine; None: one per thread of torch.
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3; the data module replicates grey ones.
        img_size: side of the square images in pixels.
        network: a name of `zoo.nn.classifiers`: `strided-lenet` (the paper's LeNet), `lenet5`, `cifar-resnet20`, ...
        mean: of each channel, for a normalisation inside the network; None for none.
        std: standard deviation of each channel, for that normalisation.
    """

    def __init__(
        self,
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
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 3,
        img_size: int = 32,
        network: str = "strided-lenet",
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.contributions: list[dict[str, Any]] = []

    def make_rule(self) -> Rule:
        """Element-wise shares in the variant that was asked for, or a baseline, unweighted as the paper has it."""
        options = self.hparams
        checks.one_of("algorithm", options["algorithm"], ("ewwa", *BASELINES))
        checks.one_of("variant", options["variant"], VARIANTS)
        if options["algorithm"] != "ewwa":
            eta = {} if options["eta"] is None or options["algorithm"] == "fedavg" else {"eta": options["eta"]}
            return create_rule(options["algorithm"], weighting="uniform", **eta)
        chosen = {key: options[key] for key in ("normaliser", "moments") if options[key] is not None}
        return EWWA(
            optimiser=options["server"],
            sign=options["sign"],
            shares=options["shares"],
            prior=options["prior"],
            **{**VARIANTS[options["variant"]], **chosen},
        )

    # Contributions ------------------------------------------------------------------------------------------------

    def round_done(self, ctx: RoundContext, metrics: Mapping[str, float]) -> None:
        """Keep the round's mean shares."""
        for name, value in metrics.items():
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
        from zoo.methods.ewwa_fl.picture import draw_contributions

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
        """Restore it."""
        super().on_load_checkpoint(checkpoint)
        self.contributions = list((checkpoint.get("federated") or {}).get("contributions", []))
