"""Texts encoded once give what the encoders themselves give, and leave no encoder behind."""

import weakref

import pytest
import torch

from finetune.model.frozen_text import FrozenText, text_dtype
from finetune.model.miniature import Miniature
from finetune.model.text import TextStack
from finetune.preview.encode import encode_guidance, texts_of
from finetune.preview.requests import resolve_request
from finetune.recipe.preview import PreviewPrompt
from finetune.training.encode import TextCache

_CPU = torch.device("cpu")
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


def _unseen(_done, _total):
    pass


@pytest.mark.parametrize("refiner", [False, True])
def test_frozen_texts_equal_the_encoders_own(refiner):
    frozen = FrozenText.build(Miniature(refiner=refiner), _TEXTS, torch.float32, _CPU, _unseen)
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
    frozen = FrozenText.build(files, _TEXTS, torch.float32, _CPU, _unseen)
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
    FrozenText.build(files, _TEXTS, torch.float32, _CPU, lambda done, total: seen.append((done, total)))
    assert seen == [(done, expected) for done in range(expected + 1)]


def test_a_cpu_computes_in_float32_and_keeps_what_the_run_asks_for():
    assert text_dtype(torch.bfloat16, _CPU) == torch.float32
    assert text_dtype(torch.bfloat16, torch.device("cuda")) == torch.bfloat16
    kept = FrozenText.build(Miniature(), _TEXTS, torch.bfloat16, _CPU, _unseen).encode_frozen(_TEXTS[:1])[0]
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
        frozen = FrozenText.build(Miniature(refiner=refiner), texts, torch.float32, _CPU, _unseen)
        stack = TextStack.load(Miniature(refiner=refiner), torch.float32, _CPU)
        for ours, theirs in zip(encode_guidance(frozen, requests), encode_guidance(stack, requests), strict=True):
            assert torch.equal(ours.positive.prompt_embeds, theirs.positive.prompt_embeds)
            assert torch.equal(ours.negative.prompt_embeds, theirs.negative.prompt_embeds)
        batch = TextCache.build(frozen, _TEXTS, _unseen).encode([_TEXTS[1], None])
        assert torch.equal(batch.prompt_embeds[:1], stack.encode_frozen([_TEXTS[1]])[0].prompt_embeds)
        assert torch.equal(batch.prompt_embeds[1:], stack.empty().prompt_embeds)
