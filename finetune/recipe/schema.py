"""The recipe: one experiment as plain, frozen data.

Every section is re-exported here, so this is the one place to import from.
A field's docstring is its help on the command line, its description in the JSON schema and its tooltip on the page.
"""

from typing import Annotated, Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.adapter import (
    Adapter,
    FullPart,
    FullTraining,
    LohaAdapter,
    LokrAdapter,
    LoraAdapter,
    SmallAdapter,
    TextLora,
    TextTargets,
    UNetLora,
    UNetTargets,
)
from finetune.recipe.base import Needs, PathText, RunName, Seed, Settings, Text
from finetune.recipe.buckets import Buckets, GeneratedBuckets, ListedBuckets, PaperBuckets, SymmetricBuckets
from finetune.recipe.cache import Cache, DiskCache, MemoryCache
from finetune.recipe.data import (
    Data,
    FolderSource,
    HuggingFaceSource,
    KohyaConfigSource,
    KohyaSource,
    Source,
    StreamBuffer,
    WebDatasetSource,
)
from finetune.recipe.mask import AlphaMask, FileMask, Mask
from finetune.recipe.model import FolderModel, HubModel, MiniatureModel, Model, SingleFileModel
from finetune.recipe.outputs import Checkpoint, Export, ExportFormat, NoTracking, TensorBoardTracking, Tracking
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner, Preview, PreviewPrompt, PreviewRefiner
from finetune.recipe.training import (
    AdafactorOptimizer,
    AdamW8bitOptimizer,
    AdamWOptimizer,
    AutoOptimizer,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    LogitNormalTimesteps,
    LrSchedule,
    Objective,
    Optimizer,
    PagedAdamW8bitOptimizer,
    PriorPreservation,
    ProdigyOptimizer,
    Timesteps,
    Training,
    UniformTimesteps,
    WeightAveraging,
)
from finetune.recipe.vae import VaeLoss, VaeTraining
from finetune.recipe.wording import Wording


class Recipe(Settings):
    """One experiment: what is trained, on what, how, and what comes out."""

    schema_version: Annotated[Literal[1], Needs("1, the only version so far")]
    """The version of the recipe's form; 1 is the only one so far."""
    name: RunName = ""
    """What the run and its files are called; empty takes the file's name without its ending."""
    purpose: Text = ""
    """What the recipe is for, in a sentence."""
    seed: Seed = 0
    """Every random draw follows from it: the same recipe and seed give the same numbers."""
    output_dir: PathText = "runs"
    """The folder in which the run's own folder is made; absolute, from `~`, or relative to the current directory."""
    model: Model
    """The SDXL model that is trained."""
    refiner: Model | None = None
    """The SDXL refiner used in previews; null previews the base alone."""
    data: Data
    """The pictures and how they become training samples."""
    adapter: Adapter = LoraAdapter()
    """What is trained: an adapter beside the model's weights, or the weights themselves."""
    training: Training = Training()
    """How long and how it is trained."""
    preview: Preview = Preview()
    """Pictures drawn at intervals while training."""
    cache: Cache = DiskCache()
    """Where the outputs of the VAE and of frozen text encoders are kept."""
    checkpoint: Checkpoint = Checkpoint()
    """When the whole state is saved."""
    export: Export = Export()
    """The files other programs load."""
    tracking: Tracking = NoTracking()
    """Where figures go besides the run folder."""

    @model_validator(mode="after")
    def _sections_suit_each_other(self) -> "Recipe":
        kind = self.adapter.kind
        if self.training.prior_preservation is not None and not isinstance(self.adapter, SmallAdapter):
            raise PydanticCustomError(
                "plain",
                f"training.prior_preservation: needs adapter.kind: lora, loha or lokr; with adapter.kind: {kind} the "
                "base's own weights change, and nothing is left to ask",
            )
        if kind in ("loha", "lokr") and "diffusers" in self.export.formats:
            raise PydanticCustomError(
                "plain",
                f"export.formats: needs kohya or peft with adapter.kind: {kind}; diffusers' format holds LoRA only",
            )
        masked = [index for index, source in enumerate(self.data.sources) if source.mask is not None]
        if masked and isinstance(self.adapter, VaeTraining):
            raise PydanticCustomError(
                "plain",
                f"data.sources.{masked[0]}.mask: needs null with adapter.kind: vae, which learns whole pictures",
            )
        return self


__all__ = [
    "AdafactorOptimizer",
    "AdamW8bitOptimizer",
    "AdamWOptimizer",
    "Adapter",
    "AlphaMask",
    "AutoOptimizer",
    "Buckets",
    "Cache",
    "Checkpoint",
    "ConstantSchedule",
    "CosineSchedule",
    "Data",
    "DiskCache",
    "EnsembleRefiner",
    "Export",
    "ExportFormat",
    "FileMask",
    "FolderModel",
    "FolderSource",
    "FullPart",
    "FullTraining",
    "GeneratedBuckets",
    "HubModel",
    "HuggingFaceSource",
    "ImageToImageRefiner",
    "KohyaConfigSource",
    "KohyaSource",
    "LinearSchedule",
    "ListedBuckets",
    "LogitNormalTimesteps",
    "LohaAdapter",
    "LokrAdapter",
    "LoraAdapter",
    "LrSchedule",
    "Mask",
    "MemoryCache",
    "MiniatureModel",
    "Model",
    "NoTracking",
    "Objective",
    "Optimizer",
    "PagedAdamW8bitOptimizer",
    "PaperBuckets",
    "Preview",
    "PreviewPrompt",
    "PreviewRefiner",
    "PriorPreservation",
    "ProdigyOptimizer",
    "Recipe",
    "SingleFileModel",
    "SmallAdapter",
    "Source",
    "StreamBuffer",
    "SymmetricBuckets",
    "TensorBoardTracking",
    "TextLora",
    "TextTargets",
    "Timesteps",
    "Tracking",
    "Training",
    "UNetLora",
    "UNetTargets",
    "UniformTimesteps",
    "VaeLoss",
    "VaeTraining",
    "WebDatasetSource",
    "WeightAveraging",
    "Wording",
]
