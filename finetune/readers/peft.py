"""peft's `PeftModel.from_pretrained`, for a folder with `adapter_config.json`.

Read in peft 0.21.2: utils/save_and_load.py (`load_peft_weights`, `set_peft_model_state_dict`), utils/other.py
(`get_pattern_key`), tuners/lora/config.py (`LoraConfig`), tuners/loha, tuners/lokr.

Names are `base_model.model.` and the path of the module in the model itself; nothing is translated, so encoder 1's are
without `text_model.` since transformers 5.6. A key that is no module's is left without a word. The scale is made of
the config: `lora_alpha` and `alpha_pattern`, divided by the rank, or by its root with `use_rslora`.
"""

from collections.abc import Mapping

from finetune.naming.components import COMPONENTS
from finetune.readers.contents import Contents, adapter_settings, pattern_value, peft_scale
from finetune.readers.names import Module
from finetune.readers.parts import LOHA_SUFFIXES, LOKR_SUFFIXES
from finetune.readers.reading import RIGHT, Reading, Tally, Verdict

_BEFORE = "base_model.model."
_SUFFIXES: Mapping[str, frozenset[str]] = {
    "LORA": frozenset((".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")),
    "LOHA": frozenset(LOHA_SUFFIXES),
    "LOKR": frozenset(LOKR_SUFFIXES),
}
"""The ends of keys that each kind of adapter has."""


def read_as_peft(contents: Contents) -> Reading:
    """Read a folder of peft's."""
    tally = Tally("peft", "peft", contents)
    settings = adapter_settings(contents.file)
    if not contents.file.configs:
        tally.refuse("there is no adapter_config.json beside the file")
    for named, config in contents.file.configs.items():
        kind = str(config.get("peft_type"))
        if kind not in _SUFFIXES:
            tally.refuse(f"{named}: peft_type is {kind!r:.40}; known here: {', '.join(_SUFFIXES)}")
    for entry in contents.entries:
        keys = tuple(entry.keys.values())
        folder, _, rest = entry.stem.partition("/")
        component = next((name for name in COMPONENTS if name == folder), None)
        if component is None or not rest.startswith(_BEFORE):
            tally.leave(keys, f"is not {_BEFORE} and a path")
            continue
        path = rest.removeprefix(_BEFORE)
        config = settings.get(component, {})
        suffixes = _SUFFIXES.get(str(config.get("peft_type")), frozenset())
        unknown = [key for key in keys if key.removeprefix(entry.stem) not in suffixes]
        if unknown:
            tally.leave(keys, f"it knows no '{unknown[0].removeprefix(entry.stem)}'")
            continue
        module: Module = (component, path)
        if component == "text_encoder":
            if path.startswith("text_model."):
                tally.leave(keys, "has `text_model.`, which transformers 5.6 and later have dropped from encoder 1")
                continue
            module = (component, f"text_model.{path}")
        if module not in contents.names.shapes:
            tally.leave(keys, "no module of that name; nothing says so")
            continue
        if entry.misfit:
            tally.leave(keys, entry.misfit)
            continue
        given = pattern_value(config.get("rank_pattern"), path, config.get("r"))
        if entry.kind != "lokr" and given is not None and given != entry.rank:
            tally.refuse(
                f"{entry.stem}: of rank {entry.rank}, but the config says {given:g}: an error ends the loading"
            )
        alpha = "lora_alpha" if entry.kind == "lora" else "alpha"
        known = config if alpha in config else {**config, alpha: 8}  # what peft's settings begin with
        tally.take(entry, module, peft_scale(known, entry.kind, entry.rank, path))
    tally.leave(contents.others, "no part of a LoRA")
    if any("magnitude" in entry.keys for entry, _ in tally.taken):
        plain = [entry for entry, module in tally.taken if not _uses_dora(settings.get(module[0], {}))]
        tally.dora = RIGHT if not plain else Verdict("wrong", "the config lacks use_dora, so magnitudes are left out")
    tally.version = RIGHT
    return tally.finish()


def _uses_dora(config: object) -> bool:
    return isinstance(config, dict) and config.get("use_dora") is True
