"""What may be wrong with a set as a whole: buckets of one, batches that cannot fill, too few steps, duplicates."""

from collections.abc import Callable, Iterator, Sequence

from imagesets.inspection.buckets import BucketFacts
from imagesets.inspection.facts import SetFacts
from imagesets.inspection.findings import Finding, Item, count_of
from imagesets.inspection.rules_pictures import item_of


def _lonely(facts: SetFacts) -> Iterator[Finding]:
    lonely = [bucket for bucket in facts.buckets if bucket.pictures == 1]
    if not lonely or len(facts.pictures) == 1:
        return
    yield Finding(
        "bucket_of_one",
        "note",
        f"{count_of(len(lonely), 'bucket holds', 'buckets hold')} a single picture",
        "Crop it to the aspect of a fuller bucket, or add pictures of its shape: a size seen in one picture alone is "
        "learned from that picture alone",
        tuple(
            item_of(facts.pictures[bucket.samples[0]], f"alone in {bucket.size[0]} x {bucket.size[1]}")
            for bucket in lonely
        ),
    )


def _short_batches(facts: SetFacts) -> Iterator[Finding]:
    micro = facts.plan.micro_batch_size
    unfilled = [bucket for bucket in facts.buckets if bucket.cannot_fill]
    left_over = [bucket for bucket in facts.buckets if bucket.left_over and not bucket.cannot_fill]
    if unfilled:
        yield Finding(
            "bucket_cannot_fill",
            "warning",
            f"{count_of(len(unfilled), 'bucket has', 'buckets have')} too few pictures for one batch of {micro} "
            f"({count_of(sum(bucket.showings for bucket in unfilled), 'picture')} in short batches)",
            f"{_batch_advice(facts, unfilled)}. A short batch is trained as it is and weighs less; nothing is dropped",
            tuple(_bucket_item(bucket, micro) for bucket in unfilled),
        )
    if left_over:
        yield Finding(
            "short_last_batch",
            "note",
            f"{count_of(len(left_over), 'bucket does', 'buckets do')} not fill the last batch of {micro}",
            "Nothing need be done: a short batch is trained as it is and weighs less",
            tuple(_bucket_item(bucket, micro) for bucket in left_over),
        )


def _bucket_item(bucket: BucketFacts, micro: int) -> Item:
    missing = micro - bucket.left_over
    return Item(
        f"{bucket.size[0]} x {bucket.size[1]}",
        f"{count_of(bucket.showings, 'showing')} an epoch, the last batch has {bucket.left_over} of {micro}: "
        f"{count_of(missing, 'more picture', 'more pictures')} "
        f"{'fills' if missing == 1 else 'fill'} it, or {bucket.left_over} fewer",
    )


def _batch_advice(facts: SetFacts, unfilled: Sequence[BucketFacts]) -> str:
    """Say what fills every batch: a smaller batch, or more repeats where they are all of one source."""
    micro = facts.plan.micro_batch_size
    repeats = max(-(-micro // bucket.pictures) for bucket in unfilled)
    labels = {facts.report.samples[index].source for bucket in unfilled for index in bucket.samples}
    keys = [source.key for source in facts.plan.sources if source.label in labels]
    enough = min(bucket.showings for bucket in unfilled)
    smaller = f"training.micro_batch_size={enough} fits the smallest of them" + (", 1 fits all" if enough > 1 else "")
    return f"{smaller}; or {', '.join(f'{key}.repeats={repeats}' for key in keys)}; or fewer buckets"


def _small_set(facts: SetFacts) -> Iterator[Finding]:
    plan = facts.plan
    per_step = plan.micro_batch_size * plan.batches_per_step
    if not facts.pictures or facts.showings >= per_step or per_step == 1:
        return
    repeats = -(-per_step // facts.showings)
    keys = ", ".join(f"{source.key}.repeats={source.repeats * repeats}" for source in plan.sources)
    yield Finding(
        "set_below_step",
        "warning",
        f"An epoch shows {count_of(facts.showings, 'picture')}, and a step takes {per_step}: no step is ever full",
        f"Show each {repeats} times an epoch ({keys}), or take smaller steps: "
        f"training.global_batch_size={facts.showings} training.micro_batch_size=1",
    )


def _few_steps(facts: SetFacts) -> Iterator[Finding]:
    plan = facts.plan
    if plan.steps is not None and plan.steps < plan.steps_per_epoch:
        yield Finding(
            "steps_below_epoch",
            "warning",
            f"training.steps is {plan.steps}, but one epoch takes {plan.steps_per_epoch}: some pictures are never seen",
            f"training.steps={plan.steps_per_epoch} sees each once a repeat; or take fewer repeats, or larger steps",
        )


def _same(facts: SetFacts) -> Iterator[Finding]:
    if facts.same:
        yield Finding(
            "same_file",
            "warning",
            f"{count_of(sum(len(group) - 1 for group in facts.same), 'picture is', 'pictures are')} the same file as "
            "another, byte for byte",
            "Remove all but one of each, or it is learned more often than the others",
            tuple(
                item_of(facts.pictures[index], f"the same as {_named(facts, group[0])}")
                for group in facts.same
                for index in group[1:]
            ),
        )


def _near(facts: SetFacts) -> Iterator[Finding]:
    if facts.near:
        yield Finding(
            "nearly_same",
            "warning",
            f"{count_of(sum(len(group) - 1 for group in facts.near), 'picture looks', 'pictures look')} nearly like "
            "another: scaled, saved again, brightened, or taken a moment later",
            "Keep the best of each, usually the largest; what is seen several times is learned several times as much",
            tuple(
                item_of(facts.pictures[index], f"nearly {_named(facts, group[0])}")
                for group in facts.near
                for index in group[1:]
            ),
        )


def _named(facts: SetFacts, index: int) -> str:
    sample = facts.report.samples[index]
    several = len(facts.plan.sources) > 1
    size = f"{sample.original_size[0]} x {sample.original_size[1]}"
    return f"{sample.source}: {sample.name} ({size})" if several else f"{sample.name} ({size})"


def _settings(facts: SetFacts) -> Iterator[Finding]:
    settings = [note for note in facts.report.notes if note.kind == "setting"]
    if settings:
        yield Finding(
            "setting",
            "note",
            f"{count_of(len(settings), 'setting', 'settings')} of a file of sources "
            f"{'is' if len(settings) == 1 else 'are'} another way here",
            "Set what you want in the recipe",
            tuple(Item(note.name, note.text, note.source) for note in settings),
        )


def _passed_over(facts: SetFacts) -> Iterator[Finding]:
    strays = {(facts.plan.sources[stray.source].label, stray.name) for stray in facts.strays}
    others = [each for each in facts.report.passed_over if (each.source, each.name) not in strays]
    if others:
        yield Finding(
            "passed_over",
            "note",
            f"{count_of(len(others), 'other file was', 'other files were')} passed over",
            "Nothing, if none of them is a picture or a caption",
            tuple(Item(each.name, source=each.source) for each in others),
        )


def _beginning(facts: SetFacts) -> Iterator[Finding]:
    yield Finding(
        "beginning_of_stream",
        "note",
        f"Only the first {count_of(len(facts.pictures) + len(facts.report.bad), 'picture')} were looked at: a source "
        "is read as it comes",
        "To look at all of them, set streaming: false",
    )


SET_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (_same, _near, _settings, _passed_over)

EPOCH_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (_lonely, _short_batches, _small_set, _few_steps)
"""What can be said only of a set that is known whole."""

BEGINNING_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (_beginning,)
"""What is said instead where it is not."""
