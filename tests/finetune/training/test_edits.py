"""What an edit encodes again, and what it does not: counted at the encoders themselves."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.model.geometry import MINIATURE_FOLDER
from finetune.model.miniature import Miniature
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.preparing import prepare

CAPTIONS = {"red.png": "a red thing", "green.png": "a green thing", "clear.png": "a clear thing"}


@dataclass
class Bench:
    """Three pictures, a model and a recipe over them, and what preparing it encodes."""

    folder: Path
    make_recipe: object
    settings: dict = field(default_factory=dict)
    latents: list = field(default_factory=list)
    texts: list = field(default_factory=list)

    def prepare(self):
        """Prepare the recipe; return the names of the pictures and the texts that were encoded, sorted."""
        self.latents.clear()
        self.texts.clear()
        settings = {
            "data.sources": [{"kind": "folder", "path": str(self.folder / "pictures")}],
            "model": {"kind": "folder", "path": str(self.folder / "model")},
            **self.settings,
        }
        recipe = self.make_recipe(settings)
        pictures = plan_pictures(recipe, scan_pictures(recipe))
        prepared = prepare(recipe, pictures, None, None)
        assert prepared.encoded == {"text": len(self.texts), "latents": len(self.latents)}
        return sorted(self.latents), sorted(self.texts)

    def picture(self, name):
        return self.folder / "pictures" / name

    def caption(self, name, text):
        self.picture(name).with_suffix(".txt").write_text(text, encoding="utf-8")


@pytest.fixture
def bench(tmp_path, make_recipe, monkeypatch):
    made = Bench(tmp_path, make_recipe)
    (tmp_path / "pictures").mkdir()
    draws = np.random.default_rng(0)
    for name, caption in CAPTIONS.items():
        channels = 4 if name == "clear.png" else 3
        Image.fromarray(draws.integers(0, 256, (48, 48, channels), dtype=np.uint8)).save(made.picture(name))
        made.caption(name, caption)
    shutil.copytree(MINIATURE_FOLDER / "base", tmp_path / "model")

    from finetune.cache import latents, text

    encode_picture, encode_texts = latents.picture_moments, text.encode_texts

    def picture_moments(vae, sample, frame, *rendered):
        made.latents.append(sample.name + (" flipped" if frame.flipped else ""))
        return encode_picture(vae, sample, frame, *rendered)

    def encoded(*arguments):
        for caption, embeddings in encode_texts(*arguments):
            made.texts.append(caption)
            yield caption, embeddings

    monkeypatch.setattr(latents, "picture_moments", picture_moments)
    monkeypatch.setattr(text, "encode_texts", encoded)
    assert made.prepare() == (ALL, TEXTS)
    return made


ALL = sorted(CAPTIONS)
TEXTS = sorted(CAPTIONS.values())
FLIPPED = [f"{name} flipped" for name in ALL]


def _flip_a_weight(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def edit_caption(bench):
    bench.caption("red.png", "a very red thing")


def take_anothers_caption(bench):
    bench.caption("red.png", "a green thing")


def paint(bench):
    with Image.open(bench.picture("red.png")) as picture:
        picture.putpixel((0, 0), (1, 2, 3))
        picture.save(bench.picture("red.png"))


def save_again(bench):
    """The same pixels in other bytes: nobody can know without opening it, so it is encoded."""
    with Image.open(bench.picture("red.png")) as picture:
        picture.save(bench.picture("red.png"), compress_level=1)


def rename(bench):
    bench.picture("red.png").rename(bench.picture("crimson.png"))
    bench.picture("red.txt").rename(bench.picture("crimson.txt"))


def copy(bench):
    shutil.copy(bench.picture("red.png"), bench.picture("twin.png"))
    bench.caption("twin.png", "a red thing")


def remove(bench):
    bench.picture("red.png").unlink()
    bench.picture("red.txt").unlink()


def turn(bench):
    with Image.open(bench.picture("green.png")) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(bench.picture("green.png"), exif=exif)


def change_vae(bench):
    _flip_a_weight(bench.folder / "model" / "vae" / "diffusion_pytorch_model.safetensors")


def change_first_encoder(bench):
    _flip_a_weight(bench.folder / "model" / "text_encoder" / "model.safetensors")


def change_second_encoder(bench):
    _flip_a_weight(bench.folder / "model" / "text_encoder_2" / "model.safetensors")


def change_unet(bench):
    _flip_a_weight(bench.folder / "model" / "unet" / "diffusion_pytorch_model.safetensors")


def move_model(bench):
    (bench.folder / "model").rename(bench.folder / "moved")
    bench.settings["model"] = {"kind": "folder", "path": str(bench.folder / "moved")}


EDITS = {
    # what is edited: (how, the latents and the texts that are encoded again)
    "nothing": (lambda bench: None, [], []),
    "a caption": (edit_caption, [], ["a very red thing"]),
    "a caption to another's": (take_anothers_caption, [], []),
    "a pixel": (paint, ["red.png"], []),
    "a file saved again": (save_again, ["red.png"], []),
    "an orientation": (turn, ["green.png"], []),
    "a name": (rename, [], []),
    "a copy of a picture": (copy, [], []),
    "a picture removed": (remove, [], []),
    "the VAE": (change_vae, ALL, []),
    "the first encoder": (change_first_encoder, [], TEXTS),
    "the second encoder": (change_second_encoder, [], TEXTS),
    "the U-Net": (change_unet, [], []),
    "where the model lies": (move_model, [], []),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_files_encodes_again_what_depends_on_it(bench, name):
    edit, latents, texts = EDITS[name]
    edit(bench)
    assert bench.prepare() == (latents, texts)
    assert bench.prepare() == ([], []), "once"


SETTINGS = {
    "the bucket": ({"data.buckets": {"kind": "listed", "sizes": [[32, 48]]}}, ALL, []),
    "the crop, where there is none": ({"data.crop": "random", "data.crops_per_picture": 2}, [], []),
    "flips": ({"data.flip_probability": 0.5}, FLIPPED, []),
    "the background": ({"data.background": "#000000"}, ["clear.png"], []),
    "the precision": ({"training.precision": "bf16"}, [], TEXTS),  # on a CPU the VAE computes in float32 all the same
    "a trigger word": ({"data.trigger": "zig"}, [], [f"zig, {text}" for text in TEXTS]),
    "caption dropout": ({"training.caption_dropout": 0.5}, [], []),
    "seed, steps, rank, name": ({"seed": 5, "training.steps": 3, "adapter.unet.rank": 2, "name": "other"}, [], []),
    "an encoder in training": ({"adapter.text_encoder": {"rank": 2}}, [], []),
    "a prompt": ({"preview.prompts": [{"prompt": "a new thing"}]}, [], ["a new thing"]),
    "a prompt that is a caption": ({"preview.prompts": [{"prompt": "a red thing"}]}, [], []),
    "the refiner": (
        {"refiner": {"kind": "miniature"}, "preview.prompts": [{"prompt": "a red thing"}]},
        [],
        ["", "a red thing"],
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_edit_of_the_recipe_encodes_again_what_depends_on_it(bench, name):
    settings, latents, texts = SETTINGS[name]
    trigger = settings.get("data.trigger")
    if trigger is None:
        bench.settings.update(settings)
    else:
        source = {"kind": "folder", "path": str(bench.folder / "pictures"), "trigger": trigger}
        bench.settings["data.sources"] = [source]
    assert bench.prepare() == (latents, texts)
    assert bench.prepare() == ([], []), "once"
    bench.settings.clear()
    assert bench.prepare() == ([], []), "and what was there before is there still"


def test_how_texts_are_read_encodes_again_what_is_read_otherwise(bench):
    long, weighted = ", ".join(f"a thing of number {number}" for number in range(9)), "a (green:1.3) thing"
    tokens = TextReader.load(Miniature(), Reading()).read([long])[0]
    assert len(tokens.second.ids) == 2, "it has to be longer than 75 tokens and no longer than 150"
    bench.caption("red.png", long)
    bench.caption("green.png", weighted)
    assert bench.prepare() == ([], [weighted, long])
    for settings, texts in [
        ({"training.max_caption_tokens": 150}, []),
        ({"training.max_caption_tokens": 75}, [long]),
        ({"training.weighted_captions": True}, [weighted]),
        ({"training.weighted_captions": True, "training.max_caption_tokens": 75}, []),
    ]:
        bench.settings = settings
        assert bench.prepare() == ([], texts), settings
        assert bench.prepare() == ([], []), "once"
    bench.caption("green.png", "a (green:1.4) thing")
    assert bench.prepare() == ([], ["a (green:1.4) thing"])


def test_crops_of_a_picture_that_is_larger_than_its_bucket(bench):
    """Two places each: at most two latents a picture, and those of the middle stay for who wants them."""
    bench.settings["data.buckets"] = {"kind": "listed", "sizes": [[16, 32]]}
    assert bench.prepare() == (ALL, [])
    bench.settings.update({"data.crop": "random", "data.crops_per_picture": 2})
    latents, texts = bench.prepare()
    assert texts == []
    assert set(latents) == set(ALL)
    assert len(ALL) <= len(latents) <= 2 * len(ALL)
    del bench.settings["data.crop"], bench.settings["data.crops_per_picture"]
    assert bench.prepare() == ([], [])


@pytest.mark.parametrize(
    ("constant", "latents", "texts"), [("LATENT_CODE_VERSION", ALL, []), ("TEXT_CODE_VERSION", [], TEXTS)]
)
def test_another_version_of_the_code_encodes_again_what_it_computes(bench, monkeypatch, constant, latents, texts):
    monkeypatch.setattr(f"finetune.cache.keys.{constant}", 99)
    assert bench.prepare() == (latents, texts)


@pytest.mark.parametrize(
    ("package", "latents", "texts"),
    [("pillow", ALL, []), ("diffusers", ALL, []), ("transformers", [], TEXTS), ("torch", ALL, TEXTS), ("peft", [], [])],
)
def test_another_version_of_a_library_encodes_again_what_it_computes(bench, monkeypatch, package, latents, texts):
    from finetune.cache import keys

    real = keys.version
    monkeypatch.setattr(keys, "version", lambda name: "99.0" if name == package else real(name))
    assert bench.prepare() == (latents, texts)


def test_an_edit_taken_back_finds_the_old_value(bench):
    edit_caption(bench)
    assert bench.prepare() == ([], ["a very red thing"])
    bench.caption("red.png", CAPTIONS["red.png"])
    assert bench.prepare() == ([], [])
