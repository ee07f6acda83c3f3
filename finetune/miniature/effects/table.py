"""The table on a terminal."""

from collections.abc import Sequence

from rich.table import Table

from finetune.miniature.effects.rows import Row

_MARKS = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}


def as_table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table for rich, a section a family."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("holds", no_wrap=True)
    table.add_column("effect", ratio=1, min_width=24)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("bar")
    before = ""
    for row in rows:
        if row.family != before:
            table.add_row("", f"[dim]{row.family}[/dim]")
            before = row.family
        table.add_row(_MARKS[row.holds], row.effect, row.measured_text, row.interval_text, row.bar)
    return table
