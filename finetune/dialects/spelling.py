"""How each dialect spells the name of a module: one table, from which the way back is made. Without torch.

A naming is a function from (component, module, layout) to the words a file may have for it. Reading looks a word up in
the index of all words of all namings for one model, so nothing is taken apart by guessing, and a name that belongs to
no module is known to belong to none. Where the namings were read:

- kohya, original layout: kohya-ss/sd-scripts, `networks/lora.py` (`LoRANetwork.create_modules`) over its own SDXL
  U-Net, which has the original names.
- kohya, diffusers' layout: OneTrainer's "legacy" files (`modules/util/convert/lora/convert_lora_util.py`), kohya's own
  for SD 1, and LyCORIS over a diffusers U-Net (`lycoris/kohya.py`, `create_network_from_weights`).
- LyCORIS' wrapper, `lycoris_…`: `lycoris/wrapper.py` (`LORA_PREFIX`).
- original, dotted: ComfyUI, `comfy/lora.py` (`model_lora_keys_unet`, `model_lora_keys_clip`) and the files its
  nodes save.
- OMI: OneTrainer, `modules/util/convert/lora/convert_sdxl_lora.py` (`convert_sdxl_lora_key_sets`).
- diffusers, today's and old, the attention processors': diffusers, `utils/state_dict_utils.py`
  (`UNET_TO_DIFFUSERS`, `DIFFUSERS_OLD_TO_PEFT`, `KEYS_TO_ALWAYS_REPLACE`).
- peft: `utils/save_and_load.py` (`get_peft_model_state_dict`).
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from finetune.errors import AtelierError
from finetune.naming.components import Component
from finetune.naming.keys import UNetLayout, sgm_path
from finetune.naming.structure import ModelStructure

ModuleName = tuple[Component, str]
Spell = Callable[[Component, str, UNetLayout], Sequence[str]]

_SHORT: Mapping[Component, str] = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2"}
_CLIP: Mapping[Component, str] = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_PROCESSOR = {"to_q": "to_q_lora", "to_k": "to_k_lora", "to_v": "to_v_lora", "to_out.0": "to_out_lora"}
_TEXT_PROCESSOR = {"q_proj": "to_q_lora", "k_proj": "to_k_lora", "v_proj": "to_v_lora", "out_proj": "to_out_lora"}


@dataclass(frozen=True)
class Naming:
    """A way to spell modules.

    Attributes:
        title: what people call it.
        parts: the tables of `finetune.dialects.parts` that its files may use, by name.
        spell: the words for a module; none where it has none.
    """

    title: str
    parts: frozenset[str]
    spell: Spell


def _bare(module: str) -> str:
    """Return an encoder's path as transformers 5.6 and later have it."""
    return module.removeprefix("text_model.")


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _original(module: str, layout: UNetLayout) -> str | None:
    try:
        return sgm_path(module, layout)
    except AtelierError:
        return None


def _kohya(component: Component, module: str, layout: UNetLayout) -> Sequence[str]:
    if component != "unet":
        return [f"lora_{_SHORT[component]}_{_flat(path)}" for path in _text_paths(module)]
    path = _original(module, layout)
    return [] if path is None else [f"lora_unet_{_flat(path)}"]


def _kohya_diffusers(component: Component, module: str, _: UNetLayout) -> Sequence[str]:
    return [f"lora_unet_{_flat(module)}"] if component == "unet" else []


def _lycoris(component: Component, module: str, layout: UNetLayout) -> Sequence[str]:
    if component != "unet":
        return []
    path = _original(module, layout)
    return [f"lycoris_{_flat(module)}", *([] if path is None else [f"lycoris_{_flat(path)}"])]


def _dotted_original(component: Component, module: str, layout: UNetLayout) -> Sequence[str]:
    if component != "unet":
        clip = _CLIP[component]
        return [f"text_encoders.{clip}.transformer.{module}", f"{clip}.transformer.{module}"]
    path = _original(module, layout)
    return [] if path is None else [f"diffusion_model.{path}", f"model.diffusion_model.{path}"]


def _omi(component: Component, module: str, layout: UNetLayout) -> Sequence[str]:
    if component != "unet":
        return [f"{_CLIP[component]}.{module}", f"lora_{_SHORT[component]}.{module}"]
    path = _original(module, layout)
    return [f"lora_unet.{module}", *([] if path is None else [f"unet.{path}"])]


def _diffusers(component: Component, module: str, _: UNetLayout) -> Sequence[str]:
    return [f"{component}.{path}" for path in ([module] if component == "unet" else _text_paths(module))]


def _processors(component: Component, module: str, _: UNetLayout) -> Sequence[str]:
    """Return the words of diffusers up to 0.21, which hung LoRA into the attention's processor."""
    for name, word in (_PROCESSOR if component == "unet" else _TEXT_PROCESSOR).items():
        if module.endswith(f".{name}"):
            place = module.removesuffix(f".{name}")
            if component != "unet":
                return [f"{component}.{path}.{word}" for path in _text_paths(place)]
            return [f"{front}{place}{middle}.{word}" for front in ("unet.", "") for middle in (".processor", "")]
    return []


def _bare_paths(component: Component, module: str, _: UNetLayout) -> Sequence[str]:
    paths = [module] if component == "unet" else _text_paths(module)
    return [f"{front}{path}" for front in ("base_model.model.", "") for path in paths]


def _text_paths(module: str) -> Sequence[str]:
    """Return both names of an encoder's module, with `text_model.` in front and without."""
    return [module] if _bare(module) == module else [module, _bare(module)]


_DOTTED = frozenset({"kohya", "peft", "diffusers-old", "lycoris"})
_FLAT = frozenset({"kohya", "lycoris"})

NAMINGS: Mapping[str, Naming] = {
    "kohya": Naming("kohya, original layout", _FLAT, _kohya),
    "kohya-diffusers": Naming("kohya, diffusers' layout", _FLAT, _kohya_diffusers),
    "lycoris": Naming("LyCORIS' wrapper", _FLAT, _lycoris),
    "comfyui": Naming("original layout with dots (ComfyUI)", _DOTTED, _dotted_original),
    "omi": Naming("OneTrainer (OMI)", _DOTTED, _omi),
    "diffusers": Naming("diffusers", _DOTTED, _diffusers),
    "diffusers-processors": Naming("diffusers' attention processors", frozenset({"processor"}), _processors),
    "peft": Naming("peft", _DOTTED, _bare_paths),
}
"""The ways modules are spelled, by name."""


@dataclass(frozen=True)
class Spelled:
    """What a word stands for.

    Attributes:
        naming: whose word it is, a name in NAMINGS.
        modules: which module; two where the word does not say which encoder.
    """

    naming: str
    modules: tuple[ModuleName, ...]


@lru_cache(maxsize=8)
def spellings(structure: ModelStructure) -> Mapping[str, Spelled]:
    """Return the index of every word of every naming for one model's modules."""
    index: dict[str, Spelled] = {}
    for naming, word, module in _all_words(structure):
        known = index.get(word)
        if known is None:
            index[word] = Spelled(naming, (module,))
        elif module not in known.modules:
            assert naming == known.naming == "peft", f"{word} is a word of {known.naming} and of {naming}"
            index[word] = Spelled(naming, (*known.modules, module))
    return index


def _all_words(structure: ModelStructure) -> Iterator[tuple[str, str, ModuleName]]:
    layout = structure.unet.layout
    for component, module in structure.weights:
        for name, naming in NAMINGS.items():
            for word in naming.spell(component, module, layout):
                yield name, word, (component, module)


def nearest_spelling(word: str, structure: ModelStructure) -> str | None:
    """Return the known word that is most like one that is not, or None where nothing is."""
    index = spellings(structure)
    # Words that begin alike first: comparing one with all of them takes a second.
    near = [known for known in index if known[:12] == word[:12]] or [known for known in index if known[:4] == word[:4]]
    found = difflib.get_close_matches(word[:200], near[:4000], n=1, cutoff=0.5)
    return found[0] if found else None
