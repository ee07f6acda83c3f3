"""Tell model files apart without reading gigabytes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

HEADER_LIMIT_BYTES = 100_000_000
"""What safetensors itself allows a header to be."""

_SAMPLE_BYTES = 1 << 16


def fingerprint_files(root: Path, paths: Iterable[Path]) -> str:
    """Hash each file's name below `root`, size, safetensors header and a sample of its bytes.

    The sample is the last 64 KiB and 64 KiB from the middle: two fine-tunes of one model have the same header and
    size, and differ in nearly every weight.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}:{size}\n".encode())
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(header_size, HEADER_LIMIT_BYTES)))
            for offset in (size // 2, max(0, size - _SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
