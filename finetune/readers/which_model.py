"""Which model a LoRA file is for, where nobody says so: the one that most of its shapes fit. Torch is not needed."""

from pathlib import Path

from finetune.model.structure import MODEL_WORDS, named_structure
from finetune.naming.structure import ModelStructure
from finetune.readers.adapter_file import AdapterFile, read_adapter_file
from finetune.readers.contents import sort_contents
from finetune.readers.names import names_of
from finetune.tensors.header import read_header

AUTO = "auto"
"""The word for a model that is to be found out."""


def structure_for(word: str, path: Path) -> ModelStructure:
    """Return the structure of the model that a file is for.

    Args:
        word: what `named_structure` takes, or 'auto': SDXL's base wherever no other known model fits better.
        path: the file, or a folder of peft's.

    Raises:
        RecipeError: the word is no model's.
        AtelierError: there is no such file, or it cannot be trusted.
    """
    return fitting_structure(path) if word == AUTO else named_structure(word)


def fitting_structure(path: Path) -> ModelStructure:
    """Return the known model that most of a file's modules fit in; the first of `MODEL_WORDS` where several do.

    Raises:
        AtelierError: there is no such file, or it cannot be trusted.
    """
    file = read_adapter_file(path) if path.is_dir() else _names_alone(path)
    found, most = named_structure(MODEL_WORDS[0]), -1
    for word in MODEL_WORDS:
        structure = named_structure(word)
        entries = sort_contents(file, names_of(structure)).entries
        fitting = sum(entry.module is not None and not entry.misfit for entry in entries)
        if fitting > most:
            found, most = structure, fitting
        if fitting == len(entries):
            break
    return found


def _names_alone(path: Path) -> AdapterFile:
    """Return what a header says: numbers that are not finite are not this module's matter."""
    header = read_header(path)
    return AdapterFile(path, {name: entry.shape for name, entry in header.entries.items()}, metadata=header.metadata)
