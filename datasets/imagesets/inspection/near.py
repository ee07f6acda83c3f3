"""Which pictures are nearly alike: hashes that differ in few bits, then judged by their small pixels in colour.

The work grows with the number of pictures, not with its square. The 64 bits are cut into blocks; two hashes that differ
in at most k bits agree in all but k of the blocks, so pictures are sorted once by every choice of the other blocks, and
only neighbours in such an order are compared (Norouzi et al. 2012, "Fast Search in Hamming Space with Multi-Index
Hashing", with several blocks joined to one key). In a crowd of hundreds whose hashes are all close, each is compared
with its nearest neighbours in every order, and judged against a bounded number of others.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

MAX_DIFFERING_BITS = 8
MIN_CORRELATION = 0.97
"""Of the two grids' colours, each less its mean: a copy that was scaled, saved again or brightened is above 0.98."""

_HASH_BITS = 64
_WINDOW = 64
"""In an order, how many neighbours with the same key each hash is compared with; only crowds have more."""
MAX_JUDGED = 256
"""How many pictures each is judged against by its colours, at most, before its crowd is given up on."""
_CHUNK = 1 << 16

_Indices = npt.NDArray[np.int64]
_Hashes = npt.NDArray[np.uint64]
_Grids = npt.NDArray[np.uint8]


def group_nearly_alike(hashes: Sequence[int], grids: _Grids) -> list[list[int]]:
    """Return groups of two or more pictures that are nearly alike, each and all in ascending order.

    A group may be a chain: its first and last need not be alike.

    Args:
        hashes: 64 bits of each picture.
        grids: colours of each picture, (N, side, side, 3).
    """
    codes = np.array(hashes, dtype=np.uint64)
    labels: _Indices = np.arange(len(codes))
    judged = np.zeros(len(codes), dtype=np.int64)
    for shifts_and_masks in _keys(len(codes)):
        key = np.zeros_like(codes)
        for shift, mask in shifts_and_masks:
            key = (key << np.uint64(mask.bit_count())) | ((codes >> np.uint64(shift)) & np.uint64(mask))
        # By key, then by what else of the code there is room for: one sort of whole numbers.
        room = np.uint64(sum(mask.bit_count() for _, mask in shifts_and_masks))
        order = np.argsort((key << (np.uint64(_HASH_BITS) - room)) | (codes >> room))
        labels = _join_neighbours(order, key[order], codes, grids, labels, judged)
    return _groups(labels)


def correlation(one: _Grids, other: _Grids) -> npt.NDArray[np.float64]:
    """Return how alike grids are, (N,): 1 for equal ones up to brightness and contrast; 0 where one is blank.

    Args:
        one: (N, side, side, 3).
        other: likewise.
    """
    a = one.reshape(len(one), -1).astype(np.float64)
    b = other.reshape(len(other), -1).astype(np.float64)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    products = (a * b).sum(axis=1)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def _keys(count: int) -> list[list[tuple[int, int]]]:
    """Return the keys to sort by, each as (shift, mask) of its blocks.

    As many blocks are joined to a key as make it tell `count` pictures apart, so that few share one by chance.
    """
    joined = 2
    while joined < 3 and 2 ** (joined * _HASH_BITS // (MAX_DIFFERING_BITS + joined)) < count:
        joined += 1
    num_blocks = MAX_DIFFERING_BITS + joined
    edges = [_HASH_BITS * block // num_blocks for block in range(num_blocks + 1)]
    blocks = [(start, (1 << (end - start)) - 1) for start, end in pairwise(edges)]
    return [list(chosen) for chosen in combinations(blocks, joined)]


def _join_neighbours(
    order: _Indices, keys: _Hashes, codes: _Hashes, grids: _Grids, labels: _Indices, judged: _Indices
) -> _Indices:
    """Join what is nearly alike among neighbours with one key; return the new labels, and count who was judged."""
    for distance in range(1, min(_WINDOW, len(order) - 1) + 1):
        places = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(places):
            break  # equal keys stand together: none that far apart means none farther
        left, right = order[places], order[places + distance]
        apart = labels[left] != labels[right]
        left, right = left[apart], right[apart]
        close = np.bitwise_count(codes[left] ^ codes[right]) <= MAX_DIFFERING_BITS
        close &= np.minimum(judged[left], judged[right]) < MAX_JUDGED
        left, right = left[close], right[close]
        np.add.at(judged, left, 1)
        np.add.at(judged, right, 1)
        for start in range(0, len(left), _CHUNK):
            one, other = left[start : start + _CHUNK], right[start : start + _CHUNK]
            alike = correlation(grids[one], grids[other]) >= MIN_CORRELATION
            labels = _joined(labels, one[alike], other[alike])
    return labels


def _joined(labels: _Indices, one: _Indices, other: _Indices) -> _Indices:
    """Give the lower of two labels to both, over all pairs, until nothing changes."""
    while len(one):
        lower = np.minimum(labels[one], labels[other])
        changed = labels.copy()
        np.minimum.at(changed, labels[one], lower)
        np.minimum.at(changed, labels[other], lower)
        labels = _at_root(changed)
        apart = labels[one] != labels[other]
        one, other = one[apart], other[apart]
    return labels


def _at_root(labels: _Indices) -> _Indices:
    """Let every label be that of its label's label, until it is its own."""
    while True:
        next_labels = labels[labels]
        if np.array_equal(next_labels, labels):
            return labels
        labels = next_labels


def _groups(labels: _Indices) -> list[list[int]]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    parts = np.split(order, starts[1:]) if len(order) else []
    return sorted([int(index) for index in part] for part in parts if len(part) > 1)


def differing_bits(one: int, other: int) -> int:
    """Return in how many bits two hashes differ."""
    return (one ^ other).bit_count()
