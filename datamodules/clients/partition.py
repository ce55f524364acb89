"""Which client owns which image: pure functions of (labels, groups, positions) and a seed.

    iid            shuffled and dealt (McMahan et al. 2017, section 3)
    shards-N       sorted by class, cut into N shards a client, dealt at random (the same, "pathological non-IID")
    dirichlet-A    each class is shared by Dir(A) over the clients; one with its equal share gets none of the next
                   class (Yurochkin et al. 2019, section 4; Li et al. 2022 "distribution-based label imbalance")
    labels-N       each client owns N classes, whose images are dealt equally among their owners (Li et al. 2022)
    quantity-A     equal classes, sizes by Dir(A) (Li et al. 2022, "quantity skew")
    group          an entity (a person, a flight, a machine) belongs to one client as a whole
    spatial        compact territories with about equally many images

No image belongs to two clients. `labels-N` leaves out classes that no client drew; everything else uses every image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datamodules.clients.spatial import territories
from zoo.errors import BadData, BadInput, nearest

__all__ = ["KINDS", "Partition", "Shares"]

KINDS = ("iid", "shards", "dirichlet", "labels", "quantity", "group", "spatial")
_EXAMPLES = "iid, shards-2, dirichlet-0.5, labels-2, quantity-0.5, group, spatial"
_TRIES = 2000


@dataclass(frozen=True)
class Shares:
    """A partition.

    Attributes:
        parts: of each client the positions of its images, int64 (n_k,), rising.
        retries: draws that were thrown away because a client got too few images.
        left_out: images that belong to no client.
    """

    parts: list[np.ndarray]
    retries: int
    left_out: int


@dataclass(frozen=True)
class Partition:
    """How images are shared: a kind and, for some, a number, as in "dirichlet-0.5".

    Attributes:
        kind: one of `KINDS`.
        value: A or N; 0 for kinds without.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Read a partition's name.

        Raises:
            BadInput: if it is unknown or its number is unusable.
        """
        kind, dash, number = str(text).partition("-")
        if kind not in KINDS:
            raise BadInput(f"partition: expected one such as {_EXAMPLES}; got {text!r}.{nearest(kind, KINDS)}")
        if kind in ("iid", "group", "spatial"):
            if dash:
                raise BadInput(f"partition: {kind} takes no number, got {text!r}.")
            return cls(kind)
        whole = kind in ("shards", "labels")
        try:
            value = float(int(number)) if whole else float(number)
        except ValueError:
            value = 0.0
        if not (dash and 0 < value < 1e6):
            wanted = "a whole number of at least 1" if whole else "a number above 0"
            example = f"{kind}-{2 if whole else 0.5}"
            raise BadInput(f"partition: {kind} needs {wanted}, as in {example}; got {text!r}.")
        return cls(kind, value)

    @property
    def name(self) -> str:
        """As it is written: "dirichlet-0.5"."""
        return f"{self.kind}-{self.value:g}" if self.value else self.kind

    def share(
        self,
        labels: np.ndarray,
        clients: int,
        seed: int,
        *,
        least: int | None = None,
        groups: np.ndarray | None = None,
        positions: np.ndarray | None = None,
    ) -> Shares:
        """Share images among clients.

        Args:
            labels: int (N,).
            clients: K.
            seed: of the draw.
            least: images that each client must have. None: 32 or half of an equal share, whichever is smaller, where
                sizes are drawn (dirichlet, quantity); else 1.
            groups: int (N,), the entity of each image.
            positions: float (N, 2).

        Raises:
            BadInput: if there are more clients than images, groups or classes allow, or no draw gives everyone `least`.
            BadData: if groups or positions are needed and there are none.
        """
        images = len(labels)
        if images < clients:
            raise BadInput(f"num_clients={clients}: there are {images} training images only; each needs one at least.")
        drawn = self.kind in ("dirichlet", "quantity")
        wanted = (max(1, min(32, images // (2 * clients))) if drawn else 1) if least is None else least
        if wanted * clients > images:
            raise BadInput(
                f"min_client_size={wanted}: {clients} clients would need {wanted * clients} training images, there are "
                f"{images}. Use fewer clients or a smaller min_client_size."
            )
        rng = np.random.default_rng(seed)
        for retries in range(_TRIES if drawn or self.kind == "labels" else 1):
            parts = self._draw(labels, clients, rng, groups, positions)
            smallest = min(len(part) for part in parts)
            if smallest >= wanted:
                return Shares([np.sort(p) for p in parts], retries, images - sum(len(part) for part in parts))
        raise BadInput(
            f"partition={self.name}: a client gets {smallest} images, min_client_size wants {wanted}"
            f"{f', in each of {_TRIES} draws' if retries else ''}. Use fewer clients, a smaller min_client_size"
            f"{' or a larger number after the dash' if drawn else ''}."
        )

    def _draw(
        self,
        labels: np.ndarray,
        clients: int,
        rng: np.random.Generator,
        groups: np.ndarray | None,
        positions: np.ndarray | None,
    ) -> list[np.ndarray]:
        if self.kind == "group":
            if groups is None:
                raise no_groups()
            return by_group(groups, clients, rng)
        if self.kind == "spatial":
            if positions is None:
                raise BadData("partition=spatial: these data do not say where an image was taken. " + _MARKS)
            return territories(positions, clients, rng.uniform(0.0, np.pi), groups)
        if self.kind == "iid":
            return np.array_split(rng.permutation(len(labels)), clients)
        return _BY_NUMBER[self.kind](labels, clients, self.value, rng)


_MARKS = (
    "For class folders, sort the images of a class into one folder per entity (CLASS/ENTITY/*.jpg), or put a "
    "metadata.csv with the columns file_name, group and x, y beside them; in npz files, add `groups` (N,) and "
    "`positions` (N, 2). CelebA's groups are its identities, land-cover's its flights."
)


def no_groups() -> BadData:
    """What to say where the data know no groups."""
    return BadData("partition=group: these data do not say which entity an image belongs to. " + _MARKS)


def shards(labels: np.ndarray, clients: int, number: float, rng: np.random.Generator) -> list[np.ndarray]:
    """`number` shards of the images sorted by class for each client.

    Raises:
        BadInput: if there are more shards than images.
    """
    count = int(number) * clients
    if count > len(labels):
        raise BadInput(f"partition=shards-{number:g}: {count} shards of {len(labels)} images; use fewer.")
    pieces = np.array_split(np.argsort(labels, kind="stable"), count)
    order = rng.permutation(count).reshape(clients, -1)
    return [np.concatenate([pieces[i] for i in mine]) for mine in order.tolist()]


def dirichlet(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Share each class by Dir(alpha); a client that has an equal share of the whole gets nothing more."""
    owned: list[list[np.ndarray]] = [[] for _ in range(clients)]
    sizes = np.zeros(clients, np.int64)
    for kind in np.unique(labels):
        members = np.flatnonzero(labels == kind)
        rng.shuffle(members)
        share = rng.dirichlet(np.full(clients, alpha)) * (sizes < len(labels) / clients)
        total = share.sum()
        if not total > 0:  # a tiny alpha gives all to a client that has its share: the emptiest one takes it
            share, total = (sizes == sizes.min()).astype(float), float((sizes == sizes.min()).sum())
        cuts = (np.cumsum(share / total) * len(members)).astype(np.int64)[:-1]
        for client, part in enumerate(np.split(members, cuts)):
            owned[client].append(part)
            sizes[client] += len(part)
    return [np.concatenate(parts) for parts in owned]


def labels_each(labels: np.ndarray, clients: int, number: float, rng: np.random.Generator) -> list[np.ndarray]:
    """`number` classes for each client, the first one in turn and the others at random.

    Raises:
        BadInput: if there are not as many classes.
    """
    kinds = np.unique(labels)
    if number > len(kinds):
        raise BadInput(f"partition=labels-{number:g}: there are {len(kinds)} classes; use as many or fewer.")
    owners: list[list[int]] = [[] for _ in kinds]
    for client in range(clients):
        mine = [client % len(kinds)]
        while len(mine) < number:
            if (other := int(rng.integers(len(kinds)))) not in mine:
                mine.append(other)
        for kind in mine:
            owners[kind].append(client)
    parts: list[list[np.ndarray]] = [[np.empty(0, np.int64)] for _ in range(clients)]
    for kind, who in zip(kinds, owners, strict=True):
        members = np.flatnonzero(labels == kind)
        rng.shuffle(members)
        for client, part in zip(who, np.array_split(members, max(1, len(who))), strict=False):
            parts[client].append(part)
    return [np.concatenate(p) for p in parts]


def quantity(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffled, with sizes by Dir(alpha)."""
    share = rng.dirichlet(np.full(clients, alpha))
    cuts = np.rint(np.cumsum(share) * len(labels)).astype(np.int64)[:-1]
    return np.split(rng.permutation(len(labels)), cuts)


_BY_NUMBER: dict[str, Callable[[np.ndarray, int, float, np.random.Generator], list[np.ndarray]]] = {
    "shards": shards,
    "dirichlet": dirichlet,
    "labels": labels_each,
    "quantity": quantity,
}


def by_group(groups: np.ndarray, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Whole entities: one each if there are as many as clients, else the largest first, each to the smallest client.

    Raises:
        BadInput: if there are fewer entities than clients.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < clients:
        raise BadInput(
            f"num_clients={clients}: there are {len(names)} groups only. Use as many clients or fewer; 0 makes one "
            "client of each group."
        )
    if len(names) == clients:
        owner = np.arange(clients)
    else:
        order = rng.permutation(len(names))
        order = order[np.argsort(-counts[order], kind="stable")]
        sizes, owner = np.zeros(clients, np.int64), np.empty(len(names), np.int64)
        for group in order.tolist():
            owner[group] = int(np.argmin(sizes))
            sizes[owner[group]] += counts[group]
    return [np.flatnonzero(owner[member.reshape(-1)] == client) for client in range(clients)]
