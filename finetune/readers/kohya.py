"""kohya's sd-scripts.

Read in kohya-ss/sd-scripts: networks/lora.py (`create_network_from_weights`, `LoRANetwork`, at commit 02298e3),
networks/network_base.py, networks/loha.py and networks/lokr.py (2026), library/sdxl_original_unet.py.

Modules are made for what the file names, inside `Transformer2DModel`, `ResnetBlock2D`, `Downsample2D` and
`Upsample2D` of its own U-Net, which is the original layout, and inside the attentions and feed-forward parts of the
encoders: so the first and last convolutions and the embeddings of time and size have no LoRA there, and diffusers'
names none at all. A key nobody asked for is told as unexpected where a network is loaded, and not at all where it is
merged. LoHa and LoKr need `--network_module networks.loha` or `networks.lokr`, or LyCORIS's own.

The scale is alpha / rank, 1 without alpha, and also for an alpha of 0. DoRA is not known: the magnitudes are left.
"""

from collections.abc import Mapping
from functools import lru_cache

from finetune.naming.components import Component
from finetune.naming.structure import SDXL_BASE
from finetune.readers.contents import Contents, Entry
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.parts import LOHA_SUFFIXES, LOKR_SUFFIXES
from finetune.readers.reading import RIGHT, Limit, Reading, Rules, Verdict, scale_by_alpha, tally_by_name

_SUFFIXES = frozenset([".lora_up.weight", ".lora_down.weight", ".alpha", *LOHA_SUFFIXES, *LOKR_SUFFIXES])

# The first parts of modules outside the classes that it puts LoRA into.
_OUTSIDE = ("time_embed.", "label_emb.", "input_blocks.0.0", "out.2")

DORA = Limit(
    "DoRA",
    "it leaves DoRA's magnitudes out, so plain LoRA is applied",
    "atelier lora fuse, or LyCORIS's own loader (lycoris.kohya)",
)
_OUTER = Limit(
    "layers outside the blocks",
    "it has no LoRA for the first and last convolution and the embeddings of time and size",
    "train without them, or use another program",
)
_PROJECTION = Limit(
    "encoder 2's projection",
    "it has no LoRA for the projection behind encoder 2",
    "train without it, or use another program",
)
_LYCORIS = Limit(
    "kind", "it knows neither whole differences nor norms, OFT or GLoRA", "LyCORIS's own loader (lycoris.kohya)"
)
_TUCKER = Limit("Tucker's form", "it knows no third factor of LoCon", "LyCORIS's own loader (lycoris.kohya)")
_ANOTHER_MODEL = Limit("another model than SDXL's base", "its U-Net is that of the base", "use ComfyUI")
_UNKNOWN = "told as unexpected where a network is loaded, not at all where it is merged"


def read_as_kohya(contents: Contents) -> Reading:
    """Read a file as kohya's sd-scripts do."""
    names = contents.names
    outside = _outside(names)
    rules = Rules(
        reader="kohya",
        title="kohya",
        names=kohya_names(names),
        suffixes=_SUFFIXES,
        kinds=frozenset(("lora", "loha", "lokr")),
        unknown=_UNKNOWN,
        limits=dict.fromkeys(("full", "norm", "glora", "oft", "ia3"), _LYCORIS),
        gap=lambda entry: _gap(entry, outside),
    )
    tally = tally_by_name(contents, rules, lambda entry: _scale(entry, contents))
    for entry in contents.entries:
        if entry.stem in rules.names and entry.misfit.startswith("made for"):
            tally.refuse(f"{entry.stem}: {entry.misfit}: an error ends the loading")
    if any(entry.is_dora for entry, _ in tally.taken):
        tally.limit(DORA)
        tally.dora = Verdict("limit", DORA.text)
        dora = {entry.keys["dora_scale"] for entry, _ in tally.taken if "dora_scale" in entry.keys}
        tally.left = [left for left in tally.left if left.key not in dora]
        tally.leave(sorted(dora), DORA.text, is_limit=True)
    if contents.kinds & {"loha", "lokr"}:
        tally.notes.append("needs --network_module networks.loha or networks.lokr, or LyCORIS's own")
    if names.structure.unet != SDXL_BASE.unet:
        tally.limit(_ANOTHER_MODEL)
    tally.version = RIGHT
    return tally.finish()


@lru_cache(maxsize=8)
def kohya_names(names: ModelNames) -> Mapping[str, Module]:
    """Return the stems sd-scripts know for a model, and the modules they are."""
    known: dict[str, Module] = {
        f"lora_unet_{underscored(original)}": ("unet", path)
        for original, path in names.original.items()
        if not original.startswith(_OUTSIDE)
    }
    prefixes: dict[Component, str] = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    for component, prefix in prefixes.items():
        for path in names.text_paths(component):
            known[prefix + underscored(path)] = (component, path)
    return known


def _outside(names: ModelNames) -> dict[str, Limit]:
    outer = {f"lora_unet_{underscored(name)}": _OUTER for name in names.original if name.startswith(_OUTSIDE)}
    return outer | {"lora_te2_text_projection": _PROJECTION}


def _gap(entry: Entry, outside: dict[str, Limit]) -> Limit | None:
    if "mid" in entry.keys:
        return _TUCKER
    return outside.get(entry.stem)


def _scale(entry: Entry, contents: Contents) -> float:
    alpha = contents.file.numbers.get(entry.keys.get("alpha", ""))
    return 1.0 if alpha == 0 else scale_by_alpha(entry, contents)
