"""What is drawn of a run: every curve it has, no peak lost, few points, and lines that can be told apart."""

import math
from typing import Any

import pytest

from webui.monitor.plots import PLOTS, colours, is_worth_drawing, points_of
from webui.run_state import BANDS, RunState, fold

PLOT = {plot.name: plot for plot in PLOTS}


def run_of(*steps: dict[str, Any]) -> RunState:
    return fold(RunState(), [{"kind": "step", "seq": 1, **step} for step in steps])


def lines_of(name: str, state: RunState) -> dict[str, list[tuple[float, float]]]:
    points = points_of(PLOT[name], state)
    assert len(points.x) == len(points.y) == len(points.series)
    lines: dict[str, list[tuple[float, float]]] = {}
    for x, y, series in zip(points.x, points.y, points.series, strict=True):
        lines.setdefault(series, []).append((x, y))
    return lines


def test_each_plot_shows_its_measure() -> None:
    state = run_of(
        *(
            {
                "step": step,
                "loss": 1.0,
                "prior_loss": 2.0,
                "grad_norm": 3.0,
                "seconds": 0.25,
                "memory_bytes": 2**31,
                "learning_rates": {"unet": 1e-4, "text_encoder": 1e-5},
                "timesteps": [first for first, _ in BANDS],
                "per_sample": [0.1, 0.2, 0.3, 0.4],
            }
            for step in (1, 2, 3)
        )
    )
    shown = {name: {line: points[-1] for line, points in lines_of(name, state).items()} for name in PLOT}
    assert shown == {
        "loss": {"each step": (3, 1), "smoothed": (3, pytest.approx(1)), "prior, smoothed": (3, pytest.approx(2))},
        "bands": {
            "0-249": (3, pytest.approx(0.1)), "250-499": (3, pytest.approx(0.2)),
            "500-749": (3, pytest.approx(0.3)), "750-999": (3, pytest.approx(0.4)),
        },
        "rates": {"unet": (3, 1e-4), "text_encoder": (3, 1e-5)},
        "gradient": {"norm": (3, 3)},
        "speed": {"steps per second": (3, 4)},
        "memory": {"memory": (3, 2)},
    }  # fmt: skip


def test_what_is_not_there_is_not_drawn() -> None:
    state = run_of({"step": 1, "loss": math.nan, "seconds": 0}, {"step": 2, "loss": 0.5})
    assert lines_of("loss", state) == {"each step": [(2, 0.5)], "smoothed": [(2, pytest.approx(0.5))]}
    for name in ("bands", "rates", "gradient", "speed", "memory"):
        assert lines_of(name, state) == {}
    for name in PLOT:
        assert lines_of(name, RunState()) == {}


def test_a_long_run_is_few_points_and_no_peak_is_lost() -> None:
    state = run_of(*({"step": step, "loss": 99.0 if step == 7777 else 0.5} for step in range(1, 20_001)))
    lines = lines_of("loss", state)
    assert all(len(points) <= 240 for points in lines.values())
    assert (7777, 99.0) in lines["each step"]
    assert lines["smoothed"][0][0] == 1
    assert lines["smoothed"][-1][0] == 20_000


def test_curves_are_drawn_anew_when_one_sees_it() -> None:
    assert not is_worth_drawing(100, 100, 1e9, 0), "nothing has come"
    assert is_worth_drawing(1, 0, 0, 0)
    assert is_worth_drawing(50, 100, 0, 1), "a resume went back"
    assert not is_worth_drawing(10_001, 10_000, 1, 0)
    assert is_worth_drawing(10_001, 10_000, 10, 0), "seldom, but it is"
    assert is_worth_drawing(10_201, 10_000, 1, 0)
    assert not is_worth_drawing(99_999, 1, 19, 0.1), "it would take more of the machine than it is worth"
    assert is_worth_drawing(99_999, 1, 20, 0.1)


def test_drawing_follows_a_run_and_takes_little_of_its_time() -> None:
    """A step each half second and drawings of a tenth of a second, as the clock goes."""
    drawn_step, drawn_at, num_drawn, furthest_behind = 0, 0.0, 0, 0
    for step in range(1, 10_001):
        now = step / 2
        if is_worth_drawing(step, drawn_step, now - drawn_at, 0.1):
            drawn_step, drawn_at, num_drawn = step, now, num_drawn + 1
        furthest_behind = max(furthest_behind, step - drawn_step)
    assert num_drawn * 0.1 <= 5000 / 200
    assert furthest_behind <= 2 * 20 + 1, "never further behind than that costs"


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_differ_and_are_seen_on_light_and_dark() -> None:
    names = [f"run {index}" for index in range(8)]
    chosen = colours(names)
    assert len(set(chosen.values())) == 8
    assert len(colours([*names, "nine"])) == 9, "there is one for every line"
    loss = colours(["each step", "smoothed", "prior, smoothed"])
    assert len(set(loss.values())) == 3
    for colour in {*chosen.values(), *loss.values()}:
        assert (1.0 + 0.05) / (luminance(colour) + 0.05) >= 3, colour
        assert (luminance(colour) + 0.05) / (luminance("#11181a") + 0.05) >= 3, colour
