"""The beginning that a run and encoding ahead share: the models found, the prompts, what is encoded beforehand."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator

from finetune.cache.opened import open_cache
from finetune.cache.place import run_folder
from finetune.model.files import ModelFiles
from finetune.model.open import open_model
from finetune.model.precision import choose_dtype
from finetune.preview.requests import PictureRequest, resolve_requests
from finetune.recipe import Recipe
from finetune.training.components import open_trained_model
from finetune.training.encode_plan import Encoding, Warn, plan_encoding
from finetune.training.pictures import Pictures
from finetune.training.stops import require_fitting_buckets


@dataclass(frozen=True)
class DenoisingPlan:
    """What is known before a model is loaded.

    Attributes:
        files: the trained model.
        refiner_files: the previews' refiner; None without one.
        requests: the previews' pictures.
        dtype: the precision of frozen weights and of the arithmetic.
        encoding: what is encoded once, before the first step.
    """

    files: ModelFiles
    refiner_files: ModelFiles | None
    requests: list[PictureRequest]
    dtype: torch.dtype
    encoding: Encoding


def plan_denoising(recipe: Recipe, pictures: Pictures, accelerator: Accelerator, warn: Warn) -> DenoisingPlan:
    """Find the models, and what has to be encoded with them; write down in the cache that it is wanted.

    Raises:
        AtelierError: a model cannot be opened, buckets or prompts do not fit it, or the cache cannot be used.
    """
    dtype = choose_dtype(recipe.training.precision, accelerator.device)
    files = open_trained_model(recipe)
    refiner_files = None if recipe.refiner is None else open_model(recipe.refiner, refiner=True)
    geometry = files.geometry()
    require_fitting_buckets(pictures.used_buckets(), geometry.size_multiple)
    requests = resolve_requests(recipe.preview.prompts, geometry)
    cache = open_cache(recipe, warn)
    encoding = plan_encoding(recipe, pictures, files, refiner_files, requests, cache, dtype, accelerator, warn)
    encoding.record(run_folder(recipe), accelerator)
    return DenoisingPlan(files, refiner_files, requests, dtype, encoding)
