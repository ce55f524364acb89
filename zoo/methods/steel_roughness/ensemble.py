"""Networks as a regressor: an ensemble trained side by side, and masked pre-training, which needs no labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn

from zoo.base import decay_groups, every_step, trained_steps, warmup_cosine
from zoo.base.compiled import unwrapped
from zoo.base.modes import in_type_of
from zoo.errors import BadInput
from zoo.methods.steel_roughness.networks import PatchTransformer, make_network
from zoo.methods.steel_roughness.regressor import Regressor, Sections, huber

__all__ = ["Networks", "Pretraining"]


class Networks(Regressor):
    """Members from different starts, each with its head; the mean of their scores is the prediction.

    Args:
        targets: T.
        options: hyper-parameters of the method, of which `network`, `ensemble` and `use_meta` are read here.
    """

    by_gradient = True

    def __init__(self, targets: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.members, self.heads = nn.ModuleList(), nn.ModuleList()
        for _ in range(options["ensemble"]):
            network = make_network(options["network"], dict(options))
            self.members.append(network)
            features = int(network.dim) + (16 if options["use_meta"] else 0)  # type: ignore[arg-type]
            self.heads.append(nn.Linear(features, targets))
        self.meta_layers = (
            nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16)) if options["use_meta"] else None
        )
        self.least_length = 17 if options["network"] == "spectrogram-cnn" else 2
        self.only_length = int(options["length"]) if options["network"] == "transformer" else None

    def parts(self) -> dict[str, nn.Module]:
        """Members, heads, and the layers that read the line's state."""
        return dict(self.named_children())

    def member_scores(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Standardised scores of each member, (M, B, T).

        Raises:
            BadInput: if the networks read the line's state and there is none.
        """
        extra, signal = [], in_type_of(self, signal)
        if self.meta_layers is not None:
            if meta is None:
                raise BadInput("This model reads the line's state: give meta (B, 3): speed in m/s, tilt, laser power.")
            extra = [self.meta_layers(in_type_of(self, meta))]
        pairs = zip(self.members, self.heads, strict=True)
        return torch.stack([head(torch.cat([network(signal), *extra], 1)) for network, head in pairs])

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Standardised scores (B, T), the mean over the members."""
        return self.member_scores(signal, meta).float().mean(0)

    def stage(self, epoch: int) -> Literal["solve", "descend", "done"]:
        """Every epoch follows the gradient."""
        return "descend"

    def loss(self, sections: Sections) -> Tensor:
        """Huber on standardised scores, the mean over members, targets and sections."""
        return self._huber(sections).mean()

    def losses(self, sections: Sections, score: Tensor, true: Tensor) -> Tensor:
        """The same of each section (B,)."""
        return self._huber(sections)

    def _huber(self, sections: Sections) -> Tensor:
        assert sections.wanted is not None
        return huber(self.member_scores(sections.signal, sections.meta), sections.wanted)

    def optimizers(self, model: LightningModule) -> Any:
        """AdamW, its rate led to 0 by a cosine; only matrices decay."""
        groups = decay_groups(model, model.hparams["weight_decay"])
        optimizer = torch.optim.AdamW(groups, lr=model.hparams["lr"])
        factor = warmup_cosine(trained_steps(model.trainer))
        return every_step(torch.optim.lr_scheduler.LambdaLR(optimizer, factor))


class Pretraining(Networks):
    """A transformer that learns to read hidden patches from the others; its head waits for labels."""

    needs_labels = False

    def __init__(self, targets: int, options: Mapping[str, Any]) -> None:
        super().__init__(targets, options)
        self.share = float(options["mask"])

    def loss(self, sections: Sections) -> Tensor:
        """Error of hidden patches."""
        return self._hidden_error(sections.signal)

    def losses(self, sections: Sections, score: Tensor, true: Tensor) -> Tensor:
        """The same of each section (B,), with the same patches of it hidden in every epoch."""
        pairs = zip(sections.signal, sections.index.tolist(), strict=True)
        return torch.stack([self._hidden_error(s[None], torch.Generator().manual_seed(i)) for s, i in pairs])

    def _hidden_error(self, signal: Tensor, generator: torch.Generator | None = None) -> Tensor:
        network = unwrapped(self.members[0])
        assert isinstance(network, PatchTransformer)
        signal = in_type_of(network, signal)
        count = signal.shape[2] // network.patch
        order = torch.rand(len(signal), count, generator=generator).argsort(1).to(signal.device)
        return network.reconstruction_loss(signal, order < max(1, round(self.share * count)))
