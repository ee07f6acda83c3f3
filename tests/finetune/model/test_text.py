"""Text conditioning against diffusers' own pipeline, bit for bit."""

import pytest
import torch
from accelerate import Accelerator
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from finetune.cache.keys import TextAddress
from finetune.cache.text import TextCache
from finetune.cache.values import MemoryStore
from finetune.model.miniature import Miniature
from finetune.model.text import TextEmbeddings, TextStack, tokenize
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading
from finetune.training.encode import LiveText

_CAPTIONS = ["a photo of a cat", "", "a <zig>, 1930 ä", "word " * 200]


def _stack(refiner=False, max_tokens=225):
    return TextStack.load(Miniature(refiner=refiner), torch.float32, torch.device("cpu"), Reading(max_tokens))


def _pipeline(stack, pipeline_class=StableDiffusionXLPipeline, **settings):
    return pipeline_class(
        vae=None,
        unet=None,
        scheduler=EulerDiscreteScheduler(),
        text_encoder=stack.text_encoder,
        text_encoder_2=stack.text_encoder_2,
        tokenizer=stack.tokenizer,
        tokenizer_2=stack.tokenizer_2,
        add_watermarker=False,
        **settings,
    )


def _bits(tensor):
    return tensor.view(torch.int32)  # tells negative zero from zero


@pytest.mark.parametrize("caption", _CAPTIONS, ids=["plain", "empty", "unusual", "too long"])
def test_captions_equal_the_pipelines(caption):
    """Also a longer one, where no more than one chunk is read: the pipelines cut it off there."""
    stack = _stack(max_tokens=75)
    found = stack.encode_frozen([caption])[0]
    prompt, _, pooled, _ = _pipeline(stack).encode_prompt(caption, do_classifier_free_guidance=False)
    assert found.prompt_embeds.shape == (1, 77, 64 + 96)
    assert found.pooled_prompt_embeds.shape == (1, 96)
    assert torch.equal(_bits(found.prompt_embeds), _bits(prompt))
    assert torch.equal(_bits(found.pooled_prompt_embeds), _bits(pooled))


def test_no_caption_equals_the_pipelines_negative():
    stack = _stack()
    empty = stack.empty()
    _, negative, _, negative_pooled = _pipeline(stack).encode_prompt("a cat", do_classifier_free_guidance=True)
    assert torch.equal(_bits(empty.prompt_embeds), _bits(negative))
    assert torch.equal(_bits(empty.pooled_prompt_embeds), _bits(negative_pooled))
    assert empty.prompt_embeds.eq(0).all()
    # An empty caption is not the same as none.
    assert not torch.equal(stack.encode_frozen([""])[0].prompt_embeds, empty.prompt_embeds)


def test_the_refiners_text_equals_its_pipelines():
    stack = _stack(refiner=True)
    pipeline = _pipeline(stack, StableDiffusionXLImg2ImgPipeline, force_zeros_for_empty_prompt=False)
    found, empty = stack.encode_frozen(["a photo of a cat"])[0], stack.empty()
    prompt, negative, pooled, negative_pooled = pipeline.encode_prompt("a photo of a cat")
    assert found.prompt_embeds.shape == (1, 77, 96)
    assert torch.equal(_bits(found.prompt_embeds), _bits(prompt))
    assert torch.equal(_bits(found.pooled_prompt_embeds), _bits(pooled))
    assert torch.equal(_bits(empty.prompt_embeds), _bits(negative))
    assert torch.equal(_bits(empty.pooled_prompt_embeds), _bits(negative_pooled))
    assert empty.prompt_embeds.abs().max() > 0  # the refiner was not trained with zeros


def test_the_penultimate_layers_are_joined():
    """By hand from the encoders: layer 2 of 3 of each, the first one's width first, no final norm."""
    stack = _stack()
    ids, ids_2 = tokenize(stack.tokenizer, ["a cat"]), tokenize(stack.tokenizer_2, ["a cat"])
    with torch.no_grad():
        hidden = stack.text_encoder(ids, output_hidden_states=True).hidden_states
        output = stack.text_encoder_2(ids_2, output_hidden_states=True)
        found = stack.encode(["a cat"])
    assert len(hidden) == 4
    assert torch.equal(found.prompt_embeds[..., :64], hidden[2])
    assert torch.equal(found.prompt_embeds[..., 64:], output.hidden_states[2])
    assert torch.equal(found.pooled_prompt_embeds, output.text_embeds)


def test_the_two_tokenizers_pad_differently():
    stack = _stack()
    first, second = tokenize(stack.tokenizer, ["a cat"]), tokenize(stack.tokenizer_2, ["a cat"])
    assert first.shape == second.shape == (1, 77)
    end = stack.tokenizer.eos_token_id
    length = int((first[0] == end).nonzero()[0]) + 1
    assert torch.equal(first[0, :length], second[0, :length])
    assert first[0, length:].eq(end).all()
    assert second[0, length:].eq(0).all()


def _cached(texts, refiner=False):
    address = TextAddress.here("these", "float32", "float32", "cpu")
    files = Miniature(refiner=refiner)
    reader = TextReader.load(files, Reading())
    cache = TextCache(MemoryStore(), address, texts, reader, files, torch.float32, torch.device("cpu"))
    cache.fill(lambda *_: None, Accelerator(cpu=True))
    return cache


def test_the_cache_gives_what_encoding_gives():
    stack = _stack()
    batch = _cached(["b", "a", "b"]).encode(["a", None, "b"])
    expected = TextEmbeddings.cat([stack.encode_frozen(["a"])[0], stack.empty(), stack.encode_frozen(["b"])[0]])
    assert torch.equal(batch.prompt_embeds, expected.prompt_embeds)
    assert torch.equal(batch.pooled_prompt_embeds, expected.pooled_prompt_embeds)


@pytest.mark.parametrize("refiner", [False, True])
def test_encoders_in_training_give_what_the_cache_gives(refiner):
    stack = _stack(refiner)
    captions = ["a cat", None, "a dog"]
    with torch.no_grad():
        live = LiveText(stack).encode(captions)
    cached = _cached(["a cat", "a dog"], refiner).encode(captions)
    torch.testing.assert_close(live.prompt_embeds, cached.prompt_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(live.pooled_prompt_embeds, cached.pooled_prompt_embeds, rtol=0, atol=1e-5)


def test_a_dropped_caption_gives_the_base_encoders_no_gradient():
    stack = _stack()
    stack.text_encoder_2.requires_grad_(requires_grad=True)
    live = LiveText(stack)
    weight = stack.text_encoder_2.text_projection.weight
    for captions, has_gradient in (([None, None], False), ([None, "a cat"], True)):
        weight.grad = None
        live.encode(captions).pooled_prompt_embeds.square().sum().backward()
        assert bool(weight.grad.abs().max() > 0) == has_gradient
