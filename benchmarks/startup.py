"""How long a person waits: for the help, for a recipe's mistake, for the first step of the quickstart.

    python benchmarks/startup.py

Each is a whole process, from its start to its end, or for the run to the event of its first step; medians over several.
The help and the message about a broken recipe must also come without torch, which alone would take seconds: a process
that does the same work is asked for its modules afterwards.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import (
    child_environment,
    kit_command,
    machine,
    median,
    print_machine,
    read_json_lines,
    write_report,
)

HELP_BAR_SECONDS = 0.5
RECIPE_ERROR_BAR_SECONDS = 1.0
FIRST_STEP_BAR_SECONDS = 15.0
HEAVY_MODULES = ("torch", "diffusers", "transformers", "peft", "accelerate")

_RECIPE_ERROR_CODE = 2
_POLL_SECONDS = 0.02
_GIVE_UP_SECONDS = 300.0
_BROKEN_RECIPE = """\
schema_version: 1
model: {kind: miniature}
data: {sources: [{kind: folder, path: sample:quickstart}]}
adapter: {unet: {rnak: 16}}
"""
_LIST_MODULES = """\
import json, sys
from finetune.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as leaving:
    code = leaving.code
print(json.dumps({"code": code, "modules": sorted(name for name in sys.modules if "." not in name)}))
"""


@dataclass(frozen=True)
class Wait:
    """One thing waited for.

    Attributes:
        title: what.
        seconds: the median.
        bar_seconds: what is promised.
        all_seconds: every measurement.
    """

    title: str
    seconds: float
    bar_seconds: float
    all_seconds: list[float]

    @staticmethod
    def of(title: str, all_seconds: list[float], bar_seconds: float) -> "Wait":
        """Reduce measurements to their median."""
        return Wait(title, median(all_seconds), bar_seconds, all_seconds)


def main() -> None:
    """Measure the three and print them beside their bars."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "broken.yaml"
        broken.write_text(_BROKEN_RECIPE, encoding="utf-8")
        require_light(["--help"], expected_code=0, threads=arguments.threads)
        require_light(["check", str(broken)], expected_code=_RECIPE_ERROR_CODE, threads=arguments.threads)
        times = range(arguments.times)
        helps = [time_command(["--help"], 0, arguments.threads) for _ in times]
        errors = [time_command(["check", str(broken)], _RECIPE_ERROR_CODE, arguments.threads) for _ in times]
        first_steps = [
            time_first_step(Path(folder) / f"runs-{number}", arguments.threads)
            for number in range(arguments.train_times)
        ]
    waits = [
        Wait.of("atelier --help", helps, HELP_BAR_SECONDS),
        Wait.of("atelier check, a broken recipe", errors, RECIPE_ERROR_BAR_SECONDS),
        Wait.of("atelier train quickstart, step 1", first_steps, FIRST_STEP_BAR_SECONDS),
    ]
    print(f"{'':<34}{'seconds':>9}   bar")
    for wait in waits:
        verdict = "kept" if wait.seconds < wait.bar_seconds else "MISSED"
        print(f"{wait.title:<34}{wait.seconds:>9.2f}   under {wait.bar_seconds:g} s: {verdict}")
    print(f"the help and the recipe's error import none of: {', '.join(HEAVY_MODULES)}")
    described = machine(arguments.threads)
    print_machine(described)
    write_report(arguments.json, {"machine": described, "waits": [asdict(wait) for wait in waits]})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time the command line's start.")
    parser.add_argument("--times", type=int, default=5, help="for the help and the recipe's error")
    parser.add_argument("--train-times", type=int, default=3, help="for the quickstart's first step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args()


def time_command(verb: Sequence[str], expected_code: int, threads: int) -> float:
    """Return how many seconds a command takes as a process."""
    began = time.perf_counter()
    done = subprocess.run([*kit_command(), *verb], capture_output=True, text=True, env=child_environment(threads))
    seconds = time.perf_counter() - began
    if done.returncode != expected_code:
        raise SystemExit(f"atelier {' '.join(verb)} ended with {done.returncode}, not {expected_code}:\n{done.stderr}")
    return seconds


def time_first_step(output_dir: Path, threads: int) -> float:
    """Return the seconds from starting the quickstart's run to the time its first step's event bears; then end it."""
    events = output_dir / "startup" / "events.jsonl"
    command = [*kit_command(), "train", "quickstart", "name=startup", f"output_dir={output_dir}"]
    started = time.time()
    with (output_dir.parent / f"{output_dir.name}.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=child_environment(threads))
    try:
        while time.time() - started < _GIVE_UP_SECONDS:
            steps = [event for event in read_json_lines(events) if event["kind"] == "step"] if events.exists() else []
            if steps:
                return float(steps[0]["time"] - started)
            if child.poll() is not None:
                raise SystemExit(f"the run ended before its first step:\n{Path(log.name).read_text(errors='replace')}")
            time.sleep(_POLL_SECONDS)
        raise SystemExit(f"no step within {_GIVE_UP_SECONDS:g} s")
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.wait()


def require_light(verb: Sequence[str], expected_code: int, threads: int) -> None:
    """Stop where a command's process has imported one of the heavy libraries."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES, *verb], capture_output=True, text=True, env=child_environment(threads)
    )
    found = json.loads(done.stdout.splitlines()[-1])
    heavy = sorted(set(HEAVY_MODULES) & set(found["modules"]))
    if found["code"] != expected_code or heavy:
        raise SystemExit(f"atelier {' '.join(verb)}: code {found['code']}, imported {heavy}\n{done.stderr}")


if __name__ == "__main__":
    main()
