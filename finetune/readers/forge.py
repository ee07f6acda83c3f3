"""Forge, which has ComfyUI's table of an earlier day.

Read in lllyasviel/stable-diffusion-webui-forge: packages_3rdparty/comfyui_lora_collection/lora.py and
backend/patcher/lora.py (at commit 00f1cd3), extensions-builtin/sd_forge_lora/networks.py (`load_lora_for_models`, at
b6cfd7f), network.py (`NetworkOnDisk.detect_version`), ui_extra_networks_lora.py (`create_item`).

Names, scale and DoRA are ComfyUI's. Up to twelve keys that it does not know are told in the console; with more it takes
nothing of the file. Its list hides files that their strings say are of another model; those that say nothing are shown.
"""

from finetune.readers.comfyui import DORA, SUFFIXES, comfyui_names, refuse_halves
from finetune.readers.contents import Contents
from finetune.readers.reading import (
    RIGHT,
    Limit,
    Reading,
    Rules,
    Verdict,
    dora_by_first_size,
    gap_of_refiner,
    scale_by_alpha,
    tally_by_name,
)

_OFT = Limit("OFT", "it does not apply OFT", "use a program that does")

_TOLERATED = 12
"""So many unknown keys Forge bears."""


def read_as_forge(contents: Contents) -> Reading:
    """Read a file as Forge does."""
    rules = Rules(
        reader="forge",
        title="Forge",
        names=comfyui_names(contents.names),
        suffixes=SUFFIXES,
        kinds=frozenset(("lora", "loha", "lokr", "glora", "full", "norm")),
        unknown="a line in its console says so",
        limits={"oft": _OFT},
        gap=lambda entry: gap_of_refiner(entry, contents),
    )
    tally = tally_by_name(contents, rules, lambda entry: scale_by_alpha(entry, contents))
    if len(tally.left) > _TOLERATED:
        tally.refuse(f"{len(tally.left)} keys are unknown to it, and more than {_TOLERATED} make it refuse the file")
    refuse_halves(tally, rules)
    tally.dora = dora_by_first_size(tally, DORA)
    tally.version = _version(contents)
    return tally.finish()


def _version(contents: Contents) -> Verdict:
    """Judge which version Forge takes a file for, by its strings."""
    metadata = contents.file.metadata
    architecture = metadata.get("modelspec.architecture", "")
    if metadata.get("modelspec.implementation") == "https://github.com/black-forest-labs/flux":
        architecture = "flux-1-dev/lora"
    if architecture == "stable-diffusion-xl-v1-base/lora":
        return RIGHT
    is_xl = metadata.get("ss_base_model_version", "").startswith("sdxl_")
    other = _OTHERS.get(architecture, "SD 2" if metadata.get("ss_v2") == "True" else "")
    if other and (architecture == "flux-1-dev/lora" or not is_xl):
        return Verdict("wrong", f"its strings say {other}, so it is hidden from the list for SDXL")
    return RIGHT


_OTHERS = {"flux-1-dev/lora": "Flux", "stable-diffusion-v1/lora": "SD 1"}
