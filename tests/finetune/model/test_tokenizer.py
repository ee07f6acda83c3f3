"""CLIP's tokenizer, rebuilt from its merges."""

from finetune.model.single_file import clip_tokenizer


def test_known_ids():
    tokenizer = clip_tokenizer("<|endoftext|>")
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(tokenizer) == tokenizer.vocab_size == 49408
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (49406, 49407, 77)


def test_paddings():
    first, second = clip_tokenizer("<|endoftext|>"), clip_tokenizer("!")
    assert (first.pad_token_id, second.pad_token_id) == (49407, 0)
    for tokenizer, pad in ((first, 49407), (second, 0)):
        ids = tokenizer("a cat", padding="max_length", max_length=77).input_ids
        assert ids == [49406, 320, 2368, 49407] + [pad] * 73


def test_long_text_is_cut_with_its_end_kept():
    ids = clip_tokenizer("!")("cat " * 200, truncation=True, max_length=77).input_ids
    assert ids == [49406] + [2368] * 75 + [49407]


def test_case_and_spaces_do_not_count_and_anything_can_be_written():
    tokenizer = clip_tokenizer("!")
    assert tokenizer("A  PHOTO\nof a Cat").input_ids == tokenizer("a photo of a cat").input_ids
    for text in ("", "éàü ß", "猫の写真", "🐈", "<zig>", "it's 3,5 cm"):
        ids = tokenizer(text).input_ids
        assert ids[0] == 49406
        assert ids[-1] == 49407
        assert text == "" or len(ids) > 2
        assert all(0 <= token < 49406 for token in ids[1:-1])
