"""What the miniature is measured with is right on what is known, and the shipped weights reach every bar."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy", reason='needs pip install "atelier[miniature]"')
pytest.importorskip("matplotlib", reason='needs pip install "atelier[miniature]"')

from finetune.cli.main import main
from finetune.errors import AtelierError, RecipeError
from finetune.miniature.effects.asking import draw_asks
from finetune.miniature.effects.card import write_card
from finetune.miniature.effects.check import FAMILIES, Effects, measure_effects
from finetune.miniature.effects.conditions import buckets, expected_centre
from finetune.miniature.effects.contents import is_read_whole
from finetune.miniature.effects.drawing import Batch, draw_batch
from finetune.miniature.effects.held_out import HeldOut, held_out_errors
from finetune.miniature.effects.intervals import (
    mean_interval,
    paired_interval,
    ratio_interval,
    slope_interval,
    wilson,
)
from finetune.miniature.effects.measures import (
    has_both_colours,
    has_relation,
    hits,
    outline_darkness,
    read_all,
    sharpness,
)
from finetune.miniature.effects.report import BEGIN, END, write_report
from finetune.miniature.effects.rows import Findings, Grid, Pixels, Plot, Row, Series, difference_row, rate_row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.stages import STAGES
from finetune.miniature.start import SHIPPED, save_part
from finetune.run.events import EventLog
from imagesets.framing import make_frame
from imagesets.world.oracle import read_stripes
from imagesets.world.photos import draw_photo
from imagesets.world.render import render_scene
from imagesets.world.scenes import Scene, Thing

SAMPLES = Path(__file__).parents[3] / "datasets" / "samples" / "quickstart"


def squared(image: Image.Image, side: int = 64) -> Pixels:
    frame = make_frame((image.height, image.width), (side, side), "center")
    return np.asarray(image.resize(frame.resized_size[::-1], Image.Resampling.LANCZOS).crop(frame.crop_box))


def photo_of(scene: Scene, side: int) -> Pixels:
    return squared(Image.fromarray(render_scene(scene, (side, side))))


# The oracle


def test_the_oracle_reads_all_of_300_true_pictures() -> None:
    asks = [*draw_asks(5, 150), *draw_asks(5, 150, num_things=2)]
    readings = read_all([render_scene(ask.scene, (64, 64)) for ask in asks])
    assert [ask.prompt for ask, reading in zip(asks, readings, strict=True) if not is_read_whole(reading, ask)] == []


def test_a_wrong_answer_is_a_miss() -> None:
    [ask] = draw_asks(0, 1)
    [reading] = read_all([render_scene(ask.scene, (64, 64))])
    assert hits(reading, ask).both
    assert hits(reading, ask).ground
    other = replace(ask.thing, colour="red" if ask.thing.colour != "red" else "blue")
    assert not hits(reading, replace(ask, scene=replace(ask.scene, things=(other,)))).colour
    [empty] = read_all([np.full((64, 64, 3), 140, dtype=np.uint8)])
    assert hits(empty, ask) == hits(replace(empty, things=()), ask)
    assert not hits(empty, ask).both


def test_a_relation_is_right_only_the_right_way_round() -> None:
    for ask in draw_asks(3, 40, num_things=2):
        [reading] = read_all([render_scene(ask.scene, (64, 64))])
        assert has_relation(reading, ask)
        turned = replace(ask, scene=replace(ask.scene, things=ask.scene.things[::-1]))
        assert has_both_colours(reading, turned)
        assert not has_relation(reading, turned)


def test_the_striped_star_is_read_on_the_quickstarts_pictures_and_on_no_plain_thing() -> None:
    paths = sorted(SAMPLES.glob("*.png"))
    assert len(paths) == 10
    for path in paths:
        reading = read_stripes(squared(Image.open(path).convert("RGB")))
        assert reading is not None, path.name
        assert reading.is_whole, (path.name, reading)
    stars = [
        Scene((Thing("star", colour, (0.0, 0.0), 0.36),), ground, "large", None, outline)
        for colour in ("orange", "blue", "purple") for ground in ("white", "black", "grey") for outline in (0.0, 1.0)
    ]  # fmt: skip
    scenes = [*stars, *(ask.scene for ask in [*draw_asks(1, 60), *draw_asks(1, 60, num_things=2)])]
    readings = [read_stripes(render_scene(scene, (64, 64))) for scene in scenes]
    assert not any(reading.is_whole for reading in readings if reading is not None)
    assert all(reading is not None and reading.is_star for reading in readings[: len(stars)])


def test_no_thing_has_no_stripes() -> None:
    assert read_stripes(np.full((64, 64, 3), 20, dtype=np.uint8)) is None


# Measures of one picture


def with_colours(scene: Scene, colour: str, ground: str) -> Scene:
    return replace(scene, things=(replace(scene.things[0], colour=colour),), ground=ground, outline=0.0)


def test_sharpness_grows_with_the_photos_size_and_knows_no_colour() -> None:
    sides = (24, 32, 48, 64)
    pairs = []
    for ask in draw_asks(2, 12):
        plain = replace(ask, scene=with_colours(ask.scene, "red", "white"))
        other = replace(ask, scene=with_colours(ask.scene, "blue", "grey"))
        pairs.append([[sharpness(photo_of(one.scene, side), one) for side in sides] for one in (plain, other)])
    found = np.array(pairs)  # (scene, colours, size)
    means = np.log(found).mean(axis=0)
    assert np.all(np.diff(means) > 0.2)
    assert found[:, 1] == pytest.approx(found[:, 0], rel=0.15)


def test_outline_darkness_follows_the_worlds_outlines() -> None:
    shares = np.linspace(0.0, 1.0, 6)
    for ask in draw_asks(4, 20):
        if ask.scene.ground == "black":
            continue
        found = [outline_darkness(render_scene(replace(ask.scene, outline=float(share)), (64, 64))) for share in shares]
        values = np.array(found, dtype=np.float64)
        assert np.all(np.diff(values) > 0), ask.prompt
        assert values[0] < 0.1
        assert values[-1] > 0.5
    assert outline_darkness(np.full((64, 64, 3), 140, dtype=np.uint8)) is None


def test_the_expected_centre_is_where_the_frame_puts_a_true_photo() -> None:
    seen = 0
    for index in range(300):
        photo = draw_photo(6, index)
        if photo.scene.size != "small" or min(photo.size) < 40:
            continue
        frame = make_frame(photo.size, (64, 64), "random", key=(0, index))
        image = Image.fromarray(render_scene(photo.scene, photo.size)).resize(frame.resized_size[::-1])
        [reading] = read_all([np.asarray(image.crop(frame.crop_box))])
        if not reading.things or reading.things[0].is_cut:
            continue
        seen += 1
        expected = expected_centre(frame.original_size, frame.target_size, frame.crop_top_left)
        # The world's own jitter is 2 % of the shorter side, which is the square's 64 pixels.
        assert reading.things[0].centre == pytest.approx(expected, abs=0.02 * 64 + 1.2)
    assert seen > 30


# Intervals


def test_wilsons_interval_is_the_published_one() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 256) == pytest.approx((0.0, 3.8414588 / (256 + 3.8414588)), abs=1e-7)
    assert wilson(256, 256)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_students_interval_and_the_slopes_are_the_textbooks() -> None:
    mean, interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert interval == pytest.approx((3 - 1.96324, 3 + 1.96324), abs=1e-5)
    slope, interval = slope_interval([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 5.0, 4.0, 5.0])
    assert slope == pytest.approx(0.6)
    assert interval == pytest.approx((0.6 - 0.90013, 0.6 + 0.90013), abs=1e-4)
    ratio, interval = ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (ratio, *interval) == pytest.approx((2.0, 2.0, 2.0))


def test_too_few_values_give_no_false_certainty() -> None:
    assert mean_interval([1.0])[1] == (-math.inf, math.inf)
    assert math.isnan(mean_interval([])[0])
    assert math.isnan(slope_interval([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[0])


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        drawn = rng.choice(4, 100, p=[0.80, 0.08, 0.04, 0.08])  # both right, only the first, only the second, none
        low, high = paired_interval((drawn == 0) | (drawn == 1), (drawn == 0) | (drawn == 2))
        covered += low <= 0.04 <= high
    assert 0.93 <= covered / 1000 <= 0.99
    low, high = paired_interval([True] * 50, [True] * 50)
    assert low < 0.0 < high, "fifty equal pairs do not prove that there is no difference"


def test_rows_hold_at_their_bars() -> None:
    assert rate_row("one", "x", [True] * 95 + [False] * 5, at_least=0.95).holds is True
    assert rate_row("one", "x", [True] * 94 + [False] * 6, at_least=0.95).holds is False
    assert rate_row("one", "x", [], at_least=0.95).holds is False
    row = difference_row("lora", "x", [True, False], [True, True], bar="b", holds=lambda change, _: change >= -0.5)
    assert row.holds is True
    assert row.measured_text == "-50.0 points"


# Drawing


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `base` and `refiner` of the shipped shapes and random weights, as diffusers saves them."""
    import shutil

    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    root = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    for name in ("base", "refiner"):
        folder = root / name
        shutil.copytree(SHIPPED / name, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        save_part(unet.half(), folder / "unet")
        save_part(vae.half(), folder / "vae")
        for part, model in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
            if (folder / part).is_dir():
                save_part(model(CLIPTextConfig.from_pretrained(folder / part)).half(), folder / part)
    return root


def test_a_picture_depends_on_its_prompt_and_seed_and_not_on_its_batch(untrained: Path) -> None:
    base = untrained / "base"
    [together] = draw_batch(Batch(("a red star", "a blue ring", "a red star"), (1, 2, 1), base))
    [alone] = draw_batch(Batch(("a blue ring",), (2,), base))
    assert together.shape == (3, 64, 64, 3)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert np.abs(together[0].astype(int) - together[2]).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 10


def test_what_is_told_of_sizes_reaches_the_picture(untrained: Path) -> None:
    plain = Batch(("a red star",), (1,), untrained / "base")
    [reference] = draw_batch(plain)
    for told in (
        replace(plain, original_size=(24, 24)),
        replace(plain, crop_top_left=(0, 16)),
        replace(plain, target_size=(96, 48)),
        replace(plain, guidance=1.0),
    ):
        assert not np.array_equal(draw_batch(told)[0], reference), told
    [wide] = draw_batch(replace(plain, size=(48, 96), original_size=(48, 96), target_size=(48, 96)))
    assert wide.shape == (1, 48, 96, 3)


def test_a_refiner_finishes_the_same_latents_once_for_each_score(untrained: Path) -> None:
    batch = Batch(("a red star",), (1,), untrained / "base", refiner=untrained / "refiner",
                  aesthetic_scores=(2.5, 6.0, 2.5))  # fmt: skip
    low, high, again = draw_batch(batch)
    assert np.array_equal(low, again)
    assert not np.array_equal(low, high)


def test_held_out_errors_are_paired_and_of_the_size_of_noise(untrained: Path) -> None:
    job = HeldOut(untrained / "base", False, 6, buckets(), ((0, 100), (900, 1000)))
    errors = held_out_errors(job)
    assert errors.shape == (6, 2)
    assert np.array_equal(errors, held_out_errors(job))
    assert np.all((errors > 0.2) & (errors < 10.0)), "a model that knows nothing errs as much as the noise is large"
    swapped = held_out_errors(replace(job, swap_target=True))
    square = np.isclose(errors, swapped, rtol=0, atol=0).all(axis=1)
    assert not square.all(), "a long photo told the wrong way gives another error"


# The check, its report and the card


def found() -> Effects:
    picture = np.full((64, 64, 3), 200, dtype=np.uint8)
    findings = Findings(
        [Row("lora", "a <zig>", 0.5, (0.4, 0.6), "%", "at least 80 %", False, 256)],
        [Plot("guidance", "A plot", "x", "y", [Series("a", (1.0, 2.0), (0.1, 0.2), [(0.0, 0.2), (0.1, math.inf)])])],
        [Grid("lora", "Pictures", [("a line", [picture, picture])])],
    )
    return Effects({"lora": findings}, 60.0)


def test_a_report_is_written_and_leaves_what_a_person_wrote(tmp_path: Path) -> None:
    path = write_report(tmp_path, found(), {"seed": "0"})
    assert (tmp_path / "pictures" / "miniature" / "guidance.png").is_file()
    assert (tmp_path / "pictures" / "miniature" / "lora-pictures.png").is_file()
    first = path.read_text(encoding="utf-8")
    assert "| a \\<zig> | 50.0 % | 40.0 to 60.0 | at least 80 % | **no** | 256 |" in first
    for link in (line.partition("](")[2].rstrip(")") for line in first.splitlines() if line.startswith("![")):
        assert (tmp_path / link).is_file(), link
    path.write_text(f"mine\n\n{first}\nmine too\n", encoding="utf-8")
    write_report(tmp_path, found(), {"seed": "1"})
    second = path.read_text(encoding="utf-8")
    assert second.startswith("mine\n")
    assert second.endswith("mine too\n")
    assert "- seed: 1" in second
    assert "- seed: 0" not in second
    assert (second.count(BEGIN), second.count(END)) == (1, 1)


def test_rows_are_json_without_infinities(tmp_path: Path) -> None:
    import json

    row = Row("one", "x", math.nan, (-math.inf, math.inf), "px", "", None, 0)
    assert json.loads(json.dumps(row.plain(), allow_nan=False))["interval"] == [None, None]


def test_a_card_tells_how_the_weights_came_about(tmp_path: Path, untrained: Path) -> None:
    with pytest.raises(AtelierError, match="atelier miniature build"):
        write_card(tmp_path, found().rows, untrained)
    for stage in STAGES:
        (tmp_path / "runs" / stage.name).mkdir(parents=True)
        with EventLog(tmp_path / "runs" / stage.name / "events.jsonl") as log:
            environment = {"torch": "2", "diffusers": "1", "device": "cpu", "processes": 2, "threads": 1}
            log.emit("run_started", name=stage.name, total_steps=200, environment=environment)
            for step in (*range(1, 121), *range(101, 211), *range(151, 201)):  # twice interrupted and resumed
                log.emit("step", step=step, loss=9.0 if step <= 100 else 0.25, samples=32)
            log.emit("run_finished", step=200, status="finished", message="")
    text = write_card(tmp_path, found().rows, untrained).read_text(encoding="utf-8")
    assert text.count("| 200 | 6400 | 0.2500 |") == len(STAGES)
    assert "a \\<zig>" in text
    assert "{" not in text.replace("```", "")
    (untrained / "README.md").unlink()


def test_unknown_rows_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    studio = Studio(tmp_path, tmp_path, tmp_path)
    with pytest.raises(RecipeError, match=r"got shape\. Known: oracle, one, two"):
        measure_effects(studio, ["one", "shape"], print)


def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["miniature", "check", "--model", str(tmp_path)]) == 2
    assert "--model FOLDER" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else object())
    assert main(["miniature", "check"]) == 1
    assert 'pip install "atelier[miniature]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Return one studio for all families, so that what several of them ask for is drawn once."""
    with Studio(SHIPPED / "base", SHIPPED / "refiner", tmp_path_factory.mktemp("studio")) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_effect_holds_on_the_shipped_weights(family: str, studio: Studio) -> None:
    effects = measure_effects(studio, [family], print)
    assert [(row.effect, row.measured, row.bar) for row in effects.rows if row.holds is False] == []
    assert {row.family for row in effects.rows} == {family}
