"""Make the miniature's tokenizer from the world's own captions: byte-level BPE in the form CLIP's has.

Every byte is in it, alone and at a word's end, so that any text has tokens and none ends a caption early.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from imagesets.randomness import keyed_numpy
from imagesets.world.captions import draw_caption
from imagesets.world.scenes import draw_scene

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_NUM_CAPTIONS = 4000
_MODEL_MAX_LENGTH = 77

# As CLIP's own pre-tokenizer cuts words: runs of letters, single digits, runs of anything else.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_characters() -> list[str]:
    """Return the printable character that stands for each byte, in CLIP's order (Radford et al. 2019, section 2.2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len([byte for byte in range(256) if byte not in printable])
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


def learn_merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Return BPE merges, the first first, after which every word of the texts is one token."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=Regex(_WORDS), behavior="removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=2, initial_alphabet=[], end_of_word_suffix=_WORD_END, show_progress=False
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def write_tokenizer(folder: Path, merges: list[tuple[str, str]], pad_token: str) -> int:
    """Write vocab.json, merges.txt and the settings as CLIPTokenizer reads them.

    Returns:
        The number of tokens; the last two are the begin and the end.
    """
    characters = byte_characters()
    tokens = [*characters, *(character + _WORD_END for character in characters), *("".join(merge) for merge in merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False, indent=0))
    _write(folder / "merges.txt", "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": _MODEL_MAX_LENGTH, **special,
                "do_lower_case": True, "add_prefix_space": False}  # fmt: skip
    _write(folder / "tokenizer_config.json", json.dumps(settings, indent=2))
    return len(vocabulary)


def world_captions(seed: int) -> list[str]:
    """Return captions of the world, enough that every word of it is among them."""
    rng: np.random.Generator = keyed_numpy(seed, "tokenizer")
    return [draw_caption(draw_scene(rng, num_things=1 + index % 2), rng) for index in range(_NUM_CAPTIONS)]


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
