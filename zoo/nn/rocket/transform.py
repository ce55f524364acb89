"""ROCKET features: of thousands of random convolution kernels, the share of positive responses and the largest one.

Dempster, Petitjean, Webb: "ROCKET: exceptionally fast and accurate time series classification using random
convolutional kernels", DMKD 2020, arXiv 1910.13051; soft pooling after Milne, Xie: "Predicting Surface Texture in Steel
Manufacturing at Speed", arXiv 2301.08527. With z the responses of a kernel to a series (see `zoo.nn.rocket.conv`):

    l in {7, 9, 11}, d = floor(2^U(0, log2((L-1)/(l-1)))), p = (l-1)d/2 or 0, weights N(0, 1) less their mean per
    channel, bias U(-1, 1), n = floor(2^U(0, log2(min(C, l) + 1))) channels     -> sample_kernels
    ppv  = mean_t 1[z > 0]                                                      -> pooling "hard"
    ppv  = mean_t sigmoid(lambda z - beta)                                      -> pooling "soft"
    ppv  = hard value, gradient of the soft one                                 -> pooling "straight-through"
    max  = max_t z
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.checks import work
from zoo.errors import BadInput, nearest
from zoo.nn.rocket.conv import BLOCK_BYTES, Group, GroupedConvolution, Window, group_kernels
from zoo.nn.rocket.merged import MergedConvolution

__all__ = [
    "POOLINGS",
    "Kernels",
    "Rocket",
    "check_series",
    "sample_kernels",
    "standardise_series",
]

POOLINGS = ("hard", "soft", "straight-through")


@dataclass
class Kernels:
    """Kernels as flat arrays, in the layout that aeon and sktime use.

    Attributes:
        weights: float32, of all kernels one after the other, channel by channel.
        lengths: int (N,), l.
        biases: float32 (N,).
        dilations: int (N,), d in samples.
        paddings: int (N,), zeros on either side.
        channel_counts: int (N,), n.
        channels: int, the channels of all kernels one after the other.
    """

    weights: np.ndarray
    lengths: np.ndarray
    biases: np.ndarray
    dilations: np.ndarray
    paddings: np.ndarray
    channel_counts: np.ndarray
    channels: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


def sample_kernels(count: int, length: int, channels: int = 1, seed: int = 0) -> Kernels:
    """Draw random kernels (equations at the top of this file).

    Args:
        count: N.
        length: L of the series; it bounds the dilations, so it must be at least 11 for every kernel to fit.
        channels: C.
        seed: of a generator of this function's own.

    Raises:
        BadInput: if the series are too short.
    """
    if count < 1 or channels < 1:
        raise BadInput(f"num_kernels and channels must be at least 1, got {count} and {channels}.")
    if length < 12:
        raise BadInput(f"ROCKET kernels have up to 11 points, so series need at least 12, got {length}.")
    work(count * (channels + 100), "random numbers for its kernels")  # a kernel costs about as much as 100 of them
    rng = np.random.default_rng(seed)
    lengths = np.array([7, 9, 11])[np.floor(3 * rng.random(count)).astype(np.int64)]
    counts = np.floor(2 ** (rng.random(count) * np.log2(np.minimum(channels, lengths) + 1))).astype(np.int64)
    dilations = np.floor(2 ** (rng.random(count) * np.log2((length - 1) / (lengths - 1)))).astype(np.int64)
    paddings = np.where(rng.random(count) < 0.5, (lengths - 1) * dilations // 2, 0)
    biases = (2 * rng.random(count) - 1).astype(np.float32)
    chosen = [np.argsort(rng.random(channels), kind="stable")[:n] for n in counts]
    weights = []
    for taps, n in zip(lengths, counts, strict=True):
        drawn = rng.standard_normal((n, taps)).astype(np.float32)
        weights.append((drawn - drawn.mean(1, keepdims=True)).ravel())
    return Kernels(np.concatenate(weights), lengths, biases, dilations, paddings, counts, np.concatenate(chosen))


def standardise_series(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Each channel of each series (M, C, L) to mean 0 and standard deviation 1, in any unit; constant ones to 0.

    Constant is what deviates from its mean by no more than the rounding of it.

    Args:
        x: series.
        lengths: int (M,), valid points; what lies beyond becomes 0.
    """
    if lengths is None:
        mean = x.mean(2, keepdim=True)
        std = x.std(2, keepdim=True, correction=0)
        return (x - mean) / torch.where(std > _rounding(mean), std, torch.inf)
    inside = torch.arange(x.shape[2], device=x.device) < lengths[:, None, None]
    count = lengths[:, None, None]
    mean = (x * inside).sum(2, keepdim=True) / count
    centred = (x - mean) * inside
    std = (centred.square().sum(2, keepdim=True) / count).sqrt()
    return centred / torch.where(std > _rounding(mean), std, torch.inf)


def _rounding(mean: Tensor) -> Tensor:
    share, least = (1e-12, 1e-150) if mean.dtype == torch.float64 else (1e-6, 1e-18)
    return share * mean.abs() + least


def check_series(x: Tensor, channels: int) -> None:
    """Refuse what is not a batch of series.

    Raises:
        BadInput: unless x is float (M, C, L).
    """
    if x.ndim != 3 or x.shape[1] != channels or not x.is_floating_point():
        raise BadInput(
            f"Expected a batch of series as float (series, {channels} channel{'s' * (channels > 1)}, points), "
            f"got {x.dtype} {tuple(x.shape)}."
        )


class Rocket(nn.Module):
    """Features of series under fixed or trained kernels.

    Args:
        num_kernels: N.
        length: L of the series the kernels are made for; longer ones are legal, shorter ones as long as every kernel
            fits.
        channels: C.
        seed: of the kernels.
        pooling: one of `POOLINGS`.
        sharpness: lambda of soft pooling.
        shift: beta of soft pooling.
        trainable: weights, biases and log lambda are parameters; otherwise all of them are buffers.
        block_bytes: memory that responses may take at once, per thread. 0: all at once and nothing dependent on the
            number of series, for tracing.
    """

    weights: Tensor
    biases: Tensor
    log_sharpness: Tensor
    lengths: Tensor
    dilations: Tensor
    paddings: Tensor
    channel_counts: Tensor
    channel_index: Tensor

    def __init__(
        self,
        num_kernels: int = 10_000,
        length: int = 100,
        channels: int = 1,
        seed: int = 0,
        pooling: str = "hard",
        sharpness: float = 10.0,
        shift: float = 0.0,
        trainable: bool = False,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise BadInput(
                f"There is no pooling {pooling!r}.{nearest(pooling, POOLINGS)} Known: {', '.join(POOLINGS)}."
            )
        if sharpness <= 0:
            raise BadInput(f"sharpness (lambda) must be positive, got {sharpness}.")
        self.pooling, self.shift, self.block_bytes = pooling, shift, block_bytes
        self.series_channels = channels
        self._set(sample_kernels(num_kernels, length, channels, seed), sharpness, trainable)

    @classmethod
    def from_kernels(cls, kernels: Kernels | Sequence[Any], channels: int, **options: Any) -> Rocket:
        """Use given kernels, such as the tuple `Rocket.kernels` of aeon.

        Args:
            kernels: arrays in the order of the fields of `Kernels`.
            channels: C.
            options: `pooling`, `sharpness`, `shift`, `trainable`, `block_bytes`.
        """
        given = kernels if isinstance(kernels, Kernels) else Kernels(*map(np.asarray, kernels))
        made = cls(1, 16, channels, 0, **options)
        made._set(given, float(made.log_sharpness.detach().exp()), bool(options.get("trainable", False)))
        return made

    def kernels(self) -> Kernels:
        """The kernels as arrays."""
        fields = (self.weights, self.lengths, self.biases, self.dilations, self.paddings)
        return Kernels(*(t.detach().cpu().numpy() for t in (*fields, self.channel_counts, self.channel_index)))

    def _set(self, kernels: Kernels, sharpness: float, trainable: bool) -> None:
        learned = {"weights": kernels.weights, "biases": kernels.biases, "log_sharpness": np.log(sharpness)}
        for name, value in learned.items():
            tensor = torch.as_tensor(value, dtype=torch.float32).clone()
            for own in (self._parameters, self._buffers):
                own.pop(name, None)
            if trainable:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        fixed = (kernels.lengths, kernels.dilations, kernels.paddings, kernels.channel_counts, kernels.channels)
        for name, value in zip(
            ("lengths", "dilations", "paddings", "channel_counts", "channel_index"), fixed, strict=True
        ):
            self._buffers.pop(name, None)
            self.register_buffer(name, torch.as_tensor(np.asarray(value, dtype=np.int64)).clone())
        self._plan()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._plan()

    def _plan(self) -> None:
        """Sort the kernels into groups, and find where each weight belongs in the groups' matrices."""
        self._check_kernels()
        order, groups = group_kernels(self.lengths.tolist(), self.dilations.tolist(), self.paddings.tolist())
        self.convolution = GroupedConvolution(groups, self.series_channels, self.block_bytes or BLOCK_BYTES)
        self.merged: MergedConvolution | None = None
        if MergedConvolution.possible(groups):
            self.merged = MergedConvolution(groups, self.series_channels, self.block_bytes or BLOCK_BYTES)
        rank = np.argsort(np.asarray(order))  # of each kernel in group order
        self._kept: dict[bool, tuple[Any, Tensor]] = {}
        self._slots = self._slots_in(self.convolution, rank)
        self._merged_slots = self._slots_in(self.merged, rank) if self.merged is not None else self._slots[:0]
        features = 2 * rank[:, None] + np.arange(2)
        self._order = torch.as_tensor(features.ravel(), device=self.lengths.device)

    def _slots_in(self, convolution: GroupedConvolution, rank: np.ndarray) -> Tensor:
        """Where each weight, then each bias, belongs in the flat matrices of a convolution's groups."""
        first, taps = np.zeros(len(rank), np.int64), np.zeros(len(rank), np.int64)
        before = np.zeros(len(rank), np.int64)
        for group, begin in zip(convolution.groups, convolution.offsets(), strict=False):
            own = slice(group.start, group.stop)
            first[own] = begin + np.arange(group.stop - group.start) * convolution.rows(group)
            taps[own], before[own] = group.window.taps, convolution.before_taps(group)
        first, taps, before = first[rank], taps[rank], before[rank]
        lengths, counts = self.lengths.cpu().numpy(), self.channel_counts.cpu().numpy()
        owner = np.repeat(np.arange(len(rank)), counts)  # of each (kernel, channel)
        begin_of = (
            (first + before)[owner] + self.channel_index.cpu().numpy() * taps[owner] + (taps - lengths)[owner] // 2
        )
        widths = lengths[owner]
        within = np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths)
        return torch.as_tensor(
            np.concatenate([np.repeat(begin_of, widths) + within, first]), device=self.lengths.device
        )

    def _check_kernels(self) -> None:
        """Arrays may come from a user or from a file."""
        lengths, counts, place = self.lengths, self.channel_counts, self.channel_index
        fits = (
            {len(t) for t in (lengths, counts, self.dilations, self.paddings)} == {len(self.biases)}
            and int(torch.stack([lengths, counts, self.dilations]).min()) > 0
            and int(self.paddings.min()) >= 0
            and int(counts.sum()) == len(place)
            and int((lengths * counts).sum()) == len(self.weights)
            and 0 <= int(place.min()) <= int(place.max()) < self.series_channels
        )
        if not fits:
            raise BadInput(
                "The arrays of the kernels do not fit together: expected for each kernel a bias, positive length, "
                "dilation and number of channels, padding from 0, and as many weights and channels (below "
                f"{self.series_channels}) as these say."
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Rocket:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in ("_slots", "_merged_slots", "_order"):
            setattr(self, name, getattr(self, name).to(self.lengths.device))
        return self

    @property
    def num_features(self) -> int:
        """2 N."""
        return 2 * len(self.lengths)

    def grouped_weights(self) -> Tensor:
        """Biases and weights of all kernels, flat, as `GroupedConvolution` wants them."""
        given = torch.cat([self.weights, self.biases])
        return given.new_zeros(self.convolution.offsets()[-1]).index_copy(0, self._slots, given)

    def _kept_weights(self, merged: MergedConvolution | None = None) -> Tensor:
        """The same without gradients, or as `MergedConvolution` wants them; computed once until a weight changes."""
        learned = (self.weights, self.biases)
        state = [(t.data_ptr(), -1 if t.is_inference() else t._version) for t in learned]
        known = self._kept.get(merged is not None)
        if known is None or known[0] != state:
            with torch.no_grad():
                if merged is None:
                    flat = self.grouped_weights()
                else:
                    given = torch.cat(learned)
                    flat = merged.weights_of_cuts().to(given).index_copy(0, self._merged_slots, given)
            known = self._kept[merged is not None] = (state, flat)
        return known[1]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (M, 2N): `[ppv_0, max_0, ppv_1, max_1, ...]`.

        Args:
            x: float (M, C, L).
            lengths: int (M,), valid points of series of unequal length; what lies beyond must be 0. Each series then
                gets the features it has by itself.

        Raises:
            BadInput: for another shape, or a series that is too short, naming the kernel that does not fit.
        """
        check_series(x, self.series_channels)
        x = x.to(self.weights.dtype)
        tracing = torch.compiler.is_compiling() or self.block_bytes == 0
        shortest = x.shape[2] if lengths is None or tracing else min(x.shape[2], int(lengths.min()))
        self._check_length(shortest)
        if lengths is not None:
            inside = torch.arange(x.shape[2], device=x.device) < lengths[:, None, None]
            x = torch.where(inside, x, 0)
        graph = torch.is_grad_enabled() and (x.requires_grad or self.weights.requires_grad)
        if tracing and lengths is None:
            features = self._traced(x)
        elif tracing or graph:
            features = self._differentiable(x, self.grouped_weights(), lengths, save_memory=graph and not tracing)
        elif self.merged is not None and lengths is None:
            features = self._merged_blockwise(x, self.merged)
        else:
            features = self._blockwise(x, self._kept_weights(), lengths)
        return features.index_select(1, self._order)

    def _check_length(self, length: int) -> None:
        for group in self.convolution.groups:
            if group.window.responses(length) < 1:
                window = group.window
                number = int(self._order[::2].div(2, rounding_mode="floor").eq(group.start).nonzero()[0])
                raise BadInput(
                    f"Series of {length} points are too short: kernel {number} has {window.taps} points with dilation "
                    f"{window.dilation} and padding {window.zeros}, so it needs "
                    f"{(window.taps - 1) * window.dilation + 1 - 2 * window.zeros}. Give longer series, or make the "
                    "kernels for series of this length."
                )

    # Pooling ------------------------------------------------------------------------------------------------------

    def _blockwise(self, x: Tensor, weight: Tensor, lengths: Tensor | None) -> Tensor:
        features = x.new_empty(len(x), self.num_features)
        sharpness, shift = float(self.log_sharpness.detach().exp()), self.shift
        hard = self.pooling != "soft"

        def pool(part: slice, kernels: slice, window: Window, z: Tensor) -> None:
            out = features[part, 2 * kernels.start : 2 * kernels.stop].view(z.shape[1], -1, 2)
            count: Any = len(z)
            if lengths is not None:
                count, outside = _valid(z, lengths[part], window, x.shape[2])
                z.masked_fill_(outside, -torch.inf)
            out[..., 1] = z.amax(0)
            z = z.gt_(0) if hard else z.mul_(sharpness).sub_(shift).sigmoid_()
            out[..., 0] = z.sum(0).div_(count)

        self.convolution.reduce(x, weight, pool)
        return features

    def _merged_blockwise(self, x: Tensor, merged: MergedConvolution) -> Tensor:
        """The same for series of equal lengths, in fewer and larger steps."""
        shares, highest = (x.new_empty(len(self.lengths), len(x)) for _ in range(2))
        sharpness, shift = float(self.log_sharpness.detach().exp()), self.shift
        hard = self.pooling != "soft"

        def pool(part: slice, kernels: slice, z: Tensor) -> None:
            highest[kernels, part] = z.amax(2)
            z = z.gt_(0) if hard else z.mul_(sharpness).sub_(shift).sigmoid_()
            shares[kernels, part] = z.sum(2)

        merged.reduce(x, self._kept_weights(merged), pool)
        return torch.stack([shares.div_(merged.counts(x)), highest], 2).transpose(0, 1).flatten(1)

    def _traced(self, x: Tensor) -> Tensor:
        """The same in few operations per group, which is what tracing, compiling and exporting take time for."""
        offsets, groups = self.convolution.offsets(), self.convolution.groups
        weight = self.grouped_weights()
        shares, highest = [], []
        for number, group in enumerate(groups):
            kernels = weight[offsets[number] : offsets[number + 1]].view(-1, self.convolution.rows(group))
            z = self.convolution.convolved(group, x, kernels)
            highest.append(z.amax(2))
            hard = (z > 0).to(z.dtype).mean(2)
            if self.pooling == "hard":
                shares.append(hard)
                continue
            soft = torch.sigmoid(self.log_sharpness.exp() * z - self.shift).mean(2)
            shares.append(soft if self.pooling == "soft" else soft + (hard - soft).detach())
        return torch.stack([torch.cat(shares, 1), torch.cat(highest, 1)], 2).flatten(1)

    def _differentiable(self, x: Tensor, weight: Tensor, lengths: Tensor | None, *, save_memory: bool) -> Tensor:
        offsets, blocks = self.convolution.offsets(), []
        for number, group in enumerate(self.convolution.groups):
            kernels = weight[offsets[number] : offsets[number + 1]].view(-1, self.convolution.rows(group))
            arguments = (group, x, kernels, self.log_sharpness, lengths)
            # len() of a tensor would fix its size while tracing
            large = save_memory and 4 * x.numel() * len(kernels) > 16 * self.convolution.block_bytes * x.shape[1]
            if large:
                blocks.append(checkpoint(self._pool_group, *arguments, use_reentrant=False))
            else:
                blocks.append(self._pool_group(*arguments))
        return torch.cat(blocks, 1)

    def _pool_group(
        self, group: Group, x: Tensor, kernels: Tensor, log_sharpness: Tensor, lengths: Tensor | None
    ) -> Tensor:
        z = self.convolution.all_of(group, x, kernels)
        count: Any = len(z)
        if lengths is not None:
            count, outside = _valid(z, lengths, group.window, x.shape[2])
            z = z.masked_fill(outside, -torch.inf)
        highest = z.amax(0)
        hard = (z > 0).to(z.dtype).sum(0) / count
        if self.pooling == "hard":
            return torch.stack([hard, highest], 2).flatten(1)
        soft = torch.sigmoid(log_sharpness.exp() * z - self.shift).sum(0) / count
        if self.pooling == "straight-through":
            soft = soft + (hard - soft).detach()
        return torch.stack([soft, highest], 2).flatten(1)


def _valid(z: Tensor, lengths: Tensor, window: Window, length: int) -> tuple[Tensor, Tensor]:
    """How many responses (M, 1) series of unequal length have, and which of a block's (T, M, 1) are not theirs."""
    count = lengths.to(z.device) - length + window.responses(length)
    outside = torch.arange(len(z), device=z.device)[:, None] >= count
    return count[:, None].to(z.dtype), outside[..., None]
