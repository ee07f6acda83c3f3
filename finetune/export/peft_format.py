"""peft's own format: for each trained component a folder with `adapter_config.json` and `adapter_model.safetensors`.

`PeftModel.from_pretrained(pipeline.unet, "<name>-peft/unet")` loads one. Names here are those of the modules of the
models themselves, so CLIPTextModel's are without `text_model.`, as in transformers 5.6 and later; peft translates
nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.adapters.weights import LoraModule
from finetune.export.diffusers_format import lora_config, peft_tensors
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.keys import UNetLayout
from finetune.run.durable import write_json
from finetune.tensors.writing import write_safetensors


def peft_config(modules: Sequence[LoraModule]) -> dict[str, Any]:
    """Return the content of `adapter_config.json` for one component's modules."""
    return {"peft_type": "LORA", "task_type": None, "inference_mode": True, "base_model_name_or_path": None} | (
        lora_config(modules)
    )


def export_peft(
    modules: Sequence[LoraModule],
    folder: Path,
    name: str,
    *,
    precision: str,
    layout: UNetLayout,  # noqa: ARG001 - the exporters' common signature
    metadata: Mapping[str, str],
) -> tuple[Path, ...]:
    """Write `<folder>/<name>-peft/<component>/adapter_model.safetensors` and its config, for each component.

    See `finetune.export.registry.Exporter` for the arguments.
    """
    paths: list[Path] = []
    for component in COMPONENTS:
        own = [module for module in modules if module.component == component]
        if not own:
            continue
        tensors = {
            f"base_model.model.{_model_path(component, module.module)}.{key}": tensor
            for module in own
            for key, tensor in peft_tensors(module, precision).items()
        }
        path = folder / f"{name}-peft" / component / "adapter_model.safetensors"
        write_safetensors(path, tensors, {**metadata, "format": "pt"})
        write_json(path.with_name("adapter_config.json"), peft_config(own))
        paths += [path, path.with_name("adapter_config.json")]
    return tuple(paths)


def _model_path(component: Component, module: str) -> str:
    return module.removeprefix("text_model.") if component == "text_encoder" else module
