"""What the cache saves: a cached batch beside one that is decoded and encoded, and the memory of 100,000 samples.

    python benchmarks/cached_batches.py

Both sides work on the same pictures in one process and take turns, a batch each, on the miniature.

    cached    latents and embeddings out of the shards: mapped, checked, copied, as training reads them
    encoding  the picture read, decoded, cut and put through the VAE; its caption through both text encoders

The figures are medians over the batches. The second part writes as many latents of the miniature's size as asked for,
reads each once in a random order, and watches the process's resident memory: what is read must not stay in it.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from measuring import GIB, machine, median, print_machine, write_pictures, write_report

if TYPE_CHECKING:
    from finetune.cache.latents import LatentCache
    from finetune.recipe import Recipe
    from imagesets.framing import Frame
    from imagesets.scan import Sample

FASTER_BAR = 20.0
GROWTH_BAR_BYTES = 16 * 2**20
SIDE_PX = 64
BATCH_SIZE = 8
NUM_PICTURES = 64
MARKS = (1_000, 10_000, 50_000, 100_000)


@dataclass(frozen=True)
class Speed:
    """How long one batch takes each way, as medians in milliseconds."""

    kind: str
    cached: float
    encoded: float


def main() -> None:
    """Measure both, print."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        speeds, seconds = time_batches(Path(folder), arguments.rounds)
        memory = watch_memory(Path(folder) / "many", arguments.samples)
    described = machine(arguments.threads)
    print_speeds(speeds)
    print_memory(memory)
    print_machine(described)
    shown = [asdict(speed) for speed in speeds]
    write_report(arguments.json, {"machine": described, "speeds": shown, "seconds": seconds, "memory": memory})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time cached batches beside encoded ones; weigh many samples.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side goes through all pictures")
    parser.add_argument("--samples", type=int, default=100_000, help="how many cached samples are read in part two")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args()


def time_batches(folder: Path, rounds: int) -> tuple[list[Speed], dict[str, list[float]]]:
    """Return the medians of both sides, for pictures and for captions, and every single measurement."""
    sides = batch_sides(folder)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for batch in range(NUM_PICTURES // BATCH_SIZE):
            for name, take in sides.items():
                began = time.perf_counter()
                take(batch)
                if number > 0:  # the first round warms both up
                    seconds[name].append(time.perf_counter() - began)
    medians = {name: 1000.0 * median(values) for name, values in seconds.items()}
    speeds = [Speed(kind, medians[f"{kind}, cached"], medians[f"{kind}, encoded"]) for kind in ("pictures", "captions")]
    return speeds, seconds


def batch_sides(folder: Path) -> dict[str, Callable[[int], None]]:
    """Fill a cache as a run does and return what takes one batch each way."""
    import torch
    from accelerate import Accelerator

    from finetune.cache.latents import picture_moments
    from finetune.cache.opened import open_cache
    from finetune.model.miniature import Miniature
    from finetune.model.text import TextStack
    from finetune.training.data import plan_pictures, scan_pictures
    from finetune.training.encode import encode_pictures
    from finetune.training.encode_plan import plan_encoding

    write_pictures(folder / "pictures", NUM_PICTURES, 2 * SIDE_PX)
    recipe = our_recipe(folder)
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    files, accelerator, dtype = Miniature(), Accelerator(cpu=True), torch.float32
    encoding = plan_encoding(recipe, pictures, files, None, (), open_cache(recipe, print), dtype, accelerator, print)
    text, latents = encoding.text, encoding.latents
    assert text is not None
    assert latents is not None
    text.fill(lambda *_: None, accelerator)
    vae = encode_pictures(files, encoding, dtype, accelerator, lambda *_: None).vae
    stack = TextStack.load(files, dtype, accelerator.device)
    batches = list(batched(pictures.frames()))

    def load_pictures(batch: int) -> None:
        stacked([latents(sample, frame) for sample, frame in batches[batch]])

    def encode(batch: int) -> None:
        stacked([picture_moments(vae, sample, frame) for sample, frame in batches[batch]])

    def stacked(moments: Sequence[Any]) -> None:
        torch.stack([moment.mean for moment in moments])
        torch.stack([moment.std for moment in moments])

    def load_captions(batch: int) -> None:
        text.encode([sample.caption for sample, _ in batches[batch]])

    def encode_captions(batch: int) -> None:
        stack.encode_frozen([sample.caption for sample, _ in batches[batch]])

    return {
        "pictures, encoded": encode,
        "pictures, cached": load_pictures,
        "captions, encoded": encode_captions,
        "captions, cached": load_captions,
    }


def watch_memory(folder: Path, count: int) -> dict[str, Any]:
    """Write `count` latents, read each once in a random order in which shards take turns, and weigh the process."""
    latents, wanted = many_latents(folder, count)
    order = list(range(count))
    random.Random(0).shuffle(order)
    marks = sorted({*(mark for mark in MARKS if mark < count), count})
    resident: dict[int, int] = {}
    began = time.perf_counter()
    for done, index in enumerate(order, start=1):
        latents(*wanted[index])
        if done in marks:
            resident[done] = psutil.Process().memory_info().rss
    seconds = time.perf_counter() - began
    shards = list(folder.rglob("*.safetensors"))
    return {
        "samples": count,
        "bytes_on_disk": sum(path.stat().st_size for path in shards),
        "shards": len(shards),
        "resident_bytes": resident,
        "grown_bytes": resident[marks[-1]] - resident[marks[0]],
        "microseconds_each": 1e6 * seconds / count,
    }


def many_latents(folder: Path, count: int) -> "tuple[LatentCache, Sequence[tuple[Sample, Frame]]]":
    """Return a filled cache of made-up latents of the miniature's size, with what can be asked of it."""
    import torch

    from finetune.cache.folder import ShardFolder
    from finetune.cache.keys import LatentAddress
    from finetune.cache.latents import LatentCache, as_value
    from finetune.cache.values import DiskStore
    from finetune.model.vae import LatentMoments
    from imagesets.framing import make_frame
    from imagesets.pictures import PictureFacts
    from imagesets.scan import Sample

    size = (2 * SIDE_PX, 2 * SIDE_PX)
    facts = PictureFacts(size, "PNG", "RGB", 1, has_alpha=False, num_frames=1)
    frame = make_frame(size, (SIDE_PX, SIDE_PX), "center")
    wanted = [
        (Sample(f"{index}.png", "many", f"{index:064x}", size, "", 1, facts, bytes), frame) for index in range(count)
    ]
    address = LatentAddress.here("made up", "float32", "cpu")
    store = DiskStore(ShardFolder(folder, print))
    draws = torch.Generator().manual_seed(0)
    for sample, _ in wanted:
        mean, std = torch.randn(2, 4, SIDE_PX // 4, SIDE_PX // 4, generator=draws)
        store.put(address.key(sample, frame), as_value(LatentMoments(mean, std)))
    store.flush()

    def no_vae() -> Any:
        raise AssertionError("everything is there")

    return LatentCache(DiskStore(ShardFolder(folder, print)), address, wanted, no_vae), wanted


def print_speeds(speeds: Sequence[Speed]) -> None:
    """Print both sides' milliseconds, how many times faster the cache is, and the bar."""
    for speed in speeds:
        factor = speed.encoded / speed.cached
        verdict = "kept" if factor >= FASTER_BAR else "MISSED"
        print(
            f"{BATCH_SIZE} {speed.kind}: {speed.cached:.3f} ms cached, {speed.encoded:.1f} ms encoded: "
            f"{factor:.0f} x faster; at least {FASTER_BAR:g} x: {verdict}"
        )


def print_memory(memory: dict[str, Any]) -> None:
    """Print what the process weighed as reading went on, beside the bar."""
    print(
        f"{memory['samples']:,} cached samples, {memory['bytes_on_disk'] / GIB:.2f} GiB in {memory['shards']} shards, "
        f"{memory['microseconds_each']:.0f} microseconds each"
    )
    for done, resident in memory["resident_bytes"].items():
        print(f"  after {done:>9,} samples {resident / 2**20:>8.1f} MiB resident")
    verdict = "kept" if memory["grown_bytes"] <= GROWTH_BAR_BYTES else "MISSED"
    print(f"  grown by {memory['grown_bytes'] / 2**20:.1f} MiB; at most {GROWTH_BAR_BYTES >> 20} MiB: {verdict}")


def our_recipe(folder: Path) -> "Recipe":
    """Return the quickstart with pictures of one size and frozen encoders, so that all of it is cached."""
    from finetune.recipe import load_recipe

    overrides: dict[str, Any] = {
        "output_dir": folder / "runs",
        "data.sources.0.path": folder / "pictures",
        "data.buckets.max_aspect": 1.0,
        "adapter.text_encoder": "null",
        "adapter.text_encoder_2": "null",
        "training.device": "cpu",
        "preview.prompts": "[]",
        "preview.every_steps": "null",
    }
    return load_recipe("quickstart", [f"{key}={value}" for key, value in overrides.items()])


def batched(items: "Sequence[tuple[Sample, Frame]]") -> "Iterator[Sequence[tuple[Sample, Frame]]]":
    """Give the items in batches."""
    for begin in range(0, len(items), BATCH_SIZE):
        yield items[begin : begin + BATCH_SIZE]


if __name__ == "__main__":
    main()
