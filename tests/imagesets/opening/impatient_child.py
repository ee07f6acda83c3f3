"""A decoding process that has nothing to do for long after half a second."""

from imagesets.opening import decoding_child


def main(memory_bytes: int, cpu_seconds: float) -> None:
    decoding_child.IDLE_SECONDS = 0.5
    decoding_child.main(memory_bytes, cpu_seconds)
