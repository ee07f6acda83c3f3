"""The lowest smoothed loss: of a log with a known minimum, after a resume, and beside the page's own curve."""

import math
import random
from pathlib import Path

import pytest

from finetune.run.events import EventLog, read_events
from finetune.run.folder import RunFolder
from finetune.run.losses import StepLoss, lowest_loss, smoothed_losses
from webui.run_reader import RunReader


def write_log(run: RunFolder, losses: dict[int, float], resumed_from: int | None = None) -> None:
    with EventLog(run.events) as log:
        log.emit("run_started", resumed_from=resumed_from, total_steps=1000)
        for step, loss in losses.items():
            log.emit("step", step=step, loss=loss)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "cat")


def test_the_kept_step_in_the_valley_is_found_not_the_one_with_the_luckiest_loss(run: RunFolder) -> None:
    """A valley of a thousand steps' width at 600; step 900 has by far the lowest loss, by chance."""
    draws = random.Random(0)
    losses = {step: 0.1 + ((step - 600) / 1000) ** 2 + draws.gauss(0, 0.01) for step in range(1, 1001)}
    losses[900] = 1e-6
    write_log(run, losses)
    kept = [200, 400, 640, 900, 1000]
    assert min(kept, key=losses.__getitem__) == 900
    found = lowest_loss(run, kept)
    assert found is not None
    assert found.step == 640
    assert abs(found.loss - 0.1) < 0.01


def test_the_mean_is_the_formulas_also_past_losses_that_are_not_finite(run: RunFolder) -> None:
    losses = {1: math.nan, 2: 3.0, 3: 1.0, 4: math.inf, 5: 2.0}
    write_log(run, losses)
    means = smoothed_losses([{"kind": "step", "step": step, "loss": loss} for step, loss in losses.items()])
    finite = {2: [3.0], 3: [3.0, 1.0], 4: [3.0, 1.0], 5: [3.0, 1.0, 2.0]}
    for step, so_far in finite.items():
        weights = [0.98 ** (len(so_far) - 1 - index) for index in range(len(so_far))]
        expected = sum(weight * loss for weight, loss in zip(weights, so_far, strict=True)) / sum(weights)
        assert means[step] == pytest.approx(expected, rel=1e-12)
    assert means.keys() == finite.keys()
    assert lowest_loss(run, [1]) is None
    assert lowest_loss(run, [3, 4, 9]) == StepLoss(4, means[3]), "of equals the latest"


def test_what_a_resume_repeats_counts_as_it_was_last(run: RunFolder) -> None:
    write_log(run, {1: 1.0, 2: 1.0, 3: 0.001, 4: 0.001})
    write_log(run, {3: 0.5}, resumed_from=2)
    expected = (0.98**2 + 0.98 + 0.5) / (0.98**2 + 0.98 + 1)
    assert lowest_loss(run, [1, 2, 3, 4]) == StepLoss(3, pytest.approx(expected)), "step 4 is not of this run any more"
    write_log(run, {}, resumed_from=2)
    assert lowest_loss(run, [3, 4]) is None, "nor is step 3, once the run has gone back before it"


def test_the_page_draws_the_same_mean(run: RunFolder) -> None:
    draws = random.Random(1)
    write_log(run, {step: draws.random() if step % 7 else math.nan for step in range(1, 200)})
    write_log(run, {step: draws.random() for step in range(151, 300)}, resumed_from=150)
    state = RunReader(run).update().state
    drawn = dict(zip(state.curve("step").tolist(), state.smoothed("loss").tolist(), strict=True))
    means = smoothed_losses(read_events(run.events)[0])
    assert {int(step): loss for step, loss in drawn.items()} == pytest.approx(means, rel=1e-12)
