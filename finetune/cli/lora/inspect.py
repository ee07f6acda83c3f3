"""`atelier lora inspect`: what a LoRA file holds, in a few lines."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.lora.making import add_model_argument, progress
from finetune.cli.output import format_bytes, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from finetune.loras.inspect import LoraInspection

_BAR_WIDTH = 30
_BESIDE_BARS = len("change (rms)") + 8  # the column of numbers, and the spaces between
_ROWS_OF_LAYERS = 6
_NAMED = 5
_LAYER = re.compile(r"(text_encoder(?:_2)?)\.layers\.(\d+)")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="show what a LoRA file holds",
        description="Show a LoRA's dialect and kind, its ranks, alphas and precision, how much it changes each block, "
        "its strongest, weakest and dead modules, numbers that are not finite, and what it says of itself. No model is "
        "opened, and nothing in the file is executed.",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a .safetensors file, or a folder of peft's or diffusers'"
    )
    add_model_argument(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at a file and tell what is in it."""
    from finetune.loras.inspect import inspect_lora, plain_inspection
    from finetune.readers.which_model import structure_for

    with progress("reading") as watch:
        inspection = inspect_lora(arguments.file, structure_for(arguments.model, arguments.file), watch)
    if arguments.json:
        print_json(plain_inspection(inspection))
    else:
        print_inspection(inspection)
    return 0


def print_inspection(inspection: "LoraInspection", console: "Console | None" = None) -> None:
    """Print everything a person wants to read on a terminal. What a file says goes in as plain text, on one line."""
    from rich.console import Console
    from rich.text import Text

    from finetune.loras.inspect import about, hints, plain_inspection

    console = console or Console(highlight=False)
    plain = plain_inspection(inspection)
    kinds = ", ".join(f"{count} {kind}" for kind, count in plain["kinds"].items())
    dora = f", {plain['dora_modules']} with DoRA" if plain["dora_modules"] else ""
    types = ", ".join(f"{count} {name}" for name, count in plain["types"].items())
    console.print(Text(one_line(inspection.path.name), style="bold"))
    facts = {
        "written as": plain["dialect"],
        "modules": kinds + dora,
        "tensors": f"{types}; {format_bytes(plain['bytes'])}",
        **about(inspection.metadata),
    }
    tables = [_facts(facts), _components(plain["components"]), _bars(merged_layers(plain["changes"]), console.width)]
    for table in (*tables, _named(plain)):
        _print_table(console, table)
    for hint in hints(inspection):
        console.print(Text(f"- {one_line(hint)}"), soft_wrap=True)  # commands stay whole, to be copied


def one_line(text: str, width: int = 200) -> str:
    """Return text from a file as it may be shown: nothing that moves the cursor, and of bearable length."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * width])
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def merged_layers(changes: Mapping[str, float]) -> dict[str, float]:
    """Return the same with layers of an encoder joined to a few rows, the largest change of each."""
    layers = {block: found for block in changes if (found := _LAYER.fullmatch(block))}
    count: dict[str, int] = {}
    for found in layers.values():
        count[found[1]] = max(count.get(found[1], 0), int(found[2]) + 1)
    rows: dict[str, float] = {}
    for block, change in changes.items():
        if block in layers:
            component, layer = layers[block][1], int(layers[block][2])
            step = -(-count[component] // _ROWS_OF_LAYERS)
            first = layer // step * step
            last = min(first + step, count[component]) - 1
            row = f"{component} {first}" + (f" to {last}" if last > first else "")
        else:
            row = block
        rows[row] = max(rows.get(row, 0.0), change)
    return rows


def _facts(facts: Mapping[str, str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for head, text in facts.items():
        grid.add_row(head, Text(one_line(text)))
    return grid


def _components(components: Mapping[str, Any]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in ("", "modules", "ranks", "alphas"):
        table.add_column(head, justify="left" if head in ("", "ranks", "alphas") else "right")
    for name, row in components.items():
        table.add_row(name, str(row["modules"]), _several(row["ranks"]), _several(row["alphas"]))
    return table


def _bars(changes: Mapping[str, float], width: int) -> "Table":
    """Draw how much each block changes, the root of the mean square; the longest bar is the largest change."""
    from rich.table import Table
    from rich.text import Text

    largest = max(changes.values(), default=0.0) or 1.0
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    longest = max(map(len, changes), default=0)
    bar_width = max(min(_BAR_WIDTH, width - longest - _BESIDE_BARS), 1)
    grid.add_row(Text("block", style="dim"), Text(""), Text("change (rms)", style="dim"))
    for block, change in changes.items():
        grid.add_row(block, Text("█" * round(bar_width * change / largest)), Text(f"{change:.2g}"))
    return grid


def _named(plain: Mapping[str, Any]) -> "Table":
    """Name the strongest and weakest modules, and those that change nothing or hold what is no number."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for title in ("strongest", "weakest"):
        for number, entry in enumerate(plain[title][:3]):
            grid.add_row("" if number else title, f"{entry['change']:.2g}", Text(entry["module"]))
    for title, names in (("dead", plain["dead"]), ("not finite", plain["not_finite"])):
        more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
        for number, name in enumerate([*names[:_NAMED], *more]):
            grid.add_row("" if number else title, "" if number else str(len(names)), Text(one_line(name)))
    return grid


def _print_table(console: "Console", table: "Table") -> None:
    """Print a table set in, and an empty line; nothing stands behind what its lines say."""
    from rich.padding import Padding

    with console.capture() as capture:
        console.print(Padding(table, (0, 0, 0, 2)))
    text = "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
    console.file.write(f"{text}\n\n")


def _several(counts: Mapping[str, int]) -> str:
    """Write values and how often they stand: '16', or '16 (700), 8 (22)'; 'none' for what is not there."""
    counts = {"none" if value == "None" else value: count for value, count in counts.items()}
    if len(counts) == 1:
        return next(iter(counts))
    shown = ", ".join(f"{value} ({count})" for value, count in list(counts.items())[:_NAMED])
    return shown + (", …" if len(counts) > _NAMED else "")
