"""The toolbox's verbs on LoRAs of rank 64 over SDXL's 986 modules, beside straight implementations.

    python benchmarks/lora_algebra.py

Ours are the verbs' own functions, from reading the file to the new one on the disk. Straight is what one writes in an
afternoon:

    resize, merge svd   each module's change formed as a whole matrix, float32, and `torch.linalg.svd` of it
    extract             the same of a difference that is no product, in memory; ours decomposes it as `extract` does
    merge cat, convert  safetensors' `load_file`, the tensors joined or renamed, `save_file`: what files cost at least

A straight SVD of all modules takes minutes, so each of their shapes is timed on a few modules and counted as often as
it occurs, without reading and writing, which favours it. Errors are of those same modules: the norm of what is lost
over the norm of the change, both sides' factors as float32, beside the least possible one from numpy in float64.

The bar, where there are factors to begin with: three times faster, with an error no larger than the straight one's by
a thousandth. A difference of two models has none, so its time is shown without one.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lora_shapes import low_rank, real_modules, write_lora
from measuring import machine, median, print_machine, write_report
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.loras.convert import convert
from finetune.loras.merge import MergeSettings, merge
from finetune.loras.resize import resize
from finetune.loras.svd import RankRule, decompose_dense, decompose_product
from finetune.naming.structure import SDXL_BASE

RANK, NEW_RANK = 64, 32
FASTER_BAR, ERROR_BAR = 3.0, 1.001

Factors = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One verb: seconds of both sides, and what both lose, where something is lost; `best` is the least possible."""

    title: str
    ours: float
    straight: float
    our_error: float | None = None
    straight_error: float | None = None
    best_error: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the bar is kept; None where there is none."""
        if self.our_error is None or self.straight_error is None or self.title.startswith("extract"):
            return None
        return self.straight >= FASTER_BAR * self.ours and self.our_error <= ERROR_BAR * self.straight_error


def main() -> None:
    """Measure, print."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name:
        rows = [*time_files(Path(name), arguments.turns), time_extraction(arguments.modules)]
        rows[2:4] = [with_straight(rows[2], 1, arguments.modules), with_straight(rows[3], 2, arguments.modules)]
    print(f"{'rank 64, 986 modules':<24}{'ours s':>9}{'straight s':>12}{'faster':>9}"
          f"{'our error':>12}{'straight':>11}{'least':>11}")  # fmt: skip
    for row in rows:
        errors = (row.our_error, row.straight_error, row.best_error)
        shown = "".join(f"{'-' if error is None else f'{error:.6f}':>11}" for error in errors)
        verdict = {None: "", True: "   kept", False: "   MISSED"}[row.holds]
        print(f"{row.title:<24}{row.ours:>9.1f}{row.straight:>12.1f}{row.straight / row.ours:>8.1f}x {shown}{verdict}")
    described = machine(arguments.threads)
    print_machine(described)
    write_report(arguments.json, {"machine": described, "rows": [asdict(row) for row in rows]})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time convert, merge, resize and extract beside straight ones.")
    parser.add_argument("--workdir", type=Path, help="where 4 GB are free; without it, the system's temporary folder")
    parser.add_argument("--turns", type=int, default=3, help="how often each verb is run; the median counts")
    parser.add_argument("--modules", type=int, default=2, help="modules of each shape that are decomposed straight")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args()


def time_files(folder: Path, turns: int) -> list[Row]:
    """Time the verbs on files, and the straight ones that decompose nothing."""
    first, second, made = (folder / f"{name}.safetensors" for name in ("cat", "dog", "made"))
    for seed, path in enumerate((first, second)):
        write_lora(path, RANK, seed)

    def run_merge(method: str) -> None:
        settings = MergeSettings(method, RANK if method == "svd" else None)
        merge([first, second], [1.0, 0.7], made, settings=settings, structure=SDXL_BASE)

    def join() -> None:
        one, other = load_file(first), load_file(second)
        joined = {
            name: value if value.dim() == 0 else torch.cat([value, other[name]], dim=int("lora_up" in name))
            for name, value in one.items()
        }
        save_file(joined, made)

    def rename() -> None:
        save_file({name.replace("lora_down", "lora_A"): value for name, value in load_file(first).items()}, made)

    def seconds(run: Callable[[], object]) -> float:
        taken = []
        for _ in range(turns):
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
            made.unlink()
        return median(taken)

    return [
        Row("convert to diffusers", seconds(lambda: convert(first, made, to="diffusers", structure=SDXL_BASE)),
            seconds(rename)),
        Row("merge cat", seconds(lambda: run_merge("cat")), seconds(join)),
        Row("resize to 32", seconds(lambda: resize(first, made, rule=RankRule(NEW_RANK), structure=SDXL_BASE)), 0.0),
        Row("merge svd to 64", seconds(lambda: run_merge("svd")), 0.0),
    ]  # fmt: skip


def with_straight(row: Row, num_files: int, modules: int) -> Row:
    """Add the straight side's time and both errors to a verb that decomposes products."""
    rank = NEW_RANK if num_files == 1 else RANK
    straight, norms, ours, theirs, least = 0.0, 0.0, 0.0, 0.0, 0.0
    for shape, count in shapes().items():
        taken = []
        for seed in range(modules):
            generator = torch.Generator().manual_seed(seed)
            parts = [low_rank(shape, RANK, generator) for _ in range(num_files)]
            up = torch.cat([part[0] * weight for part, weight in zip(parts, (1.0, 0.7), strict=False)], dim=1)
            down = torch.cat([part[1] for part in parts])
            began = time.perf_counter()
            factors = straight_factors(up @ down, rank)
            taken.append(time.perf_counter() - began)
            exact = up.double().numpy() @ down.double().numpy()
            squares = np.linalg.svd(np.linalg.qr(up.double().numpy())[1] @ down.double().numpy(), compute_uv=False) ** 2
            norms += count * squares.sum()
            least += count * squares[rank:].sum()
            ours += count * lost(exact, decompose_product(up, down).factors(rank))
            theirs += count * lost(exact, factors)
        straight += count * median(taken)
    return Row(row.title, row.ours, straight, *((error / norms) ** 0.5 for error in (ours, theirs, least)))


def time_extraction(modules: int) -> Row:
    """Time both decompositions of a difference of full rank, as fine-tuning leaves it, in memory."""
    seconds = {"ours": 0.0, "straight": 0.0}
    norms, ours, theirs, least = 0.0, 0.0, 0.0, 0.0
    for shape, count in shapes().items():
        taken: dict[str, list[float]] = {"ours": [], "straight": []}
        for seed in range(modules):
            generator = torch.Generator().manual_seed(seed)
            up, down = low_rank(shape, RANK, generator)
            difference = up @ down + 2e-4 * torch.randn(shape, generator=generator)
            began = time.perf_counter()
            found = decompose_dense(difference)
            own = found.factors(RANK)
            between = time.perf_counter()
            factors = straight_factors(difference, RANK)
            taken["straight"].append(time.perf_counter() - between)
            taken["ours"].append(between - began)
            exact = difference.double().numpy()
            squares = np.linalg.svd(exact, compute_uv=False) ** 2 if seed == 0 else found.values.numpy() ** 2
            norms += count * squares.sum()
            least += count * squares[RANK:].sum()
            ours += count * lost(exact, own)
            theirs += count * lost(exact, factors)
        for side, values in taken.items():
            seconds[side] += count * median(values)
    errors = ((error / norms) ** 0.5 for error in (ours, theirs, least))
    return Row("extract, no files", seconds["ours"], seconds["straight"], *errors)


def shapes() -> Counter[tuple[int, ...]]:
    """Return how often each shape occurs among the 986 modules."""
    return Counter(SDXL_BASE.weights[component, path] for component, path in real_modules())  # type: ignore[index]


def straight_factors(change: Tensor, rank: int) -> Factors:
    """Return a truncation by a full SVD, singular values split evenly."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def lost(exact: np.ndarray[tuple[int, ...], np.dtype[np.float64]], factors: Factors) -> float:
    """Return the squared norm of what factors, as float32, do not hold."""
    up, down = (factor.float().double().numpy() for factor in factors)
    return float(np.square(exact - up @ down).sum())


if __name__ == "__main__":
    main()
