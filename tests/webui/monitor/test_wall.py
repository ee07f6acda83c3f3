"""The wall of previews: places from names alone, pairs that belong together, and no file from outside the run."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.monitor.wall import Cell, build_wall, evenly, on_disk


def preview(step: int, *names: str) -> list[str]:
    return [f"previews/step-{step:06d}/{name}.png" for name in ("wall", *names)]


LORA = {
    0: preview(0, "01-lora-off", "02-lora-off", "01-lora-off-refiner"),
    10: preview(10, "01-lora-off", "02-lora-off", "01-lora", "02-lora", "01-lora-refiner", "01-lora-off-refiner"),
    20: preview(20, "01-lora", "10-lora", "01-lora-off"),
}
WHOLE = {0: preview(0, "01-untrained"), 10: preview(10, "01-trained"), 20: preview(20, "01-trained")}


def test_prompts_and_steps_are_told_by_names() -> None:
    wall = build_wall(LORA)
    assert (wall.prompts, wall.steps, wall.has_refined) == ((1, 2, 10), (0, 10, 20), True)
    assert wall.pictures[Cell(2, 10, learned=True, refined=False)] == "previews/step-000010/02-lora.png"
    assert len(wall.pictures) == 12, "all but the walls"
    assert build_wall({}).pictures == {}
    assert not build_wall(WHOLE).has_refined


@pytest.mark.parametrize(
    "name",
    ["wall.png", "1-lora.png", "01-lora.jpg", "01-LORA.png", "01-lora.png.exe", "x01-lora.png", "01-lora-off-x.png",
     "\u0660\u0661-lora.png", "01-lora.png\n", "01-<b>.png", ""],
)  # fmt: skip
def test_a_name_that_is_none_of_ours_has_no_place(name: str) -> None:
    assert build_wall({1: [f"previews/step-000001/{name}"]}).pictures == {}


def test_a_place_shows_what_was_learned_or_at_the_start_the_untouched_one() -> None:
    wall = build_wall(LORA)
    assert wall.shown(1, 0, refined=False) == "previews/step-000000/01-lora-off.png"
    assert wall.shown(1, 10, refined=False) == "previews/step-000010/01-lora.png"
    assert wall.shown(1, 10, refined=True) == "previews/step-000010/01-lora-refiner.png"
    assert wall.shown(2, 20, refined=False) is None


def test_pairs_are_of_one_prompt_and_step_except_where_a_whole_model_was_trained() -> None:
    wall = build_wall(LORA)
    here = "previews/step-000010/"
    assert wall.pair(1, 10, "learned", refined=False) == (f"{here}01-lora-off.png", f"{here}01-lora.png")
    assert wall.pair(1, 10, "learned", refined=True) == (f"{here}01-lora-off-refiner.png", f"{here}01-lora-refiner.png")
    assert wall.pair(1, 10, "refined", refined=False) == (f"{here}01-lora.png", f"{here}01-lora-refiner.png")
    assert wall.pair(2, 10, "refined", refined=False) is None
    assert wall.pair(1, 0, "learned", refined=False) is None
    assert build_wall(WHOLE).pair(1, 20, "learned", refined=False) == (
        "previews/step-000000/01-untrained.png", "previews/step-000020/01-trained.png",
    )  # fmt: skip


@given(st.lists(st.integers(0, 10**6), unique=True).map(sorted), st.integers(2, 12))
def test_steps_are_chosen_evenly_with_both_ends(steps: list[int], count: int) -> None:
    chosen = evenly(steps, count)
    assert list(chosen) == sorted(set(chosen) & set(steps))
    assert len(chosen) == min(len(steps), count)
    if steps:
        assert (chosen[0], chosen[-1]) == (steps[0], steps[-1])
    gaps = [steps.index(after) - steps.index(before) for before, after in pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_only_plain_files_inside_the_run_are_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "previews").mkdir(parents=True)
    (run / "previews" / "01-lora.png").write_bytes(b"x")
    (tmp_path / "01-lora.png").write_bytes(b"secret")
    (run / "previews" / "02-lora.png").symlink_to(tmp_path / "01-lora.png")
    assert on_disk(run, "previews/01-lora.png") == str(run / "previews" / "01-lora.png")
    for path in (None, "", "previews", "previews/none.png", "../01-lora.png", str(tmp_path / "01-lora.png"),
                 "previews/02-lora.png", "previews/../previews/01-lora.png", "previews/01-lora.png\0"):  # fmt: skip
        assert on_disk(run, path) is None, path
