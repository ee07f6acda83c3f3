"""Write what was measured as Markdown, with its plots and pictures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.miniature.effects.check import FAMILIES, Effects
from finetune.miniature.effects.plots import save_grid, save_plot
from finetune.miniature.effects.rows import Row

NAME = "miniature.md"
PICTURES = Path("pictures") / "miniature"
BEGIN = "<!-- figures: written by `atelier miniature check`, not by hand -->"
END = "<!-- end of figures -->"

_HEAD = """# The miniature SDXL, measured

The miniature that ships with the kit is SDXL's base and refiner made small, trained from nothing on a world of shapes
in which every picture can be read by a program. So what SDXL's devices do can be counted here, with intervals, where
the real model leaves it to the eye. Its card, with how it was made, is `finetune/model/miniature/README.md`.

    pip install "atelier[miniature]"
    atelier miniature check --report docs      # writes the figures below: twenty minutes on two cores

All pictures are drawn by diffusers' own pipelines from the folders as they ship, Euler with 20 steps, guidance 5 unless
another is said.
Intervals are of 95 %: Wilson's for a rate, Agresti and Min's for a difference of paired rates, Student's for a mean.
"""


def write_report(folder: Path, effects: Effects, facts: Mapping[str, str]) -> Path:
    """Write `miniature.md` under a folder with its pictures; of an older one only what lies between the marks changes.

    Args:
        folder: where it goes, such as `docs`.
        effects: what was measured.
        facts: how and where, by name, for the head of the figures.

    Returns:
        The file that was written.
    """
    path = folder / NAME
    for findings in effects.found.values():
        for plot in findings.plots:
            save_plot(plot, folder / PICTURES / f"{plot.name}.png")
        for grid in findings.grids:
            save_grid(grid, folder / PICTURES / f"{grid.name}-pictures.png")
    before, after = _kept(path)
    figures = "\n".join([BEGIN, "", *_figures(effects, facts), END])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before.rstrip()}\n\n{figures}\n{after}", encoding="utf-8", newline="\n")
    return path


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a Markdown table."""
    lines = ["| effect | measured | 95 % interval | bar | holds | over |", "|---|---:|---:|---|---|---:|"]
    for row in rows:
        holds = {True: "yes", False: "**no**", None: ""}[row.holds]
        cells = (row.effect, row.measured_text, row.interval_text, row.bar, holds, str(row.count))
        lines.append("| " + " | ".join(cell.replace("<", "\\<").replace("|", "\\|") for cell in cells) + " |")
    return lines


def verdict(rows: Sequence[Row]) -> str:
    """Say how many rows reach their bars."""
    judged = [row.holds for row in rows if row.holds is not None]
    return f"{sum(judged)} of {len(judged)} rows that have a bar reach it."


def _figures(effects: Effects, facts: Mapping[str, str]) -> list[str]:
    lines = ["## Figures", "", verdict(effects.rows), ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", *table_lines(effects.rows), ""]
    for name, findings in effects.found.items():
        lines += [f"### {FAMILIES[name].title}", "", FAMILIES[name].method.replace("<", "\\<"), ""]
        for plot in findings.plots:
            lines += [f"![{plot.title}]({(PICTURES / plot.name).as_posix()}.png)", ""]
        for grid in findings.grids:
            lines += [f"{grid.title}:", "", f"![{grid.title}]({(PICTURES / grid.name).as_posix()}-pictures.png)", ""]
    return lines


def _kept(path: Path) -> tuple[str, str]:
    """Return what stands before and after the figures in an older report; a new one has only a heading."""
    if not path.is_file():
        return _HEAD, ""
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        return text, ""
    return text.partition(BEGIN)[0], text.partition(END)[2].lstrip("\n")
