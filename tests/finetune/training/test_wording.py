"""Worded captions in training: what is encoded beforehand is what is asked for, and a run goes on as it was."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from finetune.errors import RecipeError
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import optimizer_step

CAPTION = "a cat, on grey, {asleep|awake}, alone, small\nsecond, in sun, of four, lines\n\n  third,  line "
TRIGGER = "zrkx"
SHUFFLED = {"shuffle": True, "keep_first": 1, "tag_dropout": 0.2, "wildcards": True, "choose_line": True, "variants": 2}


@pytest.fixture
def worded(make_recipe, tmp_path, pictures_folder):
    """Return a function that makes the settings of pictures with a worded caption each."""
    folder = tmp_path / "worded"
    folder.mkdir()
    for picture in sorted(pictures_folder.glob("*.png")):
        (folder / picture.name).write_bytes(picture.read_bytes())
        (folder / picture.name).with_suffix(".txt").write_text(CAPTION, encoding="utf-8")

    def make(wording, **settings):
        source = {"kind": "folder", "path": str(folder), "trigger": TRIGGER, "wording": wording}
        return {"data.sources": [source], **settings}

    return make


def planned(recipe, repeats=1):
    report = scan_pictures(recipe)
    samples = tuple(replace(sample, repeats=repeats) for sample in report.samples)
    return plan_pictures(recipe, replace(report, samples=samples))


def shown(pictures, num_epochs):
    """Return the captions each picture was seen with, epoch by epoch."""
    captions = {sample.name: [] for sample in pictures.samples}
    for step in range(1, num_epochs * pictures.steps_per_epoch + 1):
        for batch in pictures.batches_of(step):
            for item in batch:
                captions[item.sample.name].append(item.caption)
    return captions


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("wording", [SHUFFLED, {**SHUFFLED, "choose_line": False}, {"choose_line": True}, {}, None])
def test_training_asks_for_the_captions_that_are_encoded_and_for_no_other(make_recipe, worded, wording, repeats):
    pictures = planned(make_recipe(worded(wording)), repeats)
    seen = shown(pictures, 12)
    assert {caption for captions in seen.values() for caption in captions} == set(pictures.captions())
    assert all(caption.startswith(f"{TRIGGER}, ") for caption in pictures.captions())


def test_lines_and_their_wordings_come_round_in_turn(make_recipe, worded):
    for captions in shown(planned(make_recipe(worded(SHUFFLED))), 18).values():
        assert captions[:6] == captions[6:12] == captions[12:]
        kept = [caption.split(", ")[1] for caption in captions]
        assert kept[:3] == ["a cat", "second", "third"]
        assert kept == 6 * kept[:3]


def test_pictures_are_worded_apart_and_seeds_too(make_recipe, worded):
    wording = {"shuffle": True, "variants": 4}
    first = shown(planned(make_recipe(worded(wording))), 4)
    assert len({tuple(captions) for captions in first.values()}) == len(first), "all have the same caption"
    assert first == shown(planned(make_recipe(worded(wording))), 4)
    assert first != shown(planned(make_recipe(worded(wording, seed=1))), 4)


def test_without_wording_lines_are_joined_as_ever(make_recipe, worded):
    for wording in (None, {}):
        pictures = planned(make_recipe(worded(wording)))
        [caption] = set(pictures.captions())
        assert caption == f"{TRIGGER}, {' '.join(CAPTION.split())}"
        assert {sample.caption for sample in pictures.samples} == {caption}


def test_what_is_shown_of_a_sample_is_its_caption_before_any_draw(make_recipe, worded):
    pictures = planned(make_recipe(worded({**SHUFFLED, "prefix": "photo,"})))
    assert {sample.caption for sample in pictures.samples} == {
        f"{TRIGGER}, photo, a cat, on grey, asleep, alone, small"
    }


def test_without_variants_each_showing_is_new_and_frozen_encoders_refuse(make_recipe, make_state, worded):
    settings = worded({"shuffle": True, "variants": None})
    pictures = planned(make_recipe(settings))
    assert not pictures.has_finite_captions
    assert all(len(set(captions)) > 10 for captions in shown(pictures, 20).values())
    with pytest.raises(RecipeError, match=r"wording\.variants: got null.*Set variants: 8"):
        make_state(settings)


def test_training_goes_on_after_a_step_as_if_it_had_never_stopped(make_recipe, worded):
    """The captions of a step are those of its number, whatever was asked for before."""
    recipe = make_recipe(worded({**SHUFFLED, "variants": None}, **{"adapter.text_encoder": {"rank": 4}}))
    through = planned(recipe)
    steps = [through.batches_of(step) for step in range(1, 25)]
    for begin in (5, 17):
        resumed = planned(recipe)
        again = [resumed.batches_of(step) for step in range(begin, 25)]
        assert [[[i.caption for i in b] for b in s] for s in again] == [
            [[i.caption for i in b] for b in s] for s in steps[begin - 1 :]
        ]


def test_where_brackets_weigh_a_pair_of_them_is_shuffled_as_one_tag(make_recipe, worded, tmp_path):
    for path in (tmp_path / "worded").glob("*.txt"):
        path.write_text("a, (red scarf, gloves:1.2), b, c", encoding="utf-8")
    settings = worded({"shuffle": True, "variants": 6})
    weighted, plain = (
        set(planned(make_recipe({**settings, "training.weighted_captions": on})).captions()) for on in (True, False)
    )
    assert len(weighted) > 3
    assert all("(red scarf, gloves:1.2)" in caption for caption in weighted)
    assert not all("(red scarf, gloves:1.2)" in caption for caption in plain)


@pytest.mark.parametrize("trained", [False, True])
def test_a_long_line_is_warned_of_though_it_is_not_the_first(make_recipe, worded, tmp_path, trained):
    from accelerate import Accelerator

    from finetune.model.text_tokens import Reading
    from finetune.training.denoising_job import _warn_of_long_texts
    from finetune.training.denoising_plan import plan_denoising

    warnings = []
    adapter = {"adapter.text_encoder": {"rank": 2}} if trained else {}
    prompt = {"prompt": "a cow, " * 60}
    settings = worded(
        {"choose_line": True}, **{"preview.prompts": [prompt], "training.max_caption_tokens": 75, **adapter}
    )
    (tmp_path / "worded" / "2.txt").write_text("a cat\n" + "a dog, " * 60, encoding="utf-8")
    recorder, recipe = SimpleNamespace(warn=warnings.append), make_recipe(settings)
    plan = plan_denoising(recipe, planned(recipe), Accelerator(cpu=True), print)
    assert (plan.encoding.text is None) == trained
    _warn_of_long_texts(recorder, plan, planned(recipe), Reading(75))
    of_prompts, of_captions = warnings
    assert of_prompts.startswith("1 prompt is longer than the 75 tokens that are read, the first: “a cow, a cow")
    assert of_captions.startswith("1 caption is longer than the 75 tokens that are read, the first: 2.png.")
    assert of_captions.endswith("put first what matters, or raise training.max_caption_tokens")


def test_a_step_takes_what_was_encoded(make_state, worded):
    state = make_state(worded(SHUFFLED))
    asked = [item.caption for step in range(1, 4) for batch in state.pictures.batches_of(step) for item in batch]
    assert len(set(asked)) > 1
    losses = [optimizer_step(state).loss for _ in range(3)]
    assert len(set(losses)) == 3
