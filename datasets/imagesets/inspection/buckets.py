"""How the pictures fall into buckets and the buckets into batches, with the numbers that would fill what is short."""

from collections.abc import Sequence
from dataclasses import dataclass

from imagesets.framing import Size
from imagesets.inspection.plan import TrainingPlan


@dataclass(frozen=True)
class BucketFacts:
    """One bucket and what is in it.

    Attributes:
        size: (height, width).
        pictures: how many.
        showings: how often pictures of it are seen in an epoch: with repeats.
        batches: micro batches of it in an epoch.
        left_over: pictures in its last batch where that is short; 0 where all are full.
        samples: their indices.
    """

    size: Size
    pictures: int
    showings: int
    batches: int
    left_over: int
    samples: tuple[int, ...]

    @property
    def cannot_fill(self) -> bool:
        """Whether it has too few showings for even one full batch."""
        return self.batches == 1 and self.left_over > 0


def gather_buckets(
    plan: TrainingPlan, repeats: Sequence[int], *, is_beginning: bool = False
) -> tuple[BucketFacts, ...]:
    """Return the facts of every bucket in use, by size.

    Args:
        plan: what training will do.
        repeats: of each sample, by index.
        is_beginning: whether more pictures come, so that no last batch is known.
    """
    members: dict[Size, list[int]] = {}
    for index, size in enumerate(plan.buckets):
        members.setdefault(size, []).append(index)
    facts = []
    for size, samples in sorted(members.items()):
        showings = sum(repeats[index] for index in samples)
        full, left_over = divmod(showings, plan.micro_batch_size)
        left_over = 0 if is_beginning else left_over
        facts.append(BucketFacts(size, len(samples), showings, full + (left_over > 0), left_over, tuple(samples)))
    return tuple(facts)
