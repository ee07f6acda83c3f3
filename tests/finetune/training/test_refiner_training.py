"""A refiner as the trained model: five time ids with the picture's score, one encoder, no previews."""

import json

import pytest
import torch

from finetune.errors import RecipeError
from finetune.export.folder import export_folder
from finetune.model.miniature import Miniature
from finetune.training.batch import TrainBatch
from finetune.training.loop import optimizer_step


@pytest.fixture(scope="session")
def refiner_folder(tmp_path_factory):
    """The miniature's refiner as a folder."""
    target = tmp_path_factory.mktemp("models") / "refiner"
    export_folder(Miniature(refiner=True), {}, target, precision="fp32")
    return target


@pytest.fixture
def scored_folder(pictures_folder, tmp_path):
    """The same pictures, two of which have a score of their own."""
    folder = tmp_path / "scored"
    folder.mkdir()
    for path in pictures_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    lines = [{"file_name": "0.png", "aesthetic_score": 7.25}, {"file_name": "1.png", "aesthetic_score": 2}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def refiner(folder, kind="full", **settings):
    return {
        "model": {"kind": "folder", "path": str(folder)},
        "adapter": {"kind": kind, "unet": {"learning_rate": 1e-3}},
        "training.objective.timesteps": {"kind": "uniform", "max": 199},
        **settings,
    }


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_unet_is_told_size_crop_and_score(make_state, refiner_folder, scored_folder, kind):
    sources = [{"kind": "folder", "path": str(scored_folder), "aesthetic_score": 5.5}]
    settings = refiner(refiner_folder, kind, **{"training.micro_batch_size": 4, "training.global_batch_size": 4})
    state = make_state({**settings, "data.sources": sources})
    told = []
    state.task.unet.register_forward_pre_hook(
        lambda _module, _inputs, named: told.append(named["added_cond_kwargs"]["time_ids"].tolist()), with_kwargs=True
    )
    names = [item.sample.name for item in state.pictures.batches_of(1)[0]]
    report = optimizer_step(state)
    scores = {"0.png": 7.25, "1.png": 2.0, "2.png": 5.5, "3.png": 5.5}
    [ids] = told
    for name, (*sizes, score) in zip(names, ids, strict=True):
        side = 40 + int(name[0])
        assert sizes == [side, side, 0, 0]
        assert score == scores[name]
    assert len(ids) == 4
    assert all(0 <= timestep <= 199 for timestep in report.timesteps)


def test_a_dropped_caption_is_the_encoded_empty_text(make_state, refiner_folder):
    state = make_state(refiner(refiner_folder))
    embeddings = state.task.text.encode([None, "a photo of a cat number 1"])
    assert embeddings.prompt_embeds.shape == (2, 77, state.task.unet.config.cross_attention_dim)
    assert embeddings.prompt_embeds[0].abs().sum() > 0
    assert not torch.equal(embeddings.prompt_embeds[0], embeddings.prompt_embeds[1])


def test_the_encoder_it_has_can_be_trained_and_the_one_it_lacks_not(make_state, hash_tensors, refiner_folder):
    both = {"kind": "full", "unet": {}, "text_encoder_2": {"learning_rate": 1e-3}}
    state = make_state({**refiner(refiner_folder), "adapter": both})
    before = hash_tensors(state.groups["text_encoder_2"].parameters())
    optimizer_step(state)
    assert hash_tensors(state.groups["text_encoder_2"].parameters()) != before
    with pytest.raises(RecipeError, match=r"adapter\.text_encoder: this model has no such encoder"):
        make_state({**refiner(refiner_folder), "adapter": {"kind": "full", "text_encoder": {}}})


def test_previews_of_a_refiner_are_refused_in_words(make_state, refiner_folder):
    with pytest.raises(RecipeError, match=r"preview\.prompts: the model is a refiner.*Leave preview\.prompts out"):
        make_state(refiner(refiner_folder, **{"preview.prompts": ["a cat"]}))


def test_a_base_is_told_no_score(make_state):
    state = make_state()
    [item] = state.pictures.batches_of(1)[0]
    assert state.task.time_ids(item) == item.frame.add_time_ids()


def test_a_batch_has_five_or_six_ids(make_batch):
    batch = make_batch()
    for count in (5, 6):
        TrainBatch(**{**vars(batch), "add_time_ids": torch.zeros(2, count)})
    with pytest.raises(AssertionError, match="do not fit"):
        TrainBatch(**{**vars(batch), "add_time_ids": torch.zeros(2, 4)})
