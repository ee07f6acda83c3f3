"""Random draws as pure functions of a key: (seed, purpose, epoch or step, sample)."""

import hashlib

import numpy as np


def key_to_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on every part of the key and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def key_to_fraction(*parts: int | str) -> float:
    """Return a number in [0, 1), evenly spread over keys."""
    return key_to_seed(*parts) / 2**63


def keyed_numpy(*parts: int | str) -> np.random.Generator:
    """Return a fresh numpy generator for the key."""
    return np.random.Generator(np.random.PCG64(key_to_seed(*parts)))
