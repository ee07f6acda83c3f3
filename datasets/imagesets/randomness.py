"""Random draws as pure functions of a key such as (seed, purpose, epoch, sample). There is no hidden state here.

A draw depends on its key alone: not on the order of draws, on other pictures, or on a library's version.
"""

import hashlib
import operator
from typing import SupportsIndex

import numpy as np

KeyPart = SupportsIndex | str


def key_to_seed(*parts: KeyPart) -> int:
    """Return a seed in [0, 2**63) that depends on every part of the key and on their order.

    Whole numbers of any type (int, numpy's) with one value give one seed; 1 and "1" differ, and so do ("a", "b") and
    ("ab",). The hash is BLAKE2b, so that seeds of neighbouring keys have nothing in common.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = f"s{part}" if isinstance(part, str) else f"i{operator.index(part)}"
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest(), "big") >> 1


def key_to_fraction(*parts: KeyPart) -> float:
    """Return a number in [0, 1), even over keys: a multiple of 2**-53, so that it never rounds up to 1."""
    return (key_to_seed(*parts) >> 10) / 2**53


def keyed_numpy(*parts: KeyPart) -> np.random.Generator:
    """Return a fresh numpy generator for the key."""
    return np.random.Generator(np.random.PCG64(key_to_seed(*parts)))
