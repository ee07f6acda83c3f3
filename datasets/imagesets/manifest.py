"""The list of samples a run is trained on: one readable JSON line each."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imagesets.framing import Size, make_frame
from imagesets.scan import Sample


def manifest_lines(samples: Iterable[Sample], buckets: Iterable[Size]) -> Iterator[str]:
    """Yield the manifest's lines, one a sample, each with its line end.

    A line gives name, source, hash, original size, bucket, the centred and unmirrored frame (where crops are random it
    is the middle of what is drawn from), how much the picture is scaled (above 1: blown up), caption, repeats
    and aesthetic score; of a caption that is worded anew for each showing also how it was written, what the
    picture's loss counts where that is not 1, and its mask where it has one (without a name where it is the picture's
    own transparency).

    Args:
        samples: the pictures.
        buckets: the (height, width) each is trained at, in the same order.
    """
    for sample, bucket in zip(samples, buckets, strict=True):
        frame = make_frame(sample.original_size, bucket, "center")
        entry = {
            "name": sample.name,
            "source": sample.source,
            "sha256": sample.sha256,
            "original_size": sample.original_size,
            "bucket": bucket,
            "resized_size": frame.resized_size,
            "crop_top_left": frame.crop_top_left,
            "scale": round(frame.scale, 4),
            "caption": sample.caption,
            "repeats": sample.repeats,
            "aesthetic_score": sample.aesthetic_score,
        }
        if sample.wording is not None:
            entry["written"] = sample.written
        if sample.loss_weight != 1.0:  # what has nothing of its own reads as it did before there was such a thing
            entry["loss_weight"] = sample.loss_weight
        if sample.mask is not None:
            mask = sample.mask
            entry["mask"] = {"name": mask.name, "sha256": mask.sha256, "weight_outside": mask.weight_outside}
        yield json.dumps(entry, ensure_ascii=False) + "\n"


def manifest_text(samples: Iterable[Sample], buckets: Iterable[Size]) -> str:
    """Return the manifest whole; `manifest_lines` is for sets too large for that."""
    return "".join(manifest_lines(samples, buckets))


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """Read a manifest's lines; sizes come back as [height, width]."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
