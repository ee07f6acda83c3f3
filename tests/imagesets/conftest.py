"""Property tests here are judged by what they find, not by how long a busy machine takes over one example."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from imagesets.opening.decoders import Decoders
from imagesets.opening.decoding_process import DecodingLimits

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def hostile_decoders() -> Iterator[Decoders]:
    """Decoding processes that some pictures end, hang or fill, as `hostile_child` says; their limits are small."""
    limits = DecodingLimits(memory_bytes=400 * 2**20, cpu_seconds=1.0, wall_seconds=60.0, max_pixels=4_000_000)
    with Decoders(limits, num_processes=2, module="tests.imagesets.opening.hostile_child") as decoders:
        yield decoders
