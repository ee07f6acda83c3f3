"""Long and weighted texts: against a loop of our own over raw encoders in float64, and in chunks as they are cut."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.model.miniature import Miniature
from finetune.model.single_file import clip_tokenizer
from finetune.model.text import TextEmbeddings, TextStack, tokenize, weigh
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading, cut_into_chunks, read_texts
from finetune.training.encode import LiveText

WORDS = "a zebra in red with an extraordinarily long scarf, standing on one hill beside 12 houses; "
SHORT, TWO, THREE = "a photo of a cat", (WORDS * 2).strip(), WORDS * 3


def _stack(reading, refiner=False):
    """Return the miniature's encoders in float64."""
    stack = TextStack.load(Miniature(refiner=refiner), torch.float32, torch.device("cpu"), reading)
    for encoder in (stack.text_encoder, stack.text_encoder_2):
        if encoder is not None:
            encoder.double()
    return stack


def _chunks(tokenizer, pieces):
    """Cut [(text, weight), …] into at most three chunks of 75 by the endings of words; return ids and weights."""
    words = []
    for text, weight in pieces:
        word = []
        for token in tokenizer.tokenize(text, add_special_tokens=False):
            word.append((tokenizer.convert_tokens_to_ids(token), weight))
            if token.endswith("</w>"):
                words.append(word)
                word = []
        assert not word
    chunks = [[]]
    for word in words:
        if len(chunks[-1]) + len(word) > 75:
            chunks.append([])
        chunks[-1] += word
    assert len(chunks) <= 3
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    framed = [[(begin, 1.0), *chunk, (end, 1.0), *[(pad, 1.0)] * (75 - len(chunk))] for chunk in chunks]
    return [([token for token, _ in chunk], [weight for _, weight in chunk]) for chunk in framed]


@torch.no_grad()
def _by_hand(stack, pieces):
    """Encode each chunk alone by each encoder; multiply, and restore the mean of the chunk."""
    joined, pooled = [], []
    for tokenizer, encoder in [(stack.tokenizer, stack.text_encoder), (stack.tokenizer_2, stack.text_encoder_2)]:
        if encoder is None:
            continue
        states = []
        for ids, weights in _chunks(tokenizer, pieces):
            output = encoder(torch.tensor([ids]), output_hidden_states=True)
            hidden = output.hidden_states[len(output.hidden_states) - 2][0]
            weighted = torch.stack([state * weight for state, weight in zip(hidden, weights, strict=True)])
            states.append(weighted * (hidden.sum() / weighted.sum()))
            pooled.append(getattr(output, "text_embeds", None))
        joined.append(torch.cat(states))
    seconds = [each for each in pooled if each is not None]
    return torch.cat(joined, dim=-1), seconds[0][0]


CASES = {
    "short": (SHORT, [(SHORT, 1.0)], 1),
    "two": (TWO, [(TWO, 1.0)], 2),
    "three": (THREE, [(THREE, 1.0)], 3),
    "weighted": ("(red:1.4) and [blue] cat", [("red", 1.4), ("and", 1.0), ("blue", 0.909091), ("cat", 1.0)], 1),
    "weighted and long": (f"{TWO} ((cat)) {SHORT}", [(TWO, 1.0), ("cat", 1.21), (SHORT, 1.0)], 2),
    "a weight over chunks": (f"({TWO}:0.7)", [(TWO, 0.7)], 2),
}  # fmt: skip


@pytest.mark.parametrize("refiner", [False, True])
def test_each_chunk_is_encoded_alone_and_weighed(refiner):
    stack = _stack(Reading(weighted=True), refiner)
    found = stack.encode([text for text, _, _ in CASES.values()])
    assert found.prompt_mask is not None
    for row, (_, pieces, chunks) in enumerate(CASES.values()):
        states, pooled = _by_hand(stack, pieces)
        assert len(states) == 77 * chunks == int(found.prompt_mask[row].sum())
        torch.testing.assert_close(found.prompt_embeds[row, : len(states)], states, rtol=0, atol=1e-12)
        assert found.prompt_embeds[row, len(states) :].eq(0).all()
        torch.testing.assert_close(found.pooled_prompt_embeds[row], pooled, rtol=0, atol=1e-12)


def test_a_weight_changes_states_and_never_the_pooled_embedding():
    stack = _stack(Reading(weighted=True))
    plain, heavy, light = stack.encode_frozen(["a red cat", "a (red:1.5) cat", "a (red:0.5) cat"])
    assert (heavy.prompt_embeds - plain.prompt_embeds).abs().max() > 0.1
    assert (light.prompt_embeds - plain.prompt_embeds).abs().max() > 0.1
    assert torch.equal(heavy.pooled_prompt_embeds, plain.pooled_prompt_embeds)


@pytest.mark.parametrize("text", ["a cat", "", "(a cat:1.0)", r"cat \(animal\)", "wow!!! (unfinished", THREE])
def test_without_weights_the_bits_are_those_of_the_plain_text(text):
    weighted, plain = _stack(Reading(weighted=True)), _stack(Reading())
    written = {"(a cat:1.0)": "a cat", r"cat \(animal\)": "cat (animal)"}.get(text, text)
    [ours], [theirs] = weighted.encode_frozen([text]), plain.encode_frozen([written])
    assert torch.equal(ours.prompt_embeds, theirs.prompt_embeds)
    assert torch.equal(ours.pooled_prompt_embeds, theirs.pooled_prompt_embeds)


def test_brackets_are_text_where_a_recipe_does_not_say_otherwise():
    stack = _stack(Reading())
    [brackets], [plain] = stack.encode_frozen(["a (red:1.4) cat"]), stack.encode_frozen(["a red cat"])
    assert not torch.equal(brackets.prompt_embeds, plain.prompt_embeds)
    assert not torch.equal(brackets.pooled_prompt_embeds, plain.pooled_prompt_embeds)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
@pytest.mark.parametrize(
    "text",
    ["", SHORT, "wow!!! what", "<|endoftext|> in it", "naïve 東京 \U0001f600", "x" * 400, THREE, "cat " * 75],
)
def test_what_one_chunk_holds_is_what_transformers_gives(pad, text):
    """Also what is cut off: in the one chunk that is read, and in the middle of a word."""
    tokenizer = clip_tokenizer(pad)
    [given] = TextReader(None, tokenizer, Reading(75)).read([text])
    assert list(map(list, given.second.ids)) == tokenize(tokenizer, [text]).tolist()
    assert given.num_cut_off == max(0, len(tokenizer(text, verbose=False).input_ids) - 77)


def test_the_encoders_get_equally_many_chunks_where_their_tokenizers_count_differently():
    first, second = clip_tokenizer("<|endoftext|>"), clip_tokenizer("!")
    text = "a cat" + "!" * 100  # the second's padding is '!', so that it has a hundred of them
    [given] = TextReader(first, second, Reading()).read([text])
    [empty] = TextReader(first, second, Reading()).read([""])
    assert [len(given.first.ids), len(given.second.ids)] == [2, 2]
    assert given.first.ids[1] == empty.first.ids[0]
    assert given.second.ids[1] != empty.second.ids[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_what_both_tokenizers_cut_alike_is_cut_once_and_what_they_do_not_twice(monkeypatch, weighted):
    reading = Reading(weighted=weighted)
    first, second = clip_tokenizer("<|endoftext|>"), clip_tokenizer("!")
    reader, alone = TextReader(first, second, reading), TextReader(None, first, reading)
    texts = [
        "a cat",
        "wow! a cat",
        "(!:1.2)",
        "<|endoftext|> <|startoftext|>",
        "",
        THREE,
        THREE + "!!!",
        "(a) \\(b\\)!",
    ]
    cut = []
    monkeypatch.setattr(
        "finetune.model.text_reader.read_texts",
        lambda tokenizer, given, reading: cut.append(list(given)) or read_texts(tokenizer, given, reading),
    )
    read = reader.read(texts)
    assert cut == [texts, [text for text in texts if "!" in text]]
    for both, [own] in zip(read, map(alone.read, [[text] for text in texts]), strict=True):
        assert both.first.ids[: len(own.second.ids)] == own.second.ids
        assert (both.first.weights or ())[: len(own.second.weights or ())] == (own.second.weights or ())


def test_tokenizers_of_different_vocabularies_are_never_taken_for_one():
    texts = ["a zebra", "a red star"]
    miniature = Miniature().load_tokenizer_2()
    read = TextReader(clip_tokenizer("!"), miniature, Reading()).read(texts)
    for both, own in zip(read, TextReader(None, clip_tokenizer("!"), Reading()).read(texts), strict=True):
        assert both.first == own.second != both.second


WORD_LENGTHS = st.lists(st.one_of(st.integers(1, 8), st.integers(1, 200)), max_size=80)


@given(WORD_LENGTHS, st.integers(1, 3))
def test_chunks_hold_whole_words_in_their_order(lengths, max_chunks):
    words = [word for word, length in enumerate(lengths) for _ in range(length)]
    chunks = cut_into_chunks(words, max_chunks)
    assert chunks[0][0] == 0
    assert all(0 <= end - begin <= 75 for begin, end in chunks)
    assert all(one[1] == other[0] for one, other in pairwise(chunks))
    assert len(chunks) <= max_chunks
    assert all(begin < end for begin, end in chunks) or not words
    if chunks[-1][1] < len(words):  # cut off: where no more can be read
        assert len(chunks) == max_chunks
        assert chunks[-1][1] - chunks[-1][0] == 75
    for begin, end in chunks[:-1]:
        torn = words[end - 1] == words[end]
        assert not torn or lengths[words[end]] > 75
        if not torn:  # no word that would have fitted is left for the next
            assert end - begin + lengths[words[end]] > 75


def test_weights_are_restored_to_the_mean_as_a1111_does():
    states = torch.randn(3, 77, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    weights = torch.ones(3, 77, dtype=torch.float64)
    weights[0, 3:9], weights[1, 5] = 1.3, 0.2
    found = weigh(states, weights)
    torch.testing.assert_close(found.mean(dim=(1, 2)), states.mean(dim=(1, 2)), rtol=1e-12, atol=0)
    for chunk in range(3):  # a factor alone: what tokens are to one another is what the weights say
        factor = found[chunk] / (states[chunk] * weights[chunk, :, None])
        torch.testing.assert_close(factor, factor[:1, :1].expand_as(factor), rtol=1e-9, atol=0)
    assert torch.equal(found[2], states[2])


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0, 100.0])
def test_a_mean_near_zero_blows_nothing_up(weight):
    """Whatever the states are, what restores the mean is at most what the weights can have moved it by."""
    for seed in range(20):
        states = torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        states -= states.mean() if seed % 2 else 0.0
        weights = torch.ones(1, 77, dtype=torch.float64)
        weights[0, 7:30] = weight
        found, bound = weigh(states, weights), max(weight, 1.0 / max(weight, 0.1))
        factor = (found[0, 0] / states[0, 0]).mean().item()
        assert 1.0 / bound - 1e-9 <= factor <= bound + 1e-9
    nothing = weigh(torch.zeros(1, 77, 8), torch.zeros(1, 77))
    assert nothing.eq(0).all()


def test_states_of_low_precision_are_weighed_in_float32_and_stay_what_they_are():
    states = torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(1)) + 1.0
    weights = torch.ones(1, 77)
    weights[0, 4] = 1.1
    found = weigh(states.bfloat16(), weights)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, weigh(states.bfloat16().float(), weights).bfloat16())


def test_gradients_flow_through_all_chunks():
    """Into every token of every chunk, of both encoders; into none of a dropped caption's."""
    stack = _stack(Reading(weighted=True))
    seen = []

    def keep(_module, _inputs, output):
        output.retain_grad()
        seen.append(output)

    for encoder in (stack.text_encoder, stack.text_encoder_2):
        encoder.requires_grad_(requires_grad=True)
        getattr(encoder, "text_model", encoder).embeddings.token_embedding.register_forward_hook(keep)
    encoded = LiveText(stack).encode([f"{THREE} (snow:1.2)", None, SHORT])
    encoded.prompt_embeds.square().sum().backward()
    assert [len(embedded) for embedded in seen] == [5, 5]
    for embedded in seen:
        assert (embedded.grad.abs().amax(dim=2) > 0).all(dim=1).tolist() == [True, True, True, False, True]


def test_a_batch_of_live_texts_is_what_each_is_alone():
    stack = _stack(Reading(weighted=True))
    captions = [THREE, None, SHORT, f"({TWO}:1.2)"]
    with torch.no_grad():
        live = LiveText(stack).encode(captions)
    assert live.prompt_mask.sum(dim=1).tolist() == [231, 77, 77, 154]
    for row, caption in enumerate(captions):
        alone = stack.empty() if caption is None else stack.encode_frozen([caption])[0]
        length = alone.prompt_embeds.shape[1]
        torch.testing.assert_close(live.prompt_embeds[row, :length], alone.prompt_embeds[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(live.pooled_prompt_embeds[row], alone.pooled_prompt_embeds[0], rtol=0, atol=1e-12)


def test_joining_keeps_each_text_its_own():
    parts = [TextEmbeddings(torch.full((1, 77 * count, 2), float(count)), torch.zeros(1, 3)) for count in (2, 1, 3)]
    joined = TextEmbeddings.cat(parts)
    assert joined.prompt_embeds.shape == (3, 231, 2)
    assert joined.prompt_embeds.sum(dim=(1, 2)).tolist() == [2 * 154 * 2.0, 77 * 2.0, 3 * 231 * 2.0]


def test_how_a_tokenizer_was_called_since_changes_nothing_that_is_read():
    stack = _stack(Reading(75))
    before = stack.reader.read([THREE])[0]
    stack.tokenizer_2([SHORT], padding="max_length", max_length=5, truncation=True)
    assert stack.reader.read([THREE])[0] == before
