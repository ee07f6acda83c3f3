"""A `dataset_config` of kohya's trainers is taken over whole, or refused with everything that keeps it from being."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagesets.buckets import generated_buckets
from imagesets.errors import SourceError
from imagesets.masks import AlphaMask
from imagesets.reading.kohya_config import KohyaConfig, TakenOver, looks_like_config, take_over
from imagesets.reading.kohya_options import OPTIONS
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource, SourceOptions
from imagesets.wording import Wording
from tests.imagesets.reading.test_kohya import laid

SAMPLE = """\
[general]
shuffle_caption = true
caption_extension = '.txt'
keep_tokens = 1
enable_bucket = true
cache_info = true
color_aug = false
flip_aug = false
caption_dropout_rate = 0.0

# DreamBooth's way
[[datasets]]
resolution = 512
batch_size = 4
keep_tokens = 2
max_bucket_reso = 1024

  [[datasets.subsets]]
  image_dir = 'cat'
  class_tokens = 'zrkx cat'
  num_repeats = 10

  [[datasets.subsets]]
  image_dir = 'house'
  keep_tokens = 3
  caption_tag_dropout_rate = 0.25
  caption_prefix = 'photo, '

  [[datasets.subsets]]
  is_reg = true
  image_dir = 'reg'
  class_tokens = 'a cat'
  shuffle_caption = false

# the way of fine-tuning
[[datasets]]
resolution = [768, 512]
enable_bucket = false
batch_size = 2

  [[datasets.subsets]]
  image_dir = 'tuned'
  metadata_file = 'tuned_md.json'
  enable_wildcard = true
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with the pictures of the sample."""
    laid(tmp_path, {
        "cat/a.png": "", "cat/a.txt": "zrkx, cat, sleeping", "cat/b.png": "", "cat/deeper/c.png": "",
        "house/h.png": "", "house/h.txt": "house, red, old, tall",
        "reg/r.png": "",
        "tuned/t.png": "", "tuned/u.png": "", "tuned/t.txt": "not read",
        "tuned_md.json": json.dumps({"t": {"caption": "one\ntwo {red|blue}", "tags": "x", "train_resolution": [8, 8]}}),
    })  # fmt: skip
    return tmp_path


def taken(root: Path, text: str, **settings: Any) -> TakenOver:
    (root / "dataset.toml").write_text(text, encoding="utf-8")
    return take_over(KohyaConfig(root / "dataset.toml", root, **settings))


def test_a_sample_is_taken_over_whole(root: Path) -> None:
    over = taken(root, SAMPLE, options=SourceOptions(repeats=2, trigger="zrkx", loss_weight=0.5), micro_batch_size=4,
                 regularisation_weight=0.5)  # fmt: skip
    shuffled = Wording(keep_first=2, shuffle=True, variants=8)
    sizes = tuple(
        (height, width)
        for height, width in generated_buckets(512, 64, 4.0)
        if min(height, width) >= 256 and max(height, width) <= 1024
    )
    assert {(512, 512), (256, 1024), (1024, 256), (448, 576)} <= set(sizes)
    common = SourceOptions(repeats=2, trigger="zrkx", loss_weight=0.5, buckets=sizes)
    folder = {"recursive": False, "captions": "files", "caption_extension": ".txt"}
    expected: Sequence[tuple[str, FolderSource]] = [
        ("datasets[0].subsets[0]", FolderSource(root / "cat", caption_otherwise="zrkx cat", **folder,
         **vars(replace(common, repeats=20, wording=shuffled)))),
        ("datasets[0].subsets[1]", FolderSource(root / "house", **folder, **vars(replace(common, wording=replace(
            shuffled, keep_first=2, tag_dropout=0.25, prefix="photo, "))))),
        ("datasets[0].subsets[2]", FolderSource(root / "reg", caption_otherwise="a cat", **folder,
         **vars(replace(common, loss_weight=0.25, trigger="")))),
        ("datasets[1].subsets[0]", FolderSource(
            root / "tuned", recursive=False, captions="metadata", metadata_file=root / "tuned_md.json", only_named=True,
            **vars(replace(common, buckets=((512, 768),), wording=Wording(keep_first=1, shuffle=True, wildcards=True,
                                                                          choose_line=True, variants=8))))),
    ]  # fmt: skip
    assert [(subset.place, subset.source) for subset in over.subsets] == expected
    assert list(over.notes) == ["datasets[0].subsets[2].is_reg", "datasets[1].batch_size"]
    assert "training.micro_batch_size is 4, where the file has 2" in over.notes["datasets[1].batch_size"]


def test_what_is_taken_over_is_trained(root: Path) -> None:
    over = taken(root, SAMPLE, options=SourceOptions(trigger="zrkx"))
    report = scan_sources([subset.source for subset in over.subsets])
    found = [(sample.source, sample.name, sample.repeats, sample.caption) for sample in report.samples]
    assert found == [
        ("cat", "a.png", 10, "zrkx, cat, sleeping"),
        ("cat", "b.png", 10, "zrkx cat"),
        ("house", "h.png", 1, "zrkx, photo, house, red, old, tall"),
        ("reg", "r.png", 1, "a cat"),  # without the trigger
        ("tuned", "t.png", 1, "zrkx, one, x"),
    ]
    assert report.bad == ()
    assert report.samples[-1].caption_of(1, (0,)).startswith("zrkx, ")
    kept = {report.samples[2].caption_of(showing, (7,))[:25] for showing in range(8)}
    assert kept == {"zrkx, photo, house, red, "}, "the first tags beside the prefix keep their place"


def test_signs_that_part_tags_are_taken_over(root: Path) -> None:
    """The second sample of kohya's documentation, but for what the recipe sets and what has no equal."""
    (root / "cat" / "b.txt").write_text("upper body, sky;;;cloud;;;day, {simple|white} background ||| sharp")
    text = """
        [general]
        flip_aug = true
        color_aug = false
        resolution = [1024, 1024]

        [[datasets]]
        batch_size = 6
        enable_bucket = true
        bucket_no_upscale = true
        caption_extension = ".txt"
        keep_tokens_separator= "|||"
        shuffle_caption = true
        caption_tag_dropout_rate = 0.1
        secondary_separator = ";;;"
        enable_wildcard = true

          [[datasets.subsets]]
          image_dir = "cat"
          num_repeats = 1
          caption_prefix = "1girl, hatsune miku, vocaloid |||"
          caption_suffix = ", anime screencap ||| masterpiece, rating: general"
    """
    [subset] = taken(root, text, leave_out=["flip_aug", "bucket_no_upscale"], variants=None).subsets
    assert subset.source.wording == Wording(
        shuffle=True, tag_dropout=0.1, wildcards=True, choose_line=True, keep_separator="|||",
        secondary_separator=";;;", prefix="1girl, hatsune miku, vocaloid |||",
        suffix=", anime screencap ||| masterpiece, rating: general",
    )  # fmt: skip
    sample = scan_sources([subset.source]).samples[1]
    captions = {sample.caption_of(showing, (0,)) for showing in range(50)}
    assert len(captions) >= 12  # three tags in six orders with two backgrounds
    for caption in captions:
        assert caption.startswith("1girl, hatsune miku, vocaloid, ")
        assert caption.endswith(", sharp, anime screencap, masterpiece, rating: general")
        assert ("sky, cloud, day" in caption) == ("cloud" in caption)


def test_json_says_the_same(root: Path) -> None:
    content = {"general": {"enable_bucket": True}, "datasets": [{"resolution": 512, "subsets": [{"image_dir": "cat"}]}]}
    (root / "set.json").write_text(json.dumps(content))
    [subset] = take_over(KohyaConfig(root / "set.json", root)).subsets
    [same] = taken(root, "[general]\nenable_bucket = true\n[[datasets]]\nresolution = 512\n[[datasets.subsets]]\n"
                   "image_dir = 'cat'").subsets  # fmt: skip
    assert subset == same
    assert (root / "cat" / "b.caption").write_text("from .caption")
    listed = scan_sources([subset.source]).samples
    assert [sample.caption for sample in listed] == ["zrkx, cat, sleeping", "from .caption"], "both endings are read"


def test_the_recipes_wording_sizes_and_mask_take_the_place_of_the_files(root: Path) -> None:
    options = SourceOptions(wording=Wording(suffix="!"), buckets=((64, 64),), mask=AlphaMask(0.5))
    text = SAMPLE.replace("keep_tokens = 3", "alpha_mask = true")
    for subset in taken(root, text, options=options).subsets:
        assert (subset.source.wording, subset.source.buckets, subset.source.mask) == (
            Wording(suffix="!"), ((64, 64),), AlphaMask(0.5))  # fmt: skip
    assert taken(root, text).subsets[1].source.mask == AlphaMask()


SUBSET = "[[datasets]]\nresolution = 1024\nenable_bucket = true\n[[datasets.subsets]]\nimage_dir = 'cat'\n"


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        (SUBSET + "flip_aug = true", ".flip_aug", "true is a matter of the whole recipe here: set "
         "data.flip_probability: 0.5, and leave it out"),
        (SUBSET + "random_crop = true", ".random_crop", "set data.crop: random"),
        ("[general]\ncaption_dropout_rate = 0.1\n" + SUBSET, "general.caption_dropout_rate", "0.1 is a matter of the "
         "whole recipe here: set training.caption_dropout: 0.1"),
        (SUBSET + "color_aug = true", ".color_aug", "true has no equal here: colours are trained "
         "as they are. Leave it out to go without"),
        (SUBSET + "face_crop_aug_range = [2.0, 4.0]", ".face_crop_aug_range", "has no equal here"),
        (SUBSET + "enable_wildcard = true\ncaption_suffix = '{a|b}'", ".caption_suffix", "holds a wildcard: they are"),
        (SUBSET + "caption_dropout_every_n_epochs = 2", ".caption_dropout_every_n_epochs",
         "has no equal here: captions are dropped by chance"),
        ("[general]\nbucket_no_upscale = true\n" + SUBSET, "general.bucket_no_upscale", "has no equal here: small"),
        (SUBSET + "conditioning_data_dir = 'masks'", ".conditioning_data_dir", "mask: {kind: fi"),
        (SUBSET + "num_repeats = 0", ".num_repeats", "got 0, needs a whole number from 1 to"),
        (SUBSET + "num_repeats = 10000000", ".num_repeats", "got 10000000, needs a whole number from 1 to 1000000"),
        (SUBSET.replace("= 1024", "= 1000000"), "datasets[0].resolution", "a whole number from 1 to 16384, or two"),
        (SUBSET.replace("= 1024", "= 1024\nbucket_reso_steps = 1"), "datasets[0].bucket_reso_steps", "a multiple of 8"),
        (SUBSET + "num_repeats = true", ".num_repeats", "got True, needs a whole number"),
        (SUBSET + "shuffle_caption = 'yes'", ".shuffle_caption", "got 'yes', needs true or false"),
        (SUBSET + "caption_tag_dropout_rate = 2", ".caption_tag_dropout_rate", "from 0 to 1"),
        (SUBSET + "caption_extension = 'txt'", ".caption_extension", "begins with a dot, as .txt"),
        (SUBSET + "num_repeat = 2", ".num_repeat", "is no option that is known. Did you mean "
         "'num_repeats'?"),
        (SUBSET + "sample_ratio = 2", ".sample_ratio", "is no option that is known. Leave it out"),
        (SUBSET + "resolution = 512", ".resolution", "does not stand here, but in [general] or "
         "[[datasets]]"),
        ("[general]\nimage_dir = 'cat'\n" + SUBSET, "general.image_dir", "does not stand here, but in [[data"),
        (SUBSET.replace("'cat'", "'dog'"), ".image_dir", "there is no folder ROOT/dog (relative "
         "paths begin in ROOT: set base)"),
        (SUBSET.replace("'cat'", r"'C:\dog'"), ".image_dir", "there is no folder"),
        (SUBSET.replace("image_dir = 'cat'", "num_repeats = 2"), ".image_dir", "is missing"),
        (SUBSET + "metadata_file = 'no.json'", ".metadata_file", "there is no file ROOT/no.json"),
        (SUBSET + "metadata_file = 'tuned_md.json'\nis_reg = true", ".is_reg", "does not belong"),
        (SUBSET + "[[datasets.subsets]]\nimage_dir = 'tuned'\nmetadata_file = 'tuned_md.json'", "datasets[0].subsets",
         "some have a metadata_file and some have none: part them into two datasets"),
        (SUBSET + "[[datasets.subsets]]\nimage_dir = 'cat'", "datasets[0].subsets[1]", "has the pictures of datasets"
         "[0].subsets[0] again: remove one"),
        (SUBSET.replace("= 1024", "= 1024\nmax_bucket_reso = 1024"), "datasets[0].max_bucket_reso", "1024 leaves no "
         "size but 1024 x 1024: sizes keep to the area of the resolution here and are not shrunk. Raise it to 2048"),
        (SUBSET.replace("= 1024", "= 1024\nmax_bucket_reso = 512"), "datasets[0].max_bucket_reso", "is below the reso"),
        (SUBSET.replace("= 1024", "= 128"), ".min_bucket_reso", "is above the resolution, 128"),
        (SUBSET.replace("= 1024", "= '1024,1024'"), "datasets[0].resolution", "got '1024,1024', needs a whole"),
        (SUBSET + 'caption_prefix = "a\\nb"', ".caption_prefix", "needs text on one line"),
        ("[general]\nseed = 1\n" + SUBSET, "general.seed", "is no option that is known"),
        ("train_data_dir = 'img'\n" + SUBSET, "train_data_dir", "is an option of the trainer's command line and not of "
         "a dataset_config: give the folder that it names with kind: kohya"),
        ("extra = 1\n" + SUBSET, "extra", "does not stand here: a dataset_config holds [general] and [[datasets]]"),
        ("[general]\nkeep_tokens = 1", "datasets", "needs at least one: [[datasets]]"),
        ("[[datasets]]\nresolution = 512", "datasets[0].subsets", "needs at least one: [[datasets.subsets]]"),
        ("datasets = [3]", "datasets[0]", "got 3, needs a table of options"),
        ("general = 3\n" + SUBSET, "general", "got 3, needs a table of options"),
    ],
    ids=lambda value: str(value)[-40:],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_told_by_its_place(text: str, place: str, reason: str, root: Path) -> None:
    with pytest.raises(SourceError) as caught:
        taken(root, text)
    first, *lines = str(caught.value).split("\n")
    assert first == f"the dataset configuration {root / 'dataset.toml'} cannot be taken over as it is:"
    told = [line for line in lines if line.startswith("  ")]
    assert len(told) == 1
    full = f"datasets[0].subsets[0]{place}" if place.startswith(".") else place
    assert told[0].startswith(f"  {full}: ")
    assert reason.replace("ROOT", str(root)) in told[0]


def test_all_is_told_at_once_and_what_may_be_left_out_is_named(root: Path) -> None:
    text = "[general]\nflip_aug = true\ncolor_aug = true\nodd = 3\n" + SUBSET.replace("cat", "dog") + "num_repeats = 0"
    with pytest.raises(SourceError) as caught:
        taken(root, text)
    lines = str(caught.value).split("\n")[1:]
    assert [line.split(":")[0].strip() for line in lines[:-1]] == [
        "general.odd", "datasets[0].subsets[0].num_repeats", "general.flip_aug", "general.color_aug",
        "datasets[0].subsets[0].image_dir",
    ]  # fmt: skip
    assert lines[-1].endswith("leave_out: [odd, flip_aug, color_aug]")
    mended = text.replace("dog", "cat").replace("num_repeats = 0", "")
    assert len(taken(root, mended, leave_out=["odd", "flip_aug", "color_aug"]).subsets) == 1
    with pytest.raises(SourceError, match=r"leave_out: flip_agu: does not stand in the file: take it out of leave_out"):
        taken(root, SUBSET, leave_out=["flip_agu"])
    with pytest.raises(SourceError, match=r"leave_out: image_dir: cannot be left out"):
        taken(root, SUBSET, leave_out=["image_dir"])


def test_sizes_that_the_file_leaves_to_the_recipe_are_noted(root: Path) -> None:
    over = taken(root, SUBSET.replace("resolution = 1024", ""))
    assert over.subsets[0].source.buckets is None
    assert list(over.notes) == ["datasets[0].subsets[0].resolution"]


def test_what_is_switched_off_below_is_no_problem(root: Path) -> None:
    text = "[general]\nflip_aug = true\nbucket_no_upscale = true\n" + SUBSET + "flip_aug = false"
    assert len(taken(root, text.replace("enable_bucket = true", "")).subsets) == 1
    off = "color_aug = false\nnetwork_multiplier = 1.0\nresize_interpolation = 'lanczos'\ntoken_warmup_step = 0\n"
    assert len(taken(root, f"[general]\n{off}{SUBSET}").subsets) == 1


@pytest.mark.parametrize(
    ("prefix", "keep", "kept", "noted"),
    [("", 2, 2, False), ("masterpiece, best, ", 3, 1, False), ("masterpiece, best, ", 2, 0, False),
     ("masterpiece, best, ", 1, 0, True), ("a photo of", 1, 1, False)],
)  # fmt: skip
def test_kept_tags_are_counted_with_those_of_the_prefix(
    prefix: str, keep: int, kept: int, noted: bool, root: Path
) -> None:
    over = taken(root, f"{SUBSET}shuffle_caption = true\nkeep_tokens = {keep}\ncaption_prefix = '{prefix}'")
    wording = over.subsets[0].source.wording
    assert wording is not None
    assert (wording.keep_first, wording.prefix) == (kept, prefix)
    assert ("datasets[0].subsets[0].caption_prefix" in over.notes) == noted


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.toml", b"[general", "is not TOML: "),
        ("a.toml", b'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "C:\\pictures"', "path of Windows in 'single"),
        ("a.toml", b'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "C:\\Users"', "path of Windows in 'single"),
        ("a.toml", b"a = '\xe9'", "is not UTF-8 (byte 5): save it as UTF-8"),
        ("a.json", b"{", "is not JSON: "),
        ("a.json", b"[" * 100_000, "is not JSON: "),
        ("a.json", b"[]", "holds list, not [general] and [[datasets]]"),
        ("a.yaml", b"", "ends in '.yaml': such files end in .toml or .json"),
        ("b.toml", None, ": it cannot be read: No such file"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(name: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        take_over(KohyaConfig(tmp_path / name, tmp_path))
    assert str(caught.value).startswith(f"the dataset configuration {tmp_path / name}")
    assert reason in str(caught.value)


def test_folders_of_one_name_are_told_apart(root: Path) -> None:
    laid(root, {"more/cat/a.png": "", "more/cat/a.txt": "x"})
    more = "[[datasets.subsets]]\nimage_dir = 'more/cat'\n[[datasets.subsets]]\nimage_dir = 'house'\n"
    labels = [subset.source.label for subset in taken(root, SUBSET + more).subsets]
    assert labels == ["cat (datasets[0].subsets[0])", "cat (datasets[0].subsets[1])", "house"]


NUMBERS = st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False)
VALUES = st.none() | NUMBERS | st.text(max_size=3) | st.lists(st.integers(0, 3), max_size=3)
LEVELS = st.dictionaries(st.sampled_from([*OPTIONS, "subsets", "odd"]), VALUES, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LEVELS | VALUES, st.lists(LEVELS | VALUES, max_size=2), st.lists(LEVELS | VALUES, max_size=3))
def test_no_content_makes_it_stumble(root: Path, general: Any, datasets: list[Any], subsets: list[Any]) -> None:
    for dataset in datasets:
        if isinstance(dataset, dict):
            dataset["subsets"] = [{"image_dir": "cat"}, *subsets]
    (root / "set.json").write_text(json.dumps({"general": general, "datasets": datasets}))
    with suppress(SourceError):
        assert take_over(KohyaConfig(root / "set.json", root)).subsets


def test_it_is_known_at_a_glance(root: Path) -> None:
    (root / "a.toml").write_text("")
    (root / "a.json").write_text('{"datasets": []}')
    assert looks_like_config(root / "a.toml")
    assert looks_like_config(root / "a.json")
    assert not looks_like_config(root / "tuned_md.json")
    assert not looks_like_config(root / "none.toml")
    assert not looks_like_config(root)
