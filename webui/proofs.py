"""The proof of an exported file as the page shows it: a table of programs, and remarks. No Gradio, no torch."""

from pathlib import Path

from finetune.naming.components import COMPONENTS, Component
from finetune.readers.proof import Proof, prove
from finetune.readers.reading import Reading, Verdict
from finetune.readers.which_model import fitting_structure
from webui.words import as_text

_PARTS: dict[Component, str] = {"unet": "U-Net", "text_encoder": "Encoder 1", "text_encoder_2": "Encoder 2"}
_STATES = {"whole": "whole", "limited": "with limits", "partial": "in part", "refused": "not at all"}
_VERDICTS = {"right": "right", "wrong": "wrong", "limit": "not as trained", "absent": "-"}


def proof_of(path: Path) -> Proof | None:
    """Return what other programs make of a LoRA's weights; None for a part of a whole model.

    Args:
        path: a `.safetensors` file; one of peft's is proved with its folder.

    Raises:
        AtelierError: the file cannot be trusted.
    """
    place = _place(path)
    return None if place is None else prove(place, fitting_structure(place))


def proof_table(proof: Proof) -> str:
    """Return a table of the programs the file is meant for, and the others below, with what they leave."""
    parts = [part for part in COMPONENTS if part in proof.contents.totals]
    heads = ["Program", *(_PARTS[part] for part in parts), "Scale", "DoRA", "Version", "Reads it"]
    head = "".join(f'<th scope="col">{as_text(name)}</th>' for name in heads)
    rows = "".join(_row(proof.readings[name], parts) for name in proof.meant_for)
    inner = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    label = "What other programs make of the file"
    table = f'<div class="table-scroll" tabindex="0" role="region" aria-label="{label}">'
    table += f'<table class="proof">{inner}</table></div>'
    said = [f"<li>{as_text(line)}</li>" for line in proof.remarks()]
    return table + (f'<ul class="remarks">{"".join(said)}</ul>' if said else "")


def _place(path: Path) -> Path | None:
    """Return what is proved: the file, or the folder of peft's that it belongs to."""
    if (path.parents[1] / "model_index.json").exists():
        return None
    if not (path.parent / "adapter_config.json").exists():
        return path
    return path.parents[1] if path.parent.name in COMPONENTS else path.parent


def _row(reading: Reading, parts: list[Component]) -> str:
    counts = [reading.counts.get(part) for part in parts]
    cells = [
        *("-" if count is None else f"{count.taken} of {count.total}" for count in counts),
        *(_word(verdict) for verdict in (reading.scale, reading.dora, reading.version)),
    ]
    inner = "".join(f"<td>{as_text(cell)}</td>" for cell in cells)
    state = f'<td class="{as_text(reading.state)}">{as_text(_STATES[reading.state])}</td>'
    return f'<tr><th scope="row">{as_text(reading.title)}</th>{inner}{state}</tr>'


def _word(verdict: Verdict) -> str:
    return _VERDICTS[verdict.state]
