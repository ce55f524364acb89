"""Compact territories: recursive bisection of places."""

from __future__ import annotations

import numpy as np

from zoo.errors import BadInput

__all__ = ["territories"]


def territories(
    positions: np.ndarray, clients: int, angle: float, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Cut the area across its longer side, in proportion to the clients on each side, until each has a territory.

    Args:
        positions: float (N, 2), where the images were taken.
        clients: K.
        angle: radians by which the first cut is turned against the axes; another one gives other territories.
        groups: int (N,). Images of a group (a flight) stay together, at the group's mean place.

    Returns:
        Positions in the array of each client's images.

    Raises:
        BadInput: if there are fewer places than clients.
    """
    _, unit = np.unique(groups, return_inverse=True) if groups is not None else (None, np.arange(len(positions)))
    unit = unit.reshape(-1)
    weight = np.bincount(unit).astype(np.float64)
    if len(weight) < clients:
        raise BadInput(f"num_clients={clients}: there are {len(weight)} groups of places only. Use fewer clients.")
    places = np.stack([np.bincount(unit, positions[:, axis]) / weight for axis in (0, 1)], axis=1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    owner = np.empty(len(weight), np.int64)
    _cut(places @ turn, weight, np.arange(len(weight)), 0, clients, owner)
    return [np.flatnonzero(owner[unit] == client) for client in range(clients)]


def _cut(
    places: np.ndarray, weight: np.ndarray, units: np.ndarray, first: int, clients: int, owner: np.ndarray
) -> None:
    """Give `units` to the clients from number `first` on."""
    if clients == 1:
        owner[units] = first
        return
    left = clients // 2
    axis = int(np.argmax(np.ptp(places[units], axis=0)))
    units = units[np.argsort(places[units, axis], kind="stable")]
    total = np.cumsum(weight[units])
    # as near to the wanted share as whole units allow, and on either side at least one unit for each client
    at = int(np.argmin(np.abs(total - total[-1] * left / clients))) + 1
    at = min(max(at, left), len(units) - (clients - left))
    _cut(places, weight, units[:at], first, left, owner)
    _cut(places, weight, units[at:], first + left, clients - left, owner)
