"""CLIP's vocabulary of 49,408 tokens, which every SDXL has, from the merges that ship. Torch is not needed for it."""

import gzip
from functools import cache
from pathlib import Path

_MERGES = Path(__file__).parent / "sdxl" / "clip_merges.txt.gz"

START, END = "<|startoftext|>", "<|endoftext|>"


@cache
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the id of every token, and the merges in their order.

    The order of the vocabulary follows from the merges: the 256 byte characters, the same with an end-of-word mark,
    one token a merge, then start and end of text (Radford et al. 2021, the released `bpe_simple_vocab_16e6`).
    """
    merges = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    characters = _byte_characters()
    tokens = [
        *characters,
        *(character + "</w>" for character in characters),
        *(left + right for left, right in pairs),
        START,
        END,
    ]
    return {token: index for index, token in enumerate(tokens)}, pairs


def _byte_characters() -> list[str]:
    """Return the printable character each byte is written as in a byte-level vocabulary, in vocabulary order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(len(others))]
