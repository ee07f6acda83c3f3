"""The files that a LoRA is made of: one, or a folder of peft's or diffusers', each with what its configuration says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.dialects.peft_config import AdapterConfig, read_config, read_diffusers_configs
from finetune.errors import AtelierError
from finetune.naming.components import COMPONENTS, Component
from finetune.tensors.header import Header, read_header

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Source:
    """One file of a LoRA.

    Attributes:
        header: of the file, checked.
        configs: by component; under '' for whichever component its names belong to.
        component: the one its folder is named after, or None.
    """

    header: Header
    configs: Mapping[str, AdapterConfig]
    component: Component | None

    def config_of(self, component: Component) -> AdapterConfig | None:
        """Return what is said of one component, or None."""
        return self.configs.get(component, self.configs.get(""))


def find_sources(path: Path) -> list[Source]:
    """Return the files of a LoRA: of one file that file, of a folder those that peft or diffusers keep there.

    Raises:
        AtelierError: there is none, or one that must not be trusted.
    """
    if not path.is_dir():
        return [_file_source(path)]
    folders: list[tuple[Path, Component | None]] = [(path / name, name) for name in COMPONENTS]
    folders.append((path, None))
    found = [_peft_source(folder, component) for folder, component in folders if (folder / CONFIG_FILE).exists()]
    if found:
        return found
    if (path / DIFFUSERS_FILE).exists():
        return [_file_source(path / DIFFUSERS_FILE)]
    files = sorted(file.name for file in path.glob("*.safetensors"))
    raise AtelierError(
        f"{path}: is a folder without {CONFIG_FILE} (peft) and without {DIFFUSERS_FILE} (diffusers). "
        + (f"Name one of its files: {', '.join(files[:3])}" if files else "Give a .safetensors file")
    )


def _file_source(path: Path) -> Source:
    if path.name == ADAPTER_FILE and path.with_name(CONFIG_FILE).exists():
        return _peft_source(path.parent, None)
    header = read_header(path)
    return Source(header, read_diffusers_configs(header.metadata, str(path)), None)


def _peft_source(folder: Path, component: Component | None) -> Source:
    config = read_config(folder / CONFIG_FILE)
    if not (folder / ADAPTER_FILE).exists() and (folder / "adapter_model.bin").exists():
        raise AtelierError(f"{folder / 'adapter_model.bin'}: only .safetensors files are read; others can hold code")
    named = next((name for name in COMPONENTS if name == folder.name), None)
    return Source(read_header(folder / ADAPTER_FILE), {"": config}, component or named)
