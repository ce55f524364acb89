"""Commuters: people, buses and taxis on a grid of streets, some of whom travel together for a while.

A traveller walks or drives along streets that are `block` metres apart, turning at crossings, and is seen at irregular
times (1 to 60 s apart), sometimes not at all for several minutes. Of the tracks that are not leaders, `together` follow
one of the leaders of the training split on a part of the way, a few metres beside and a few seconds behind; before and
after they go their own ways. So every split holds tracks with known partners in the training split.

Track number `index` of a split depends only on (config, split, index), not on how many others are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import BadInput

__all__ = ["KINDS", "SPLITS", "VERSION", "CityConfig", "Traveller", "traveller"]

VERSION = 1  # raise it when any track changes: published metrics hang on it
SPLITS = ("train", "val", "test", "predict")
KINDS = {"walker": (1.0, 1.8), "bus": (5.0, 9.0), "taxi": (7.0, 14.0)}
"""Speeds in m/s, lowest and highest."""


@dataclass(frozen=True)
class CityConfig:
    """The city.

    Attributes:
        seed: everything random derives from it.
        blocks: streets in each direction, less one.
        block: metres between streets.
        hours: length of the day that is simulated.
        leaders: tracks 0, 3, 6, ... of the training split that others may follow.
        together: share of the other tracks that follow a leader.
        interval: least and largest time between two sightings, seconds.
        gaps: share of tracks that are not seen for 150 to 400 s in between.
        noise: standard deviation of the position error, metres.
    """

    seed: int = 0
    blocks: int = 24
    block: float = 150.0
    hours: float = 2.0
    leaders: int = 100
    together: float = 0.5
    interval: tuple[float, float] = (1.0, 60.0)
    gaps: float = 0.2
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.blocks < 2 or self.block <= 0 or self.hours <= 0 or self.leaders < 1:
            raise BadInput("A city needs at least 2 blocks of positive size, a positive time, and one leader.")
        if not 0 < self.interval[0] <= self.interval[1]:
            raise BadInput(f"interval must rise from above 0, got {self.interval}.")
        if not (0 <= self.together <= 1 and 0 <= self.gaps <= 1 and self.noise >= 0):
            raise BadInput("together and gaps are shares in [0, 1], noise is at least 0 metres.")


@dataclass(frozen=True)
class Traveller:
    """One track.

    Attributes:
        name: kind, split and number.
        xyt: (L, 3) float64: metres, metres, seconds since the day began.
        leader: number of the training track that it follows, or -1.
        since, until: seconds between which it does.
    """

    name: str
    xyt: np.ndarray
    leader: int = -1
    since: float = 0.0
    until: float = 0.0


def _walk(draw: np.random.Generator, city: CityConfig, node: np.ndarray, legs: int) -> np.ndarray:
    """Crossings of a way, (legs + 1, 2) integers: mostly straight on, never straight back."""
    steps = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    heading = int(draw.integers(4))
    nodes = [node]
    turns = draw.choice([0, 1, 3], size=4 * legs, p=[0.6, 0.2, 0.2])
    for turn in turns:
        after = nodes[-1] + steps[(heading + turn) % 4]
        if np.all(after >= 0) and np.all(after <= city.blocks):
            heading = (heading + int(turn)) % 4
            nodes.append(after)
        else:
            heading = (heading + 1) % 4
        if len(nodes) > legs:
            break
    return np.array(nodes)


def _timed(draw: np.random.Generator, city: CityConfig, way: np.ndarray, speed: float, start: float) -> np.ndarray:
    """A way with times, (n, 3): each leg at its own pace."""
    points = way * city.block
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    times = start + np.concatenate([[0], np.cumsum(lengths / (speed * draw.uniform(0.8, 1.2, len(lengths))))])
    return np.column_stack([points, times])


def _way(city: CityConfig, split: str, index: int) -> tuple[str, np.ndarray]:
    """Kind and true motion of a traveller of its own, (n, 3)."""
    draw = np.random.default_rng([city.seed, VERSION, SPLITS.index(split), index])
    kind = str(draw.choice(list(KINDS), p=[0.6, 0.15, 0.25]))
    speed = float(draw.uniform(*KINDS[kind]))
    duration = float(draw.uniform(900, 2700))
    start = float(draw.uniform(0, max(1.0, 3600 * city.hours - duration)))
    legs = max(3, round(duration * speed / city.block))
    node = draw.integers(0, city.blocks + 1, 2)
    return kind, _timed(draw, city, _walk(draw, city, node, legs), speed, start)


def _beside(motion: np.ndarray, offset: float) -> np.ndarray:
    """The motion moved by `offset` metres in both directions, which is beside it on every street."""
    return motion + np.array([offset, offset, 0.0])


def _follow(draw: np.random.Generator, city: CityConfig, leader: np.ndarray) -> tuple[np.ndarray, float, float]:
    """A motion that is with the leader for a part of its way, and when."""
    last = len(leader) - 1
    begin = int(draw.integers(0, max(1, last // 2)))
    stop = int(draw.integers(min(begin + max(2, last // 4), last), last + 1))
    shared = _beside(leader[begin : stop + 1], float(draw.uniform(-8, 8)))
    shared[:, 2] += draw.uniform(0, 4)
    speed = float(np.linalg.norm(np.diff(leader[:, :2], axis=0), axis=1).sum() / (leader[-1, 2] - leader[0, 2]))
    parts = [shared]
    for at, sign in ((0, -1), (-1, 1)):  # its own way before, walked backwards in time, and after
        corner = np.rint(shared[at, :2] / city.block).astype(int)
        own = _timed(draw, city, _walk(draw, city, corner, int(draw.integers(2, 10))), speed, 0.0)[1:]
        own = np.column_stack([own[:, :2], shared[at, 2] + sign * (own[:, 2] + 1.0)])
        parts = [own[::-1], *parts] if sign < 0 else [*parts, own]
    return np.concatenate(parts), float(shared[0, 2]), float(shared[-1, 2])


def _seen(draw: np.random.Generator, city: CityConfig, motion: np.ndarray) -> np.ndarray:
    """The sightings of a motion, (L, 3)."""
    span = motion[-1, 2] - motion[0, 2]
    steps = draw.uniform(*city.interval, size=int(span / city.interval[0]) + 2)
    times = motion[0, 2] + np.concatenate([[0.0], np.cumsum(steps)])
    times = times[times < motion[-1, 2]]
    if draw.uniform() < city.gaps and span > 900:
        begin = motion[0, 2] + draw.uniform(0.2, 0.6) * span
        kept = (times < begin) | (times > begin + draw.uniform(150, 400))
        times = times[kept] if kept.sum() >= 4 else times
    if len(times) < 2:
        times = motion[[0, -1], 2]
    places = np.column_stack([np.interp(times, motion[:, 2], motion[:, i]) for i in (0, 1)])
    return np.column_stack([places + city.noise * draw.normal(size=places.shape), times])


def traveller(city: CityConfig, split: str, index: int) -> Traveller:
    """One track of a split.

    Raises:
        BadInput: if there is no such split.
    """
    if split not in SPLITS:
        raise BadInput(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    draw = np.random.default_rng([city.seed, VERSION, 7, SPLITS.index(split), index])
    leads = split == "train" and index % 3 == 0
    if leads or draw.uniform() >= city.together:
        kind, motion = _way(city, split, index)
        return Traveller(f"{kind} {split}-{index}", _seen(draw, city, motion))
    leader = 3 * int(draw.integers(city.leaders))
    kind, led = _way(city, "train", leader)
    motion, since, until = _follow(draw, city, led)
    return Traveller(f"{kind} {split}-{index}", _seen(draw, city, motion), leader, since, until)
