"""`atelier data inspect`: recipes and bare folders, the trainer's own numbers, text, JSON, page, exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.cli.data_inspect import source_meant
from finetune.cli.main import main
from finetune.errors import DataError, RecipeError
from finetune.recipe import load_recipe
from finetune.training.data import plan_pictures, scan_pictures
from imagesets.plan import epoch_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of seven captioned pictures in four aspects."""
    root = tmp_path / "pictures"
    root.mkdir()
    noise = np.random.default_rng(0)
    for index, size in enumerate([(64, 64)] * 3 + [(80, 48)] * 2 + [(48, 80), (70, 60)]):
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{index}.png")
        (root / f"{index}.txt").write_text(f"pattern {index}", encoding="utf-8")
    return root


def inspected(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict]:
    code = main(["data", "inspect", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("settings", [
    ["training.micro_batch_size=2", "training.global_batch_size=4", "data.sources.0.repeats=3"],
    ["training.micro_batch_size=3", "training.global_batch_size=3"],
    ["data.buckets={kind: listed, sizes: [[64, 64], [48, 80]]}", "training.micro_batch_size=1",
     "training.global_batch_size=8"],
])  # fmt: skip
def test_its_numbers_are_those_of_the_trainers_plan(
    settings: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.sources.0.path={folder}", *settings]
    code, data = inspected(capsys, "quickstart", *words)
    recipe = load_recipe("quickstart", words)
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    assert code == 0
    assert [tuple(each["bucket"]) for each in data["pictures"]] == [pictures.bucket_of(index) for index in range(7)]
    frames = [frame for _, frame in pictures.frames()]
    assert [(tuple(each["resized_size"]), tuple(each["crop_top_left"])) for each in data["pictures"]] == [
        (frame.resized_size, frame.crop_top_left) for frame in frames
    ]
    assert [each["scale"] for each in data["pictures"]] == [round(frame.scale, 4) for frame in frames]
    micro, per_step = recipe.training.micro_batch_size, recipe.training.global_batch_size
    batches = epoch_plan(
        [frame.target_size for frame in frames], [each["repeats"] for each in data["pictures"]], micro, 0, 0
    )
    assert sum(bucket["batches_per_epoch"] for bucket in data["buckets"]) == len(batches)
    assert data["summary"]["steps_per_epoch"] == -(-len(batches) // (per_step // micro))
    assert data["summary"]["steps_per_epoch"] == pictures.steps_per_epoch
    shown = {planned.sample.name for step in range(1, pictures.steps_per_epoch + 1)
             for batch in pictures.batches_of(step) for planned in batch}  # fmt: skip
    assert shown == {each["name"] for each in data["pictures"]}


def test_a_folder_is_seen_as_the_shipped_recipes_would_train_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, data = inspected(capsys, str(folder), "data.sources.0.trigger=zrkx")
    assert code == 0
    recipe = load_recipe("style", [f"data.sources.0.path={folder}"])
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    assert [tuple(each["bucket"]) for each in data["pictures"]] == [pictures.bucket_of(index) for index in range(7)]
    assert data["name"] == "pictures"
    assert data["summary"]["steps"] is None
    assert "not downloaded" in data["captions"]["token_source"]
    assert {each["caption"][:6] for each in data["pictures"]} == {"zrkx, "}
    assert "blown_up" in [finding["kind"] for finding in data["findings"]]
    assert all(set(each["tokens"]) == {"tokenizer", "tokenizer_2"} for each in data["pictures"])


def test_an_error_makes_exit_code_3_and_check_says_the_same_in_short(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["quickstart", f"data.sources.0.path={folder}"]
    assert main(["data", "inspect", *recipe]) == 0
    assert main(["check", *recipe]) == 0
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "extra.txt").write_text("nobody's")
    capsys.readouterr()
    assert main(["data", "inspect", *recipe]) == 3
    full = capsys.readouterr().out
    assert main(["check", *recipe]) == 3
    short = capsys.readouterr().out
    assert "torn.png" in full
    assert "torn.png" in short
    assert "1 caption file belongs to no picture" in " ".join(full.split())
    assert "1 caption file belongs to no picture (extra.txt)" in short
    assert main(["data", "inspect", *recipe, "data.on_bad_image=skip"]) == 0
    assert main(["check", *recipe, "data.on_bad_image=skip"]) == 0


def test_check_keeps_its_keys_and_takes_its_warnings_from_the_findings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0.txt").unlink()
    (folder / "0.caption").write_text("forgotten")
    words = ["quickstart", f"data.sources.0.path={folder}", "training.steps=1", "training.micro_batch_size=1"]
    assert main(["check", *words, "training.global_batch_size=2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"recipe", "pictures", "bad_pictures", "notes", "ignored_files", "warnings", "steps", "steps_per_epoch",
            "epochs", "buckets"} <= data.keys()  # fmt: skip
    assert any("trained without the caption that lies beside it" in warning for warning in data["warnings"])
    assert any("some pictures are never seen" in warning for warning in data["warnings"])


def test_a_page_takes_no_other_files_place(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = next(folder.glob("*.png"))
    before = picture.read_bytes()
    for place, said in (
        (picture, "is no page of an inspection"),
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "a.html", "does not exist"),
    ):
        assert main(["data", "inspect", "quickstart", f"data.sources.0.path={folder}", "--html", str(place)]) == 2
        assert said in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_the_page_is_written_whole_and_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["data", "inspect", "quickstart", f"data.sources.0.path={folder}", "--html", str(page)]) == 0
    assert f"page: {page}" in capsys.readouterr().out
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    assert text.count('"thumbnail": "') + text.count('"thumbnail":"') == 7
    code = main(["data", "inspect", "quickstart", f"data.sources.0.path={folder}", "--html", str(page), "--json"])
    printed = capsys.readouterr()
    assert code == 0
    assert json.loads(printed.out)["summary"]["pictures"] == 7
    assert str(page) in printed.err


def test_thumbnails_are_written_where_the_json_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (1200, 400), "#0000ff").save(folder / "7.png")
    small = tmp_path / "small"
    _, data = inspected(capsys, str(folder), "--thumbnails", str(small))
    written = [each["thumbnail"] for each in data["pictures"]]
    assert sorted(written) == sorted(path.name for path in small.iterdir())
    assert len(set(written)) == 8
    assert [each["name"] for each in data["pictures"]] == [f"{index}.png" for index in range(8)]
    for each in data["pictures"]:
        with Image.open(small / each["thumbnail"], formats=["WEBP"]) as thumbnail:
            height, width = each["original_size"]
            assert thumbnail.width == min(width, 320)
            assert abs(thumbnail.height - height * thumbnail.width / width) <= 1
    with Image.open(small / data["pictures"][7]["thumbnail"]) as thumbnail:
        red, green, blue = thumbnail.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert blue > 240
        assert max(red, green) < 15
    _, without = inspected(capsys, str(folder))
    assert {each["thumbnail"] for each in without["pictures"]} == {None}


def test_thumbnails_go_among_no_other_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link", tmp_path / "missing" / "small"):
        assert main(["data", "inspect", str(folder), "--thumbnails", str(place)]) == 2
        assert "--thumbnails" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_no_line_is_wider_than_a_narrow_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (folder / f"{'[bold]long name ' * 9}.png").write_bytes((folder / "0.png").read_bytes())
    (folder / f"{'[bold]long name ' * 9}.txt").write_text("word " * 90)
    assert main(["data", "inspect", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("\n"))) <= 80
    assert "[bold]long" in printed


def test_what_a_word_means(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("schema_version: 1")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    assert source_meant("sample:quickstart") == {"kind": "folder", "path": "sample:quickstart"}
    assert source_meant(str(folder)) == {"kind": "folder", "path": str(folder)}
    assert source_meant("rows.parquet") == {"kind": "huggingface", "name": "rows.parquet"}
    assert source_meant("quickstart") is None
    assert source_meant("run") is None
    assert source_meant("nothing.yaml") is None
    for name in ("tars/a-0.tar", "rows/data/train-0.parquet", "both/a.png", "both/old.tar", "named/metadata.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    assert source_meant("tars") == {"kind": "webdataset", "path": "tars"}
    assert source_meant("tars/a-0.tar") == {"kind": "webdataset", "path": "tars/a-0.tar"}
    assert source_meant("rows") == {"kind": "huggingface", "name": "rows"}
    assert source_meant("both") == {"kind": "folder", "path": "both"}
    assert source_meant("named") == {"kind": "folder", "path": "named"}
    with pytest.raises(RecipeError, match=r"is a picture\. Give the folder that it lies in: both"):
        source_meant("both/a.png")
    (tmp_path / "program").write_bytes(b"ELF\0\1")
    with pytest.raises(RecipeError, match="neither a recipe nor a source of pictures"):
        source_meant("program")
    capsys.readouterr()
    assert main(["check", "quickstart", "data.sources.0.path=tars"]) == DataError.exit_code
    told = capsys.readouterr().err
    assert "tar shards" in told
    assert f"{{kind: webdataset, path: {tmp_path / 'tars'}}}" in told
    assert "Name the pictures" not in told
    assert main(["data", "inspect", "no-such-thing"]) == RecipeError.exit_code
    assert main(["data", "inspect", str(folder), "data.crops=random"]) == RecipeError.exit_code


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["5_cat/a.png"], "kohya"),
        (["img/5_cat/a.png"], "kohya"),  # whose message says to give img
        (["5_cat/a.png", "b.png"], "folder"),
        (["2026_beach/a.png"], "folder"),
        (["1/a.png", "2/a.png"], "folder"),
        (["5_cat/a.txt", "b/a.png"], "folder"),
    ],
    ids=str,
)
def test_kohyas_folders_are_known_by_their_layout(files: list[str], kind: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert source_meant(str(tmp_path)) == {"kind": kind, "path": str(tmp_path)}


def test_kohyas_folders_are_inspected_with_their_repeats(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.rename(tmp_path / "5_pattern")
    (tmp_path / "5_pattern" / "6.txt").unlink()
    code, data = inspected(capsys, str(tmp_path))
    assert (code, data["name"]) == (0, tmp_path.name)
    assert [(each["name"], each["repeats"], each["caption"]) for each in data["pictures"]] == [
        *((f"5_pattern/{index}.png", 5, f"pattern {index}") for index in range(6)),
        ("5_pattern/6.png", 5, "pattern"),
    ]
    assert data["summary"]["showings_per_epoch"] == 35


def test_a_dataset_config_is_inspected_by_itself_and_in_a_recipe(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advice names the place in the file, and what another tool would have done otherwise is told."""
    (folder / "0.txt").rename(folder / "0.caption")
    file = tmp_path / "set.toml"
    file.write_text(
        "[general]\nbatch_size = 3\ncaption_extension = '.txt'\n[[datasets]]\nresolution = 64\n"
        "[[datasets.subsets]]\nimage_dir = 'pictures'\nnum_repeats = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    assert source_meant("set.toml") == {"kind": "kohya_config", "path": "set.toml"}
    code, data = inspected(capsys, "set.toml", "data.sources.0.repeats=2")
    assert (code, data["name"]) == (3, "set.toml")
    assert {tuple(each["bucket"]) for each in data["pictures"]} == {(64, 64)}
    assert {each["repeats"] for each in data["pictures"]} == {10}
    findings = {finding["kind"]: finding for finding in data["findings"]}
    assert (
        "caption_extension = '.caption' in datasets[0].subsets[0] of set.toml" in findings["unread_caption"]["advice"]
    )
    assert [item["name"] for item in findings["setting"]["items"]] == ["general.batch_size"]

    monkeypatch.chdir(tmp_path.parent)
    source = f"data.sources.0={{kind: kohya_config, path: {file}, base: {tmp_path}}}"
    recipe = load_recipe("quickstart", [source])
    assert len(scan_pictures(recipe).samples) == 7
    assert main(["check", "quickstart", source]) == 0
    assert "1 setting of a file of sources is another way here" in capsys.readouterr().out
    assert main(["check", "quickstart", source.replace(f", base: {tmp_path}", "")]) == DataError.exit_code
    said = capsys.readouterr().err
    assert "data.sources.0: the dataset configuration" in said
    assert "datasets[0].subsets[0].image_dir: there is no folder" in said


def test_an_error_names_its_source_and_advises_a_folder_only_where_one_is_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()

    def said(*words: str) -> str:
        assert main([*words]) == 3
        return capsys.readouterr().err

    first, second = f"{{kind: folder, path: {folder}}}", "{kind: folder, path: empty}"
    several = f"data.sources=[{first}, {second.replace('empty', str(tmp_path / 'empty'))}]"
    told = said("check", "quickstart", several)
    assert f"data.sources.1: the folder of pictures {tmp_path / 'empty'} holds no JPEG" in told
    assert "Name the pictures with: data.sources.1.path=FOLDER" in told

    bare = said("data", "inspect", str(tmp_path / "empty"))
    assert "holds no JPEG" in bare
    assert "data.sources" not in bare

    masks = f"data.sources=[{{kind: folder, path: {folder}, mask: {{kind: files, folder: {tmp_path / 'nomask'}}}}}]"
    told = said("check", "quickstart", masks)
    assert f"data.sources.0: the folder of masks {tmp_path / 'nomask'} does not exist" in told
    assert "Name the pictures" not in told

    (folder / "metadata.csv").write_text("file_name,text\n0.png,a\n")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n')
    told = said("check", "quickstart", several)
    assert "data.sources.0: " in told
    assert "of which one can be read" in told
    assert "Name the pictures" not in told

    nowhere = said("check", "quickstart", f"data.sources=[{{kind: huggingface, name: {tmp_path / 'none'}}}]")
    assert "does not exist" in nowhere
    assert "Name the pictures" not in nowhere


def test_of_several_sources_each_name_says_whose_it_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("0.png", "1.png"):
        (other / name).write_bytes((folder / name).read_bytes())
    (other / "1.caption").write_text("a caption that is not read")
    (other / "stray.md").write_text("")
    (other / "torn.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:60])
    one = [f"data.sources=[{{kind: folder, path: {other}}}]"]
    two = [f"data.sources=[{{kind: folder, path: {folder}}}, {{kind: folder, path: {other}}}]"]

    main(["check", "quickstart", *two])
    told = capsys.readouterr().out
    assert "cannot use pictures: torn.png: " in told
    assert "cannot use other: torn.png: " in told
    assert "picture has no caption and is trained without words (other: 0.png)" in told
    main(["check", "quickstart", *one])
    assert "other: " not in capsys.readouterr().out

    main(["data", "inspect", "quickstart", *two, "--html", str(tmp_path / "page.html")])
    told = capsys.readouterr().out
    page = (tmp_path / "page.html").read_text("utf-8")
    for shown in ("other: torn.png", "other: stray.md", "pictures: torn.png"):
        assert shown in told
        assert f">{shown}<" in page
    _, data = inspected(capsys, "quickstart", *two)
    found = {each["kind"]: each for each in data["findings"]}
    assert [(item["source"], item["name"]) for item in found["passed_over"]["items"]] == [("other", "stray.md")]
    # The same name in another source is another picture, which has a caption.
    assert [(item["source"], item["name"]) for item in found["unread_caption"]["items"]] == [("other", "1.png")]
    assert "other_caption" not in found
    assert "data.sources.1.trigger=…" in found["missing_caption"]["advice"]
    assert "data.sources.0.trigger" not in found["missing_caption"]["advice"]
