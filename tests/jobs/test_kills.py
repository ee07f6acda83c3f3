"""SIGKILL at random moments, some inside a save: every resume ends at the same bits."""

import random
import time

import pytest

NUM_KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_at_random_moments_change_nothing(job) -> None:
    job.train("name=whole", "training.steps=24")
    draws = random.Random(11)
    kills, inside_saves = 0, 0
    run = job.runs / "broken"
    while kills < NUM_KILLS:
        resume = ["--resume"] if (run / "recipe.yaml").exists() else []
        process = job.start("name=broken", "training.steps=24", *resume, driver=["slow-saves", "0.15"])
        seen = count_starts(run)
        if draws.random() < 0.85:  # the rest are killed while they still load
            wait_for_start(process, run, seen)
            time.sleep(draws.uniform(0.0, 1.2))
        else:
            time.sleep(draws.uniform(0.5, 5.0))
        assert process.poll() is None, f"the run ended before it was killed {NUM_KILLS} times: {process.communicate()}"
        process.kill()
        process.communicate()
        kills += 1
        inside_saves += any((run / "checkpoints").glob(".partial-*"))
    job.train("name=broken", "training.steps=24", "--resume")
    assert inside_saves >= 3, "too few kills fell inside a save to prove anything"
    assert job.state_of("broken") == job.state_of("whole")
    assert job.losses("broken") == job.losses("whole")
    assert not list((run / "checkpoints").glob(".partial-*")), "what interrupted saves left behind is cleaned up"


def count_starts(run) -> int:
    events = run / "events.jsonl"
    return events.read_text(encoding="utf-8").count('"kind": "run_started"') if events.exists() else 0


def wait_for_start(process, run, seen: int) -> None:
    """Wait until this process has begun to train."""
    deadline = time.monotonic() + 120
    while count_starts(run) == seen:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
