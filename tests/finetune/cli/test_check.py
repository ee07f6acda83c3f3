"""`atelier check` passes nothing that `atelier train` stops at before its first step, and says what is found."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.cli.main import main
from finetune.errors import AtelierError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of three captioned pictures, in a current directory of its own."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "pictures"
    root.mkdir()
    noise = np.random.default_rng(0)
    for index, size in enumerate([(64, 64), (64, 64), (80, 48)]):
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{index}.png")
        (root / f"{index}.txt").write_text(f"pattern {index}", encoding="utf-8")
    return root


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict]:
    capsys.readouterr()
    code = main(["check", "quickstart", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


STOPS: list[tuple[list[str], int, str]] = [
    (["data.buckets={kind: generated, resolution: 63, step: 7}"], 3, "multiples of 16"),
    (["data.sources.0.wording={shuffle: true, variants: null}", "adapter.text_encoder=null",
      "adapter.text_encoder_2=null"], 2, "wording.variants: got null"),
    (["training.cache_latents=always", "data.crop=random"], 2, "training.cache_latents: got 'always'"),
    (["model={kind: folder, path: nowhere}"], 2, "nowhere does not exist"),
    (["refiner={kind: folder, path: nowhere}"], 2, "refiner: "),
    (["preview.prompts=[{prompt: a, size: [40, 40]}]"], 2, "this model draws multiples of 16"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "said"), STOPS)
def test_what_train_stops_at_check_names_with_the_same_code(
    words: list[str], code: int, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.sources.0.path={folder}", *words]
    found, data = checked(capsys, *words)
    assert (found, len(data["stops"])) == (code, 1)
    assert said in data["stops"][0]
    assert main(["check", "quickstart", *words]) == code
    assert said in capsys.readouterr().out
    assert main(["train", "quickstart", *words]) == code
    assert data["stops"][0] in capsys.readouterr().err
    assert not Path("runs").exists(), "nothing was begun"


def test_a_stream_that_cannot_be_trained_on_is_told_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tarfile

    with tarfile.open(folder / "set.tar", "w") as shard:
        for path in sorted(folder.glob("[0-2].*")):
            shard.add(path, path.name)
    words = [f"data.sources=[{{kind: webdataset, path: {folder / 'set.tar'}, streaming: true}}]"]
    assert checked(capsys, *words)[0] == 0
    # Every bucket may come to be used, also those that the pictures at the beginning do not take.
    words += ["training.cache_latents=always", "data.buckets={kind: listed, sizes: [[64, 64], [2048, 8]]}"]
    code, data = checked(capsys, *words)
    assert code == 2
    assert [stop.partition(":")[0] for stop in data["stops"]] == [
        "training.cache_latents",
        "bucket 2048 x 8 (height x width)",
    ]


def test_json_holds_every_finding_that_the_text_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        (folder / f"{index}.txt").rename(folder / f"{index}.caption")
    words = [f"data.sources.0.path={folder}", "training.steps=1"]
    code, data = checked(capsys, *words)
    assert code == 0, "a run can start"
    kinds = {finding["kind"]: finding["severity"] for finding in data["findings"]}
    assert kinds.items() >= {("unread_caption", "error"), ("steps_below_epoch", "warning"), ("bucket_of_one", "note")}
    main(["check", "quickstart", *words])
    text = capsys.readouterr().out
    for finding in data["findings"]:
        assert finding["text"] in text
        assert finding["advice"] in text


def test_train_warns_of_an_error_that_a_run_can_start_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from finetune.recipe import load_recipe
    from finetune.training.data import pictures_of

    (folder / "0.txt").rename(folder / "0.caption")
    warned: list[str] = []
    pictures_of(load_recipe("quickstart", [f"data.sources.0.path={folder}"]), warned.append)
    assert [line.partition(":")[0] for line in warned] == [
        "1 picture is trained without the caption that lies beside it"
    ]


@pytest.mark.parametrize(("limit", "words", "cut"), [(75, 74, 0), (75, 80, 1), (225, 226, 1), (225, 150, 0)])
def test_captions_that_are_cut_off_are_found(
    limit: int, words: int, cut: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "1.txt").write_text(" ".join(["star"] * words), encoding="utf-8")
    code, data = checked(capsys, f"data.sources.0.path={folder}", f"training.max_caption_tokens={limit}")
    assert code == 0
    long = [finding for finding in data["findings"] if finding["kind"] == "long_caption"]
    assert [item["name"] for finding in long for item in finding["items"]] == ["1.png"] * cut


def test_no_caption_that_is_too_short_to_be_counted_is_cut_off(folder: Path) -> None:
    """The worst that chunks can lose: words of 38 tokens, of which no two fit into one."""
    from finetune.cli.check import count_long
    from finetune.model.text_tokens import reading_of
    from finetune.model.token_counts import open_token_counter
    from finetune.recipe import load_recipe

    for limit in (75, 150, 225):
        recipe = load_recipe("quickstart", [f"training.max_caption_tokens={limit}"])
        count = open_token_counter(recipe.model, reading_of(recipe.training))
        captions = [
            " ".join(["☃" * size] * (1 + length // size)) for size in (1, 2, 13, 20, 26) for length in range(120)
        ]
        for caption, guessed, counted in zip(captions, count_long(recipe, captions), count(captions), strict=True):
            assert guessed == counted or not any(each.beyond for each in counted), caption


def test_after_a_dry_run_the_models_files_have_been_looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quickstart", f"data.sources.0.path={folder}"]
    assert main(["check", *words]) == 0
    assert "atelier train quickstart --dry-run" in capsys.readouterr().out
    assert main(["train", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "The model's files were looked at" in said
    assert "--dry-run" not in said


def test_stops_are_errors_of_the_family() -> None:
    from finetune.recipe import load_recipe
    from finetune.training.stops import find_stops

    stops = find_stops(load_recipe("quickstart", ["model={kind: folder, path: nowhere}"]), None)
    assert stops
    assert all(isinstance(stop, AtelierError) for stop in stops)


def test_an_encoder_the_model_does_not_have_is_told_before_it_is_opened() -> None:
    from finetune.model.geometry import MINIATURE_FOLDER
    from finetune.recipe import load_recipe
    from finetune.training.stops import find_stops

    refiner = f"model={{kind: folder, path: {MINIATURE_FOLDER / 'refiner'}}}"
    trained = ["adapter.text_encoder={}", "adapter.text_encoder_2=null", "preview.prompts=[]", "refiner=null"]
    [stop] = find_stops(load_recipe("quickstart", [refiner, *trained]), None)
    assert str(stop).startswith("adapter.text_encoder: this model has no such encoder")
    assert find_stops(load_recipe("quickstart", [refiner, *trained, "adapter.text_encoder=null"]), None) == []
    [stop] = find_stops(load_recipe("quickstart", [refiner, "adapter.text_encoder=null"]), None)
    assert str(stop).startswith("preview.prompts: the model is a refiner")


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_what_is_said_of_a_model_is_what_opening_it_finds(kind: str) -> None:
    from finetune.model.files import DiffusersFolder
    from finetune.model.geometry import MINIATURE_FOLDER, look_at_model
    from finetune.recipe.schema import FolderModel

    opened = DiffusersFolder(MINIATURE_FOLDER / kind)
    known = look_at_model(FolderModel(kind="folder", path=str(opened.root)))
    assert known is not None
    assert known.geometry == opened.geometry()
    assert known.has_first_encoder == opened.has_first_encoder() == (kind == "base")
