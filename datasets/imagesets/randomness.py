"""Random draws as pure functions of a key such as (seed, purpose, epoch, sample). There is no hidden state here.

A draw depends on its key alone: not on the order of draws, on other pictures, or on a library's version.
"""

import hashlib
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

KeyPart = SupportsIndex | str

_ROWS_AT_ONCE = 2**16


def key_to_seed(*parts: KeyPart) -> int:
    """Return a seed in [0, 2**63) that depends on every part of the key and on their order.

    Whole numbers of any type (int, numpy's) with one value give one seed; 1 and "1" differ, and so do ("a", "b") and
    ("ab",). The hash is BLAKE2b, so that seeds of neighbouring keys have nothing in common.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(_encoded(part))
    return int.from_bytes(digest.digest(), "big") >> 1


def keys_to_seeds(prefix: Sequence[KeyPart], *columns: "npt.NDArray[np.integer[Any]]") -> npt.NDArray[np.uint64]:
    """Return `key_to_seed(*prefix, *row)` of every row of some columns of whole numbers, (N,): the same, faster.

    Args:
        prefix: what all keys begin with.
        columns: whole numbers, (N,) each; at least one.
    """
    start = b"".join(map(_encoded, prefix))
    rows = np.stack(np.broadcast_arrays(*columns))
    # A part at a time, so that the memory it takes does not grow with the number of rows.
    digests = b"".join(
        _digests(start, rows[:, at : at + _ROWS_AT_ONCE]) for at in range(0, rows.shape[1], _ROWS_AT_ONCE)
    )
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64) >> np.uint64(1)


def _digests(start: bytes, rows: "npt.NDArray[np.integer[Any]]") -> bytes:
    """Return the hashes of a beginning with each row behind it, eight bytes each."""
    encoded = []
    for column in rows:
        # What a number is encoded to is worked out once for all rows that have it.
        distinct, places = np.unique(column, return_inverse=True)
        parts = [_encoded(number) for number in distinct.tolist()]
        encoded.append([parts[place] for place in places.tolist()])
    blake2b = hashlib.blake2b
    return b"".join([blake2b(b"".join((start, *row)), digest_size=8).digest() for row in zip(*encoded, strict=True)])


def key_to_fraction(*parts: KeyPart) -> float:
    """Return a number in [0, 1), even over keys: a multiple of 2**-53, so that it never rounds up to 1."""
    return (key_to_seed(*parts) >> 10) / 2**53


def keyed_numpy(*parts: KeyPart) -> np.random.Generator:
    """Return a fresh numpy generator for the key."""
    return np.random.Generator(np.random.PCG64(key_to_seed(*parts)))


def _encoded(part: KeyPart) -> bytes:
    """Return one part with its length before it, so that no two keys are encoded alike."""
    text = f"s{part}" if isinstance(part, str) else f"i{operator.index(part)}"
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "big") + encoded
