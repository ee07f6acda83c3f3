"""The miniature's tokenizer: CLIP's form, every word of the world one token, no text that ends early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from finetune.miniature.tokenizer import END, byte_characters, learn_merges, world_captions, write_tokenizer
from finetune.model.miniature import Miniature
from imagesets.world.palette import COLOURS, GROUNDS
from imagesets.world.scenes import RELATIONS
from imagesets.world.shapes import SHAPES


@pytest.fixture(scope="module")
def shipped() -> CLIPTokenizer:
    return Miniature().load_tokenizer_2()


def test_the_tokenizer_that_ships_is_the_one_that_is_made(tmp_path) -> None:
    merges = learn_merges(world_captions(0))
    write_tokenizer(tmp_path / "tokenizer", merges, END)
    for name in ("vocab.json", "merges.txt"):
        shipped = Miniature().root / "tokenizer" / name
        assert (tmp_path / "tokenizer" / name).read_bytes() == shipped.read_bytes()


def test_each_byte_has_its_own_character() -> None:
    assert len(set(byte_characters())) == 256
    assert byte_characters()[0] == "!"


def test_words_of_the_world_are_one_token_each(shipped) -> None:
    words = " ".join([*COLOURS, *GROUNDS, *SHAPES, *RELATIONS, "small", "large", "background", "photo"])
    assert shipped.tokenize(words) == [word + "</w>" for word in words.split()]


def test_a_made_up_word_keeps_what_stands_behind_it(shipped) -> None:
    ids = shipped("a <zig> on a white background").input_ids
    assert ids.count(shipped.eos_token_id) == 1
    assert shipped.decode(ids, skip_special_tokens=True).replace(" ", "") == "a<zig>onawhitebackground"


@given(st.text(max_size=60))
def test_no_text_has_the_end_in_its_middle(text) -> None:
    tokenizer = Miniature().load_tokenizer_2()
    if END in text.lower() or "<|startoftext|>" in text.lower():
        return
    ids = tokenizer(text).input_ids
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
