"""Texts encoded once give what the encoders themselves give, and leave no encoder behind."""

import weakref

import pytest
import torch
from accelerate import Accelerator

from finetune.cache.keys import TextAddress
from finetune.cache.text import TextCache
from finetune.cache.values import MemoryStore
from finetune.model.frozen_text import encode_texts, text_dtype, unseen
from finetune.model.miniature import Miniature
from finetune.model.text import TextStack
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading
from finetune.preview.encode import encode_guidance, texts_of
from finetune.preview.requests import resolve_request
from finetune.recipe.preview import PreviewPrompt

_CPU = torch.device("cpu")
_READER = TextReader.load(Miniature(), Reading())
_TEXTS = ["a photo of a cat", "a <zig>, 1930 ä", "word " * 200, "a photo of a cat"]


class _WatchedMiniature(Miniature):
    """Notes which encoders are alive whenever one is loaded."""

    def __init__(self, *, refiner=False):
        super().__init__(refiner=refiner)
        self.loaded = []
        self.alive_when_loading = []

    def _load(self, model_class, subfolder, dtype):
        self.alive_when_loading.append([name for name, model in self.loaded if model() is not None])
        model = super()._load(model_class, subfolder, dtype)
        self.loaded.append((subfolder, weakref.ref(model)))
        return model


def _filled(files, texts=_TEXTS, dtype=torch.float32, progress=unseen):
    """Return the texts' embeddings as a run has them where nothing is kept on the disk."""
    address = TextAddress.here("these", str(dtype), str(text_dtype(dtype, _CPU)), "cpu")
    cache = TextCache(MemoryStore(), address, texts, TextReader.load(files, Reading()), files, dtype, _CPU)
    cache.fill(progress, Accelerator(cpu=True))
    return cache


@pytest.mark.parametrize("refiner", [False, True])
def test_frozen_texts_equal_the_encoders_own(refiner):
    frozen = _filled(Miniature(refiner=refiner))
    stack = TextStack.load(Miniature(refiner=refiner), torch.float32, _CPU)
    for ours, theirs in [
        *zip(frozen.encode_frozen(_TEXTS), stack.encode_frozen(_TEXTS), strict=True),
        (frozen.empty(), stack.empty()),
    ]:
        assert torch.equal(ours.prompt_embeds, theirs.prompt_embeds)
        assert torch.equal(ours.pooled_prompt_embeds, theirs.pooled_prompt_embeds)
    first, second = frozen.encode_frozen(_TEXTS[:2])
    assert not torch.equal(first.prompt_embeds, second.prompt_embeds)


def test_one_encoder_is_in_memory_at_a_time_and_none_afterwards():
    files = _WatchedMiniature()
    frozen = _filled(files)
    assert [name for name, _ in files.loaded] == ["text_encoder", "text_encoder_2"]
    assert files.alive_when_loading == [[], []]
    assert all(model() is None for _, model in files.loaded)
    assert frozen.encode_frozen(_TEXTS[:1])


@pytest.mark.parametrize(
    ("refiner", "expected"), [(False, 6), (True, 4)]
)  # the refiner: one encoder, and the empty text
def test_progress_counts_each_distinct_text_once_an_encoder(refiner, expected):
    seen = []
    files = Miniature(refiner=refiner)
    _filled(files, progress=lambda done, total: seen.append((done, total)))
    assert list(dict.fromkeys(seen)) == [(done, expected) for done in range(expected + 1)]


def test_a_cpu_computes_in_float32_and_keeps_what_the_run_asks_for():
    assert text_dtype(torch.bfloat16, _CPU) == torch.float32
    assert text_dtype(torch.bfloat16, torch.device("cuda")) == torch.bfloat16
    kept = _filled(Miniature(), dtype=torch.bfloat16).encode_frozen(_TEXTS[:1])[0]
    assert kept.prompt_embeds.dtype == kept.pooled_prompt_embeds.dtype == torch.bfloat16
    rounded = TextStack.load(Miniature(), torch.bfloat16, _CPU)  # the same rounded weights, computed in float32
    assert rounded.text_encoder is not None
    rounded.text_encoder.float()
    rounded.text_encoder_2.float()
    exact = rounded.encode_frozen(_TEXTS[:1])[0]
    assert torch.equal(kept.prompt_embeds, exact.prompt_embeds.bfloat16())
    assert torch.equal(kept.pooled_prompt_embeds, exact.pooled_prompt_embeds.bfloat16())


def test_captions_and_prompts_are_found_again():
    requests = [
        resolve_request(PreviewPrompt(prompt="", negative_prompt="blurry"), (64, 64), 16),
        resolve_request(PreviewPrompt(prompt="a cat"), (64, 64), 16),
    ]
    for refiner in (False, True):
        texts = [*_TEXTS, *texts_of(requests)]
        frozen = _filled(Miniature(refiner=refiner), texts)
        stack = TextStack.load(Miniature(refiner=refiner), torch.float32, _CPU)
        for ours, theirs in zip(encode_guidance(frozen, requests), encode_guidance(stack, requests), strict=True):
            assert torch.equal(ours.positive.prompt_embeds, theirs.positive.prompt_embeds)
            assert torch.equal(ours.negative.prompt_embeds, theirs.negative.prompt_embeds)
        batch = frozen.encode([_TEXTS[1], None])
        assert torch.equal(batch.prompt_embeds[:1], stack.encode_frozen([_TEXTS[1]])[0].prompt_embeds)
        assert torch.equal(batch.prompt_embeds[1:], stack.empty().prompt_embeds)


def test_texts_beyond_one_block_are_encoded_as_those_within(monkeypatch):
    texts = ["one", "two", "three", "four", "five"]
    whole = dict(encode_texts(Miniature(), _READER, texts, torch.float32, _CPU, unseen))
    monkeypatch.setattr("finetune.model.frozen_text.TEXTS_AT_ONCE", 2)
    files, seen = _WatchedMiniature(), []
    blocks = dict(
        encode_texts(files, _READER, texts, torch.float32, _CPU, lambda done, total: seen.append((done, total)))
    )
    assert [name for name, _ in files.loaded] == ["text_encoder", "text_encoder_2"] * 3
    assert files.alive_when_loading == [[]] * 6
    assert seen == [(done, 10) for done in range(11)]
    assert list(blocks) == texts
    for text in texts:
        assert torch.equal(blocks[text].prompt_embeds, whole[text].prompt_embeds)
        assert torch.equal(blocks[text].pooled_prompt_embeds, whole[text].pooled_prompt_embeds)


def test_encoding_in_the_middle_of_a_step_gives_the_same_bits():
    """A value found damaged is encoded again inside the step's autocast, which must not reach it."""
    plain = dict(encode_texts(Miniature(), _READER, ["a cat"], torch.float32, _CPU, unseen))["a cat"]
    with torch.autocast("cpu", torch.bfloat16):
        inside = dict(encode_texts(Miniature(), _READER, ["a cat"], torch.float32, _CPU, unseen))["a cat"]
        assert torch.is_grad_enabled()
    assert torch.equal(plain.prompt_embeds, inside.prompt_embeds)
    assert torch.equal(plain.pooled_prompt_embeds, inside.pooled_prompt_embeds)
