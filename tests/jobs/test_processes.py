"""Two processes train what one trains: `accelerate launch` shares the same plan and the same draws."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune.cache.shards import read_index
from tests.jobs.conftest import child_environment


@pytest.mark.slow
def test_two_processes_train_what_one_does(job) -> None:
    train_once_and_on_two(job, second=["cache.folder=two-cache"])
    [started] = [event for event in job.events("two") if event["kind"] == "run_started"]
    assert started["environment"]["processes"] == 2
    assert_each_value_is_there_once(job.recipe.parent / "two-cache", num_shards={"latents": 2})


def train_once_and_on_two(job, *settings: str, second: Sequence[str] = ()) -> None:
    """Train runs `one` and, with two processes, `two`, and hold their steps beside each other."""
    job.train("name=one", *settings)
    # What `accelerate launch` starts on GPUs; on a CPU its own launcher wants MPI.
    command = [sys.executable, *launch_two(), "-m", "finetune", "train", str(job.recipe), "name=two"]
    finished = subprocess.run(
        [*command, *settings, *second],
        capture_output=True,
        text=True,
        env=child_environment(),
        cwd=job.recipe.parent,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    one, two = job.losses("one"), job.losses("two")
    assert one.keys() == two.keys()
    # Sums over processes round otherwise, and Adam's first steps enlarge that; other pictures or draws would differ in
    # the first digit.
    for step, (loss, grad_norm, *_) in one.items():
        assert two[step][:2] == pytest.approx((loss, grad_norm), rel=1e-5 if step == 1 else 1e-2), f"step {step}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_train_a_whole_model_to_the_same_bits_as_each_other(job) -> None:
    """Eleven pictures one by one, two a step: in an epoch's sixth the second process has none, and adds zeros."""
    settings = ["adapter={kind: full, unet: {learning_rate: 1e-4}}", "training.steps=7", "training.ema.decay=0.9"]
    settings += ["training.micro_batch_size=1", "training.global_batch_size=2"]
    script = [str(Path(__file__).parent / "ranks.py"), str(job.recipe), *settings]
    [alone] = ranks([sys.executable, *script, "cache.kind=memory"])
    pairs = [
        ranks([sys.executable, *launch_two(), *script, cache])
        for cache in (f"cache.folder={job.runs / 'shared'}", "cache.kind=memory")
    ]
    assert pairs[0] == pairs[1], "what is encoded by the other comes over the disk and over the wire alike"
    assert_each_value_is_there_once(job.runs / "shared", num_shards={"latents": 2, "text": 2})
    one, other = pairs[0]
    assert (one.pop("rank"), other.pop("rank")) == (0, 1)
    assert one == other
    assert one["samples"] == [2, 2, 2, 2, 2, 1, 2]
    assert (one["processes"], alone["processes"]) == (2, 1)
    assert one["parameters"] != one["averages"]
    assert one["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    assert one["grad_norms"] == pytest.approx(alone["grad_norms"], rel=1e-2)


def launch_two() -> list[str]:
    return ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]


def assert_each_value_is_there_once(cache: Path, num_shards: dict[str, int]) -> None:
    """Each process wrote its part, and no value was encoded by both."""
    for store, expected in num_shards.items():
        shards = [read_index(path, {}).places.keys() for path in (cache / store).glob("shard-*.safetensors")]
        assert len(shards) >= expected
        assert all(shards)
        assert sum(map(len, shards)) == len(set().union(*shards))


def ranks(command: list[str]) -> list[dict[str, Any]]:
    """Run a command and return what each process printed, by rank."""
    finished = subprocess.run(
        command, capture_output=True, text=True, env=child_environment(), timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    return sorted(lines, key=lambda line: line["rank"])
