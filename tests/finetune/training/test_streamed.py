"""A stream is trained on as a listed set is: each picture once a repeat, in full batches, and on from any step."""

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from finetune.errors import DataError, RecipeError
from finetune.recipe import parse_recipe
from finetune.training.data import pictures_of
from finetune.training.pictures import PlannedSample
from finetune.training.streamed import StreamedPictures

NUM_PICTURES = 22


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards with pictures of three aspects, one of them damaged."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as tar:
            for index in range(shard, NUM_PICTURES, 3):
                stream = io.BytesIO()
                Image.new("RGB", [(64, 64), (100, 64), (64, 100)][index % 5 % 3], (index, 0, 0)).save(stream, "PNG")
                picture = stream.getvalue() if index != 7 else stream.getvalue()[:60]
                for name, content in ((f"{index:02d}.png", picture), (f"{index:02d}.txt", b"number %d" % index)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


MakeStream = Callable[..., StreamedPictures]


@pytest.fixture
def make_stream(shards: Path) -> MakeStream:
    """Return a function that opens the shards as a recipe does, with some settings replaced."""

    def make(warned: list[str] | None = None, **settings: object) -> StreamedPictures:
        pictures = pictures_of(parse_recipe(recipe(shards, **settings)), [].append if warned is None else warned.append)
        assert isinstance(pictures, StreamedPictures)
        return pictures

    return make


def recipe(shards: Path, **settings: object) -> str:
    """Return a recipe's text that streams the shards."""
    values = {
        "schema_version": 1,
        "name": "stream",
        "seed": 3,
        "model": {"kind": "miniature"},
        "data": {
            "sources": [{"kind": "webdataset", "path": str(shards), "streaming": True}],
            "buckets": {"kind": "generated", "resolution": 64, "step": 16, "max_aspect": 2.0},
            "flip_probability": 0.5,
            "crop": "random",
            "on_bad_image": "skip",
            "stream_buffer": {"pictures": 8},
        },
        "training": {"steps": 4, "micro_batch_size": 2, "global_batch_size": 4},
    }
    for key, value in settings.items():
        place = values
        *path, last = key.split("__")
        for part in path:
            place = place[part]  # type: ignore[assignment]
        place[last] = value
    return json.dumps(values)


def steps(pictures: StreamedPictures, first: int, last: int) -> list[tuple[tuple[PlannedSample, ...], ...]]:
    return [pictures.batches_of(step) for step in range(first, last + 1)]


def test_an_epoch_sees_each_usable_picture_once_and_tells_of_the_others(make_stream: MakeStream) -> None:
    warned: list[str] = []
    pictures = make_stream(warned)
    seen: list[tuple[int, PlannedSample]] = []
    for step in range(1, 14):
        for batch in pictures.batches_of(step):
            assert len({item.frame.target_size for item in batch}) == 1
            assert len({item.key for item in batch}) == len(batch) <= 2
            seen += [(pictures.epoch_of(step), item) for item in batch]
    for epoch in (0, 1):
        names = Counter(item.sample.name for at, item in seen if at == epoch)
        assert len(names) == NUM_PICTURES - 1
        assert set(names.values()) == {1}
    assert len([message for message in warned if "07.png" in message]) == 1 + pictures.epoch_of(13), "once an epoch"
    orders = [[item.sample.name for at, item in seen if at == epoch] for epoch in (0, 1)]
    assert orders[0] != orders[1]
    assert {item.frame.flipped for _, item in seen} == {True, False}


@pytest.mark.parametrize("step", range(10))
def test_going_on_behind_any_step_gives_what_would_have_come(make_stream: MakeStream, step: int) -> None:
    whole = make_stream()
    steps(whole, 1, step)
    place = json.loads(json.dumps(whole.place()))  # as a checkpoint keeps it
    again = make_stream()
    again.go_to(step, place)
    for following in range(step + 1, 14):
        assert again.batches_of(following) == whole.batches_of(following)
        assert again.place() == whole.place()


def test_a_stream_that_has_changed_is_told_at_a_resume(make_stream: MakeStream, shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    source = [{"kind": "webdataset", "path": str(copy), "streaming": True}]
    whole = make_stream(data__sources=source)
    steps(whole, 1, 2)
    place, lines = whole.place(), list(whole.lines())
    warned: list[str] = []
    make_stream(warned, data__sources=source).go_to(2, place)
    assert not [message for message in warned if "not what it was" in message]
    (copy / "s-0.tar").write_bytes((copy / "s-1.tar").read_bytes())
    (copy / "s-1.tar").write_bytes((copy / "s-2.tar").read_bytes())
    changed = make_stream(warned, data__sources=source)
    changed.go_to(2, place)
    assert [message for message in warned if "not what it was" in message]
    assert list(changed.lines()) != lines, "the run says so as of any other picture"


def test_what_was_seen_is_not_opened_again(make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_stream()
    steps(whole, 1, 3)
    place = whole.place()
    again = make_stream()
    opened: list[int] = []
    examine = again.opening.decoders.examine
    monkeypatch.setattr(
        type(again.opening.decoders), "examine",
        lambda _self, files, *settings: opened.append(len(files)) or examine(files, *settings),
    )  # fmt: skip
    again.go_to(3, place)
    steps(again, 4, 5)
    assert place is not None
    assert sum(opened) <= NUM_PICTURES - 12, "three steps of four pictures were over"


def test_no_more_is_held_than_the_recipe_says(make_stream: MakeStream) -> None:
    pictures = make_stream(data__stream_buffer={"pictures": 5})
    for step in range(1, 7):
        pictures.batches_of(step)
        place = pictures.place()
        assert place is not None
        assert len(place["held"]) <= 5


def test_a_picture_that_cannot_be_used_stops_where_the_recipe_says_so(make_stream: MakeStream) -> None:
    pictures = make_stream(data__on_bad_image="stop")
    with pytest.raises(DataError, match=r"07\.png.*\n.*on_bad_image=skip"):
        steps(pictures, 1, 7)


def test_a_folder_beside_a_stream_is_mixed_in_with_its_repeats(shards: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    sources = [
        {"kind": "webdataset", "path": str(shards), "streaming": True, "num_pictures": NUM_PICTURES},
        {"kind": "folder", "path": str(tmp_path), "repeats": 4, "trigger": "sks"},
    ]
    pictures = pictures_of(parse_recipe(recipe(shards, data__sources=sources)), [].append)
    seen = [item for step in range(1, 8) for batch in pictures.batches_of(step) for item in batch]
    own = [item for item in seen if item.sample.name == "a.png"]
    assert len(own) == 4
    assert {item.sample.caption for item in own} == {"sks"}
    assert len({item.key for item in own}) == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training__cache_latents": "always"}, "training.cache_latents"),
        ({"adapter": {"kind": "vae"}}, "training a VAE"),
    ],
)
def test_what_a_stream_cannot_give_is_refused(make_stream: MakeStream, settings: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_stream(**settings)


def test_a_stream_of_nothing_usable_says_so(make_stream: MakeStream, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.size = 9
        tar.addfile(info, io.BytesIO(b"no picture"))
    source = {"kind": "webdataset", "path": str(tmp_path), "streaming": True}
    pictures = make_stream(data__sources=[source])
    with pytest.raises(DataError, match="no picture that can be used"):
        pictures.batches_of(1)
