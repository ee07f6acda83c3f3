"""Pictures rendered ahead of whoever uses them, in order: decoding goes on while a model is at work."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from imagesets.framing import Frame
from imagesets.pictures import Pixels
from imagesets.samples import Sample

_AHEAD = 2
"""Pictures that wait for each that is being rendered."""


def rendered_ahead(wanted: Iterable[tuple[Sample, Frame]]) -> Generator[Pixels, None, None]:
    """Yield each picture's pixels in its frame, (H, W, 3), in order; a bounded number is rendered ahead.

    Raises:
        PictureError: as `Sample.render`, when the turn of that picture comes.
    """
    waiting = iter(wanted)
    first = next(waiting, None)
    if first is None:
        return
    decoders = first[0].decoders
    num_threads = 1 if decoders is None else decoders.num_processes
    threads = ThreadPoolExecutor(num_threads)
    try:
        under_way: deque[Future[Pixels]] = deque([threads.submit(first[0].render, first[1])])
        while under_way:
            for sample, frame in islice(waiting, _AHEAD * num_threads + 1 - len(under_way)):
                under_way.append(threads.submit(sample.render, frame))
            yield under_way.popleft().result()
    except KeyboardInterrupt:
        if decoders is not None:
            decoders.stop()  # nobody waits for what is under way
        raise
    finally:
        threads.shutdown(cancel_futures=True)
