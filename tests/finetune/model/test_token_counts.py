"""Tokens are counted as transformers' own tokenizers count them, without torch and without the network."""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from finetune.errors import RecipeError
from finetune.model.single_file import clip_tokenizer
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading
from finetune.model.token_counts import open_token_counter, read_tokenizer
from finetune.recipe.schema import FolderModel, HubModel, MiniatureModel, SingleFileModel

ROOT = Path(__file__).parents[3]
MINIATURE = ROOT / "finetune" / "model" / "miniature" / "base"
HUB = HubModel(id="stabilityai/no-such-model-here")

CAPTIONS = [
    "",
    "a photo of a cat",
    "wow!!! what a view!",
    "don't, it's HERS: 1234 €5",
    "naïve café über 東京 😀 e\u0301",
    "<|endoftext|> and <|startoftext|> in a caption",
    "a,b,,c;;;d...e",
    "  many   spaces \t here ",
    ", ".join(f"detail {index} of the ornament" for index in range(30)),
    "x" * 400,
    "🏴‍☠️ " * 60,
]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_counts_are_those_of_transformers_for_clips_vocabulary(pad: str) -> None:
    theirs = clip_tokenizer(pad)
    counted = open_token_counter(HUB)(CAPTIONS)
    which = 0 if pad != "!" else 1
    for caption, counts in zip(CAPTIONS, counted, strict=True):
        assert counts[which].count == len(theirs(caption).input_ids) - 2, caption


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_counts_are_those_of_transformers_for_the_miniature(part: str) -> None:
    theirs = CLIPTokenizer.from_pretrained(MINIATURE / part, local_files_only=True)
    counted = open_token_counter(MiniatureModel())(CAPTIONS)
    for caption, counts in zip(CAPTIONS, counted, strict=True):
        [count] = [count.count for count in counts if count.tokenizer == part]
        assert count == len(theirs(caption).input_ids) - 2, caption


def test_the_two_tokenizers_of_sdxl_differ_where_their_padding_does() -> None:
    first, second = open_token_counter(HUB)(["wow!!!"])[0]
    assert (first.tokenizer, first.count) == ("tokenizer", 2)
    assert (second.tokenizer, second.count) == ("tokenizer_2", 4)


@pytest.mark.parametrize("caption", [caption for caption in CAPTIONS if len(caption) > 200])
def test_what_is_beyond_is_exactly_what_is_not_read(caption: str) -> None:
    """Taking it away leaves the tokens that are read, and no more of the caption could be taken or left."""
    theirs = clip_tokenizer("<|endoftext|>")
    read = theirs(caption, truncation=True, max_length=77).input_ids
    first, _ = open_token_counter(HUB, Reading(75))([caption])[0]
    assert first.count > 75
    assert first.beyond
    assert caption.rstrip().endswith(first.beyond)
    kept = caption.rstrip()[: -len(first.beyond)]
    ids = theirs(kept).input_ids
    if not caption.startswith("x"):  # a word that is cut in two is spelt otherwise
        assert ids == read
    assert len(theirs(kept + first.beyond.split()[0]).input_ids) > 77 or caption.startswith("🏴")


def test_short_captions_have_nothing_beyond_and_a_larger_limit_reads_more() -> None:
    assert all(not count.beyond for counts in open_token_counter(HUB)(CAPTIONS[:8]) for count in counts)
    long = CAPTIONS[8]
    short, longer = (open_token_counter(HUB, Reading(limit))([long])[0][0].beyond for limit in (75, 150))
    assert len(longer) < len(short)
    assert short.endswith(longer)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limit", [75, 150, 225])
def test_what_is_counted_as_cut_off_is_what_training_cuts_off(limit: int, weighted: bool) -> None:
    long = "(a very (red:1.3) scarf), [standing] there, " * 30
    captions = [*CAPTIONS, long, long.replace("(", "\\(").replace(")", "\\)")]
    reading = Reading(limit, weighted)
    trained = TextReader(clip_tokenizer("<|endoftext|>"), clip_tokenizer("!"), reading).read(captions)
    counted = open_token_counter(HUB, reading)(captions)
    assert any(each.num_cut_off for each in trained)
    for caption, given, counts in zip(captions, trained, counted, strict=True):
        assert bool(given.num_cut_off) == any(count.beyond for count in counts), caption
        assert all(caption.rstrip().endswith(count.beyond) for count in counts)


def test_weights_are_not_counted_and_what_is_beyond_is_as_it_was_written() -> None:
    caption = "cat " * 73 + "(a small (dog:1.2), [far] away:1.4) in \\(brackets\\)"
    first, second = open_token_counter(HUB, Reading(75, weighted=True))([caption])[0]
    assert first.count == second.count == 73 + 10  # a small dog , far away in ( brackets )
    assert first.beyond == "dog:1.2), [far] away:1.4) in \\(brackets\\)"
    plain, _ = open_token_counter(HUB, Reading(75))([caption])[0]
    assert plain.count > first.count
    assert plain.beyond.startswith("small (dog")


def test_whose_tokenizers_count_is_said() -> None:
    assert "not downloaded" in open_token_counter(HUB).origin
    assert "miniature" in open_token_counter(MiniatureModel()).origin
    assert "every SDXL" in open_token_counter(SingleFileModel(path="x.safetensors")).origin
    assert str(MINIATURE) in open_token_counter(FolderModel(path=str(MINIATURE))).origin


def test_a_saved_tokenizer_json_counts_the_same(tmp_path: Path) -> None:
    theirs = clip_tokenizer("!")
    theirs(["short"], padding="max_length", max_length=77, truncation=True)  # saved with what was set last
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(tmp_path)
    for caption in CAPTIONS:
        assert len(tokenizer.encode(caption).ids) == len(theirs(caption).input_ids), caption


def test_a_refiners_folder_has_the_second_tokenizer_alone() -> None:
    counter = open_token_counter(FolderModel(path=str(MINIATURE.parent / "refiner")))
    assert [count.tokenizer for count in counter(["a cat"])[0]] == ["tokenizer_2"]


def test_missing_and_damaged_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no tokenizer"):
        open_token_counter(FolderModel(path=str(tmp_path)))
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(RecipeError, match="cannot be read"):
        open_token_counter(FolderModel(path=str(tmp_path)))


def test_counting_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from finetune.model.token_counts import open_token_counter\n"
        "from finetune.recipe.schema import HubModel\n"
        "assert open_token_counter(HubModel(id='a/b'))(['a cat'])[0][0].count == 2\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
