"""The weights of a model on the disk, one at a time: from a folder as diffusers saves it, or from one checkpoint file.

Whatever the file calls them, they are asked for by the model they belong to and by diffusers' (U-Net) or transformers'
(encoders) name; the encoders' always begin with `text_model.`, but for `text_projection`. No model is built and no file
is read whole. Headers are checked as those of strangers' files are. Nothing is fetched: a hub id means what lies in the
hub's cache.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from finetune.errors import AtelierError, RecipeError
from finetune.model.geometry import MINIATURE_FOLDER, read_json
from finetune.model.single_file_header import kind_of
from finetune.model.structure import read_structure
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.keys import UNetLayout, sgm_path
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER, ModelStructure
from finetune.tensors.header import Header, TensorEntry, read_header, shown
from finetune.tensors.reading import TensorFile

ParameterName = tuple[Component, str]

_STEMS: dict[Component, str] = {
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class WeightPlace:
    """Where a parameter of a model lies.

    Attributes:
        file: the safetensors file.
        tensor: the tensor's name in it.
        rows: which rows of the tensor it is; None for all of it. OpenCLIP keeps q, k and v in one.
        transposed: whether the file has it as (in, out).
    """

    file: Path
    tensor: str
    rows: tuple[int, int] | None = None
    transposed: bool = False

    def view(self, stored: Tensor) -> Tensor:
        """Return the parameter's numbers in the tensor they lie in, as a view that can be written to."""
        part = stored if self.rows is None else stored[self.rows[0] : self.rows[1]]
        return part.T if self.transposed else part

    def shape(self, stored: Sequence[int]) -> tuple[int, ...]:
        """Return the parameter's shape, from the tensor's."""
        rows = stored[0] if self.rows is None else self.rows[1] - self.rows[0]
        shape = (rows, *stored[1:])
        return shape[::-1] if self.transposed else shape


class ModelWeights:
    """The parameters of a U-Net and its text encoders, open for reading. Use it as a context.

    Attributes:
        path: the folder or the file.
        structure: the model's.
        places: where each parameter lies, by model and name.
        files: the headers of the files they lie in, by path.
    """

    def __init__(self, path: Path, structure: ModelStructure, places: Mapping[ParameterName, WeightPlace],
                 headers: Sequence[Header]) -> None:  # fmt: skip
        """Open what `open_weights` found.

        Raises:
            AtelierError: a weight is missing or of another shape than the structure says.
        """
        self.path, self.structure, self.places = path, structure, dict(places)
        self.files = {header.path: header for header in headers}
        for (component, module), shape in structure.weights.items():
            place = self.places.get((component, f"{module}.weight"))
            if place is None:
                raise AtelierError(f"{path}: the {component}'s {module}.weight is not in it")
            found = place.shape(self._entry(place).shape)
            if found != shape:
                raise AtelierError(f"{path}: the {component}'s {module}.weight is {found}, its model's is {shape}")
        with ExitStack() as stack:
            self._open = {header.path: stack.enter_context(TensorFile(header)) for header in headers}
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the weights."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._stack.close()

    def get(self, component: Component, module: str) -> Tensor:
        """Return the weight of a Linear or convolution in float32.

        Raises:
            AtelierError: a number in it is not finite.
        """
        return self.parameter(component, f"{module}.weight")

    def parameter(self, component: Component, name: str) -> Tensor:
        """Return any parameter in float32; errors as `get`'s."""
        place = self.places[component, name]
        return place.view(self._open[place.file].floats(place.tensor))

    def dtype(self, component: Component, module: str) -> str:
        """Return the kind of numbers that a Linear's or convolution's weight is kept in, as safetensors names it."""
        return self._entry(self.places[component, f"{module}.weight"]).dtype

    def opened(self, file: Path) -> TensorFile:
        """Return one of the files, open."""
        return self._open[file]

    def _entry(self, place: WeightPlace) -> TensorEntry:
        return self.files[place.file].entries[place.tensor]


def open_weights(model: str | Path, *, variant: str | None = None, config: Path | None = None) -> ModelWeights:
    """Open the weights of a model.

    Args:
        model: 'miniature' or 'miniature-refiner', the folder of a model as diffusers saves it, a `.safetensors`
            checkpoint in the original layout, or a hub id whose files are in the hub's cache.
        variant: which precision's files of a folder or hub model, such as 'fp16'; None for the plain ones.
        config: for a checkpoint of another shape than SDXL's, a folder with its configurations.

    Raises:
        RecipeError: there is no such model.
        AtelierError: a file cannot be trusted, or does not hold what its model has.
    """
    path = _find(str(model))
    if path.is_dir():
        return _open_folder(path, variant)
    if variant is not None:
        raise RecipeError(f"{path}: is one file; a variant is of a folder. Leave it out")
    return _open_checkpoint(path, config)


def _find(model: str) -> Path:
    if model in ("miniature", "miniature-refiner"):
        return MINIATURE_FOLDER / ("base" if model == "miniature" else "refiner")
    path = Path(model).expanduser()
    if path.exists() or not _HUB_ID.fullmatch(model):
        if not path.exists():
            raise RecipeError(
                f"{model} does not exist. Give a .safetensors checkpoint, a model's folder, a hub id, or miniature"
            )
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RecipeError(
            f"{model}: is neither a path nor in the hub's cache, and nothing is fetched here. Download it first, for "
            f"example with: hf download {model}"
        ) from error


def _open_folder(root: Path, variant: str | None) -> ModelWeights:
    structure = read_structure(root)
    places: dict[ParameterName, WeightPlace] = {}
    headers: list[Header] = []
    for component in COMPONENTS:
        if component == "text_encoder" and structure.text_encoder is None:
            continue
        for file in part_files(root / component, _STEMS[component], variant):
            header = read_header(file)
            headers.append(header)
            for tensor, entry in header.entries.items():
                if entry.dtype not in _FLOATS:
                    continue  # older encoders keep the numbers of their positions
                name = (component, _with_prefix(component, tensor))
                if name in places:
                    raise AtelierError(f"{root / component}: {shown(tensor)} is in two of its files")
                places[name] = WeightPlace(file, tensor)
    return ModelWeights(root, structure, places, headers)


def part_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """Return the safetensors files of a model's part: one, or the shards that its index names.

    Raises:
        RecipeError: there is none of this variant.
        AtelierError: the index names files elsewhere.
    """
    ending = f".{variant}" if variant else ""
    single = folder / f"{stem}{ending}.safetensors"
    if single.is_file():
        return [single]
    index = folder / f"{stem}.safetensors.index{ending}.json"
    if not index.is_file():
        there = sorted(path.name for path in folder.glob("*.safetensors")) if folder.is_dir() else []
        hint = f"There is {', '.join(there)}: see --variant" if there else "Only safetensors are read"
        raise RecipeError(f"{folder}: has no {single.name}. {hint}")
    names = shards_of(index)
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise AtelierError(f"{index}: names {shown(name)}, which is no safetensors file beside it")
    return [folder / name for name in names]


def shards_of(index: Path) -> list[str]:
    """Return the names of the files that an index of shards names. Raises AtelierError where it is none."""
    weight_map: Any = read_json(index)
    weight_map = weight_map.get("weight_map") if isinstance(weight_map, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise AtelierError(f"{index}: is no index of shards")
    return sorted(set(weight_map.values()))


def _with_prefix(component: Component, tensor: str) -> str:
    """Return an encoder's parameter with `text_model.`, which transformers left away from 5.6 on."""
    if component == "unet" or tensor.startswith(("text_model.", "text_projection.")):
        return tensor
    return f"text_model.{tensor}"


def _open_checkpoint(path: Path, config: Path | None) -> ModelWeights:
    header = read_header(path)
    if config is not None:
        structure = read_structure(config)
    else:
        structure = SDXL_BASE if kind_of(path, set(header.entries)) == "base" else SDXL_REFINER
    places = {name: place for name, place in original_places(path, structure) if place.tensor in header.entries}
    return ModelWeights(path, structure, places, [header])


def original_places(path: Path, structure: ModelStructure) -> Iterator[tuple[ParameterName, WeightPlace]]:
    """Yield where a checkpoint in the original layout keeps each parameter; a bias wherever there could be one."""
    prefix = f"conditioner.embedders.{0 if structure.text_encoder is None else 1}.model."
    for component, name in _parameters(structure):
        if component == "unet":
            tensor = f"model.diffusion_model.{_original_unet_name(name, structure.unet.layout)}"
            yield (component, name), WeightPlace(path, tensor)
        elif component == "text_encoder":
            yield (component, name), WeightPlace(path, f"conditioner.embedders.0.transformer.{name}")
        else:
            yield (component, name), _open_clip_place(path, prefix, name, structure.text_encoder_2.width)


def _parameters(structure: ModelStructure) -> Iterator[ParameterName]:
    """Yield the names of all parameters, from the modules that stand beside each normalisation and embedding."""
    for component, module in structure.weights:
        for place in _beside(component, module):
            yield component, f"{place}.weight"
            yield component, f"{place}.bias"
    yield "unet", "conv_norm_out.weight"
    yield "unet", "conv_norm_out.bias"
    encoders: list[Component] = ["text_encoder", "text_encoder_2"]
    for component in encoders[structure.text_encoder is None :]:
        yield component, "text_model.embeddings.token_embedding.weight"
        yield component, "text_model.embeddings.position_embedding.weight"
        yield component, "text_model.final_layer_norm.weight"
        yield component, "text_model.final_layer_norm.bias"


def _beside(component: Component, module: str) -> Iterator[str]:
    """Yield a module, and the normalisations that come with it."""
    yield module
    place, _, last = module.rpartition(".")
    if component != "unet":
        if module.endswith("mlp.fc1"):
            layer = place.removesuffix(".mlp")
            yield from (f"{layer}.layer_norm1", f"{layer}.layer_norm2")
    elif last == "conv1":
        yield from (f"{place}.norm1", f"{place}.norm2")
    elif last == "proj_in":
        yield f"{place}.norm"
    elif module.endswith("attn1.to_q"):
        block = place.removesuffix(".attn1")
        yield from (f"{block}.norm1", f"{block}.norm2", f"{block}.norm3")


def _original_unet_name(name: str, layout: UNetLayout) -> str:
    module, _, end = name.rpartition(".")
    place, _, last = module.rpartition(".")
    if module == "conv_norm_out":
        return f"out.0.{end}"
    if ".resnets." in module and last in ("norm1", "norm2"):  # before the convolution, with the activation between
        convolution = sgm_path(f"{place}.conv{last[-1]}", layout)
        return f"{convolution.rpartition('.')[0]}.0.{end}"
    return f"{sgm_path(module, layout)}.{end}"


# In a layer of OpenCLIP's transformer.
_OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}
_OPEN_CLIP_OUTER = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_LAYER = re.compile(r"text_model\.encoder\.layers\.(?P<layer>\d+)\.(?P<module>.+)\.(?P<end>weight|bias)")


def _open_clip_place(path: Path, prefix: str, name: str, width: int) -> WeightPlace:
    if name == "text_projection.weight":
        return WeightPlace(path, f"{prefix}text_projection", transposed=True)
    match = _LAYER.fullmatch(name)
    if match is None:
        return WeightPlace(path, prefix + _OPEN_CLIP_OUTER.get(name, name))
    block, module, end = f"{prefix}transformer.resblocks.{match['layer']}", match["module"], match["end"]
    if module in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        first = "qkv".index(module[-6]) * width
        return WeightPlace(path, f"{block}.attn.in_proj_{end}", rows=(first, first + width))
    return WeightPlace(path, f"{block}.{_OPEN_CLIP[module]}.{end}")
