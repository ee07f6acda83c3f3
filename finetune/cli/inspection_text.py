"""An inspection on the terminal: the set in a few lines, buckets, every picture of a small set, then what is wrong.

Names and captions go in as plain text, never as markup.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from imagesets.inspection.findings import SEVERITIES, Finding, Severity, count_of
from imagesets.inspection.rules_pictures import MAX_CUT_FRACTION, MAX_SCALE, turn_in_words

if TYPE_CHECKING:
    from imagesets.inspection import InspectedPicture, Inspection

_PICTURES_SHOWN = 40
_BUCKETS_SHOWN = 24
_ITEMS_SHOWN = 5
_TAGS_SHOWN = 8
_BAR_WIDTH = 24
_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def print_inspection(inspection: "Inspection", console: Console | None = None) -> None:
    """Print everything a person wants to read on a terminal; the page and JSON hold the rest."""
    console = console or Console(highlight=False)
    console.print(Text(inspection.name, style="bold"))
    console.print(_indented(_set_lines(inspection)))
    if inspection.facts.buckets:
        console.print()
        console.print(_indented(_bucket_table(inspection)))
    if 0 < len(inspection.facts.pictures) <= _PICTURES_SHOWN:
        console.print()
        console.print(_indented(_picture_table(inspection)))
    for finding in inspection.findings:
        console.print()
        console.print(_finding(finding))
    console.print()
    console.print(Text(_verdict(inspection)))


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2))


def _set_lines(inspection: "Inspection") -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for head, text in _set_facts(inspection):
        grid.add_row(head, Text(text))
    return grid


def _set_facts(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    facts, plan = inspection.facts, inspection.facts.plan
    ignored = f", {count_of(len(facts.report.ignored), 'other file')}" if facts.report.ignored else ""
    yield "pictures", f"{len(facts.pictures):,} usable, {len(facts.report.bad):,} not{ignored}"
    if not facts.pictures:
        return
    per_step = plan.micro_batch_size * plan.batches_per_step
    run = ""
    if plan.steps is not None:
        run = f"; {count_of(plan.steps, 'step')} are {plan.steps / plan.steps_per_epoch:.1f} epochs"
    batches = f" in batches of {plan.micro_batch_size}" if plan.micro_batch_size != per_step else ""
    if not facts.report.is_beginning:
        steps = count_of(plan.steps_per_epoch, "step")
        yield "epoch", f"{count_of(facts.showings, 'showing')}, {steps} of {per_step}{batches}{run}"
    sides = [side for picture in facts.pictures for side in picture.frame.original_size]
    scales = [picture.scale for picture in facts.pictures]
    yield "sizes", f"sides of {min(sides)} to {max(sides)} px, scaled by {min(scales):.2f} to {max(scales):.2f}"
    captions = facts.captions
    without = len(captions.missing) + len(captions.empty)
    lacking = f", {count_of(without, 'picture')} without" if without else ""
    yield "captions", f"{captions.distinct:,} different{lacking}"
    if any(picture.tokens for picture in facts.pictures):
        counts = [picture.num_tokens for picture in facts.pictures]
        span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(max(counts))
        yield "tokens", f"{span} of {plan.max_tokens}, by {inspection.token_source}"
    for trigger in captions.triggers:
        yield (
            "trigger",
            f"{trigger.trigger}: in {trigger.with_trigger} of {trigger.pictures} captions of {trigger.source}",
        )
    tags = ", ".join(f"{tag} {count}" for tag, count in captions.tags[:_TAGS_SHOWN] if count > 1)
    if tags and captions.num_tags > captions.distinct:
        yield "tags", f"{captions.num_tags:,} different, {captions.single_tags:,} of them once. Most: {tags}"


def _bucket_table(inspection: "Inspection") -> RenderableType:
    facts = inspection.facts
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(style="dim", no_wrap=True)
    table.add_row(Text("bucket", style="dim"), Text("pictures", style="dim"), "", "")
    largest = max(bucket.pictures for bucket in facts.buckets)
    micro = facts.plan.micro_batch_size
    shown = facts.buckets
    if len(shown) > _BUCKETS_SHOWN:
        shown = tuple(sorted(shown, key=lambda bucket: (-bucket.pictures, bucket.size))[:_BUCKETS_SHOWN])
    for bucket in shown:
        short = f"last batch {bucket.left_over} of {micro}" if bucket.left_over else ""
        table.add_row(
            f"{bucket.size[0]} x {bucket.size[1]}",
            f"{bucket.pictures:,}",
            "█" * max(1, round(_BAR_WIDTH * bucket.pictures / largest)),
            short,
        )
    if len(facts.buckets) > len(shown):
        return Group(table, Text(f"… and {len(facts.buckets) - len(shown)} smaller ones", style="dim"))
    return table


def _picture_table(inspection: "Inspection") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("picture", overflow="ellipsis", no_wrap=True, ratio=1)
    for head in ("size", "bucket", "scale", "cut", "tokens"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for picture in inspection.facts.pictures:
        table.add_row(*_picture_row(inspection, picture))
    return table


def _picture_row(inspection: "Inspection", picture: "InspectedPicture") -> tuple[Text, ...]:
    height, width = picture.frame.original_size
    marks = [
        turn_in_words(picture.sample.facts.orientation) and "turned",
        "alpha" if picture.sample.facts.has_alpha else "",
        "mask" if picture.sample.mask is not None else "",
        picture.sample.facts.mode if picture.sample.facts.mode not in ("RGB", "RGBA") else "",
        "same" if any(picture.index in group for group in inspection.facts.same) else "",
        "near" if any(picture.index in group for group in inspection.facts.near) else "",
    ]
    return (
        Text(inspection.facts.report.called(picture.sample.source, picture.sample.name)),
        Text(f"{height} x {width}"),
        Text("{} x {}".format(*picture.frame.target_size)),
        Text(f"{picture.scale:.2f}", style="yellow" if picture.scale > MAX_SCALE else ""),
        Text(f"{picture.cut_fraction:.0%}", style="yellow" if picture.cut_fraction > MAX_CUT_FRACTION else ""),
        Text(str(picture.num_tokens) if picture.tokens else "-", style="yellow" if picture.beyond else ""),
        Text(" ".join(filter(None, marks)), style="dim"),
    )


def _finding(finding: Finding) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, width=max(map(len, SEVERITIES)))
    grid.add_column(overflow="fold")
    grid.add_row(Text(finding.severity, style=_STYLES[finding.severity]), Text(finding.text, style="bold"))
    grid.add_row("", Text(finding.advice))
    items = Table.grid(padding=(0, 2))
    items.add_column(overflow="fold", style="cyan")
    items.add_column(overflow="fold")
    for item in finding.items[:_ITEMS_SHOWN]:
        items.add_row(Text(item.shown), Text(item.text))
    if finding.items:
        grid.add_row("", Padding(items, (0, 0, 0, 2)))
    if len(finding.items) > _ITEMS_SHOWN:
        more = f"  … and {len(finding.items) - _ITEMS_SHOWN:,} more (--html or --json has all)"
        grid.add_row("", Text(more, style="dim"))
    return grid


def _verdict(inspection: "Inspection") -> str:
    counts = [
        count_of(sum(finding.severity == severity for finding in inspection.findings), severity)
        for severity in SEVERITIES
    ]
    if not inspection.findings:
        return "Nothing is wrong with these pictures."
    return f"{', '.join(counts)}."
