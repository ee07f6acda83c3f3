"""LoRAs by file or by a run's step: read, and put into the models they belong to, several beside each other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from finetune.adapters.lora import apply_lora, loras_scaled, remove_loras
from finetune.adapters.trained import trained_modules
from finetune.adapters.weights import AdaptedModule
from finetune.dialects.lora_file import read_lora
from finetune.drawing.messages import LoraFile, LoraOfRun
from finetune.drawing.places import find_lora, lora_files, lora_name
from finetune.errors import RecipeError
from finetune.model.text import TextStack
from finetune.naming.components import COMPONENTS
from finetune.naming.structure import ModelStructure
from finetune.recipe import load_recipe
from finetune.recipe.schema import SmallAdapter
from finetune.run.folder import RunFolder
from finetune.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class LoraIdentity:
    """Which weights a LoRA has: the same path may hold others later.

    Attributes:
        path: the file, peft's folder, or the checkpoint's folder.
        step: the run's step, of a run's LoRA.
        name: as pictures say it.
        mark: when the weights were written, and how many bytes.
    """

    path: Path
    step: int | None
    name: str
    mark: tuple[int, int]


def identify(lora: LoraFile | LoraOfRun) -> LoraIdentity:
    """Return which weights are meant. Raises RecipeError where there are none."""
    path, step = find_lora(lora)
    files = lora_files(path) if step is None else [path / "manifest.json" if path.is_dir() else path]
    states = [file.stat() for file in files]
    mark = (max(state.st_mtime_ns for state in states), sum(state.st_size for state in states))
    return LoraIdentity(path, step, lora_name(lora, step), mark)


def read_modules(identity: LoraIdentity, structure: ModelStructure) -> Sequence[AdaptedModule]:
    """Return a LoRA in the neutral form.

    Raises:
        AtelierError: the file or the checkpoint cannot be read or trusted.
    """
    if identity.step is None or not identity.path.is_dir():
        return read_lora(identity.path, structure)
    run = RunFolder(identity.path.parents[1])
    adapter = load_recipe(str(run.recipe)).adapter
    assert isinstance(adapter, SmallAdapter), "only these have a LoRA"
    return trained_modules(load_checkpoint(identity.path).exported, adapter)


def loras_shown(identities: Sequence[LoraIdentity], strengths: Sequence[float]) -> list[dict[str, Any]]:
    """Return what a picture says of the LoRAs it was drawn with: names and strengths, no paths."""
    return [{"lora": identity.name, "strength": strength}
            for identity, strength in zip(identities, strengths, strict=True)]  # fmt: skip


class LoraRack:
    """The LoRAs that are in a model's parts now, in the order they were asked for.

    Attributes:
        adapted: the parts that have one.
    """

    def __init__(self, unet: nn.Module, stack: TextStack, structure: ModelStructure) -> None:
        """Begin with none in `unet` and the encoders of `stack`, which are of `structure`."""
        self._models = {"unet": unet, "text_encoder": stack.text_encoder, "text_encoder_2": stack.text_encoder_2}
        self._structure = structure
        self._identities: tuple[LoraIdentity, ...] = ()
        self.adapted: list[nn.Module] = []

    def hang(self, identities: Sequence[LoraIdentity]) -> None:
        """Put these LoRAs into the models, and take others out; the same ones stay as they are.

        Raises:
            AtelierError: one cannot be read, or was made for another model. None is in the models then.
        """
        if tuple(identities) == self._identities:
            return
        self.clear()
        try:
            for index, identity in enumerate(identities):
                self._attach(identity, f"lora_{index}")
        except BaseException:
            self.clear()
            raise
        self._identities = tuple(identities)

    def clear(self) -> None:
        """Take every LoRA out of the models."""
        for model in self.adapted:
            remove_loras(model)
        self._identities, self.adapted = (), []

    @contextmanager
    def scaled(self, strengths: Sequence[float]) -> Iterator[None]:
        """Multiply each LoRA's change by its strength inside the block; one of strength 0 is as not there."""
        named: Mapping[str, float] = {f"lora_{index}": strength for index, strength in enumerate(strengths)}
        with loras_scaled(self.adapted, named):
            yield

    def _attach(self, identity: LoraIdentity, name: str) -> None:
        modules = read_modules(identity, self._structure)
        for component in COMPONENTS:
            own = [module for module in modules if module.component == component]
            model = self._models[component]
            if not own:
                continue
            if model is None:
                raise RecipeError(f"{identity.path} changes the {component}, which this model does not have")
            try:
                apply_lora(model, component, own, name)
            except ValueError as error:
                raise RecipeError(f"{identity.path} does not fit: {error}") from error
            if model not in self.adapted:
                self.adapted.append(model)
