"""Random streams named by numbers: what is drawn for (seed, round, client) depends on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np

from zoo.errors import BadInput

__all__ = ["generator_for", "hash64"]


def hash64(*numbers: int) -> int:
    """A seed that belongs to these numbers, in this order, on every machine.

    Unlike `seed + 1000 * round + client`, no two streams of one run, or of runs with neighbouring seeds, coincide.

    Args:
        numbers: whole numbers of up to 64 bits each, with sign.

    Returns:
        The first 63 bits of a BLAKE2b hash: it fits torch's and numpy's seeds and a signed 64-bit integer.

    Raises:
        BadInput: if a number does not fit.
    """
    try:
        data = b"".join(int(number).to_bytes(8, "little", signed=True) for number in numbers)
    except OverflowError as error:
        raise BadInput(f"seeds are whole numbers of at most 64 bits, got {numbers}.") from error
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def generator_for(*numbers: int) -> np.random.Generator:
    """A numpy generator of its own for these numbers."""
    return np.random.default_rng(hash64(*numbers))
