"""The decoding process of `hostile_child` on a system that keeps no limit of memory."""

from imagesets.opening import decoding_child
from tests.imagesets.opening import hostile_child


def main(memory_bytes: int, cpu_seconds: float) -> None:
    decoding_child._limit_memory = lambda _: False
    hostile_child.main(memory_bytes, cpu_seconds)
