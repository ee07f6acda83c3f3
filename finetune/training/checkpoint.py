"""Checkpoints without pickle: whole or absent.

    checkpoints/step-000500/
      adapter.safetensors     the trainable parameters, by component and name
      optimizer.safetensors   the optimizer's tensors, by parameter and key
      average.safetensors     the averaged parameters, where an average is kept
      initial.safetensors     what the trained factors began as, where they began as a part of the base
      state.json              step, the optimizer's plain numbers, the loss scale, versions
      manifest.json           a sha256 of each of them, written last

It is written beside its final name, flushed, hashed and renamed; an older one is removed only after the new one is
whole. Loading checks every hash before anything is applied.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from finetune.errors import AtelierError, DiskError
from finetune.run.durable import disk_errors, fsync_path, os_error_in, rename, sha256_file, write_json

ADAPTER_FILE = "adapter.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "average.safetensors"
INITIAL_FILE = "initial.safetensors"
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
_PARTIAL_PREFIX = ".partial-"


@dataclass(frozen=True)
class Checkpoint:
    """A training state as read from the disk, checked, not yet applied.

    Attributes:
        step: optimizer steps done.
        parameters: the trainable parameters by name.
        optimizer: per parameter name, its state: tensors and plain numbers.
        groups: per group name, the numbers and tensors the optimizer keeps there.
        extra: what else the loop saved (loss scale, environment).
        averages: the averaged parameters by name, or None where no average is kept.
        initial: what the change is counted from, by name; empty where that is nothing.
    """

    step: int
    parameters: dict[str, Tensor]
    optimizer: dict[str, dict[str, Any]]
    groups: dict[str, dict[str, Any]]
    extra: dict[str, Any]
    averages: dict[str, Tensor] | None = None
    initial: dict[str, Tensor] = field(default_factory=dict)

    @property
    def exported(self) -> dict[str, Tensor]:
        """What is drawn with and exported: the averaged parameters where an average is kept, and where they began."""
        return (self.parameters if self.averages is None else self.averages) | self.initial


class DamagedCheckpointError(AtelierError):
    """A checkpoint's files are not what its manifest says."""


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    extra: Mapping[str, Any],
    averages: Mapping[str, Tensor] | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the training state after `step` optimizer steps as `folder`.

    Raises:
        DiskError: the disk is full or cannot be written; nothing that was whole is touched.
    """
    if folder.exists() and _is_whole(folder):
        return  # a resumed run comes by again: the same step has the same bits
    partial = folder.with_name(_PARTIAL_PREFIX + folder.name)
    tensors, numbers = _split_state(parameters, optimizer)
    with disk_errors(folder):
        _remove(partial)
        partial.mkdir(parents=True)
        try:
            _write_tensors(partial / ADAPTER_FILE, {name: value.detach() for name, value in parameters.items()})
            _write_tensors(partial / OPTIMIZER_FILE, tensors)
            if averages is not None:
                _write_tensors(partial / AVERAGE_FILE, averages)
            if initial:
                _write_tensors(partial / INITIAL_FILE, initial)
            state = {"format_version": FORMAT_VERSION, "step": step, "optimizer": numbers, "extra": dict(extra)}
            write_json(partial / STATE_FILE, state)
            written = [ADAPTER_FILE, OPTIMIZER_FILE, STATE_FILE]
            written += [name for name in (AVERAGE_FILE, INITIAL_FILE) if (partial / name).exists()]
            hashes = {name: sha256_file(partial / name) for name in written}
            write_json(partial / MANIFEST_FILE, {"format_version": FORMAT_VERSION, "step": step, "sha256": hashes})
            fsync_path(partial)
        except (OSError, DiskError):
            _remove(partial)  # on a full disk its bytes are missed elsewhere
            raise
        _remove(folder)
        rename(partial, folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint after checking the hash of each of its files.

    Raises:
        DamagedCheckpointError: a file is missing, cut, or not the one that was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        optional = [name for name in (AVERAGE_FILE, INITIAL_FILE) if name in manifest["sha256"]]
        for name in (ADAPTER_FILE, OPTIMIZER_FILE, STATE_FILE, *optional):
            if sha256_file(folder / name) != manifest["sha256"][name]:
                raise DamagedCheckpointError(f"{folder / name} is not the file that was saved: its hash differs.")
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["step"] != manifest["step"] or state["format_version"] != FORMAT_VERSION:
            raise DamagedCheckpointError(f"{folder}: its state does not belong to its manifest.")
        if _is_named(folder) and int(folder.name[5:]) != state["step"]:
            raise DamagedCheckpointError(f"{folder} holds step {state['step']}: it is another checkpoint, renamed.")
        parameters = safetensors.torch.load_file(folder / ADAPTER_FILE)
        tensors = safetensors.torch.load_file(folder / OPTIMIZER_FILE)
        averages = safetensors.torch.load_file(folder / AVERAGE_FILE) if AVERAGE_FILE in optional else None
        initial = safetensors.torch.load_file(folder / INITIAL_FILE) if INITIAL_FILE in optional else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{folder} is not a whole checkpoint: {error}") from error
    return Checkpoint(
        step=state["step"],
        parameters=parameters,
        optimizer=_join(state["optimizer"]["state"], tensors, "state"),
        groups=_join(state["optimizer"]["groups"], tensors, "group"),
        extra=state["extra"],
        averages=averages,
        initial=initial,
    )


def newest_whole_checkpoint(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that is whole, and a sentence for each newer one that is not."""
    damaged: list[str] = []
    for folder in reversed(list_checkpoints(checkpoints)):
        try:
            return load_checkpoint(folder), damaged
        except DamagedCheckpointError as error:
            damaged.append(str(error))
    return None, damaged


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the folders that bear a checkpoint's name, oldest first."""
    found = [path for path in checkpoints.glob("step-*") if path.is_dir() and _is_named(path)]
    return sorted(found, key=lambda path: int(path.name[5:]))


def remove_old_checkpoints(checkpoints: Path, keep: int, written_step: int) -> None:
    """Remove all but the newest `keep` checkpoints up to the one just written, and what an interrupted save left.

    Folders of later steps are there only after a resume that could not use them, so they count for nothing: the run
    writes them anew when it comes by.
    """
    own = [folder for folder in list_checkpoints(checkpoints) if int(folder.name[5:]) <= written_step]
    for folder in own[:-keep]:
        _remove(folder)
    for partial in checkpoints.glob(_PARTIAL_PREFIX + "*"):
        _remove(partial)


def apply_checkpoint(
    checkpoint: Checkpoint,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    initial: Mapping[str, Tensor] | None = None,
) -> None:
    """Put a checkpoint's numbers into what is trained, where it began, and into the optimizer.

    Raises:
        AtelierError: the checkpoint is of other parameters.
    """
    begun = initial or {}
    if _shapes(parameters) != _shapes(checkpoint.parameters) or _shapes(begun) != _shapes(checkpoint.initial):
        raise AtelierError(
            "the checkpoint's weights have other modules or ranks than the recipe's. Resume with the run's own recipe."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.parameters[name])
        for name, buffer in begun.items():
            buffer.copy_(checkpoint.initial[name])
    for name, state in checkpoint.optimizer.items():
        _restore_state(optimizer, parameters[name], state)
    for group in optimizer.param_groups:
        for key, value in checkpoint.groups.get(group["name"], {}).items():
            group[key] = value.to(group["params"][0].device) if isinstance(value, Tensor) else value


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _is_named(folder: Path) -> bool:
    """Whether a folder bears a checkpoint's name."""
    return folder.name.startswith("step-") and folder.name[5:].isdecimal()


def _is_whole(folder: Path) -> bool:
    try:
        load_checkpoint(folder)
    except DamagedCheckpointError:
        return False
    return True


def _restore_state(optimizer: Optimizer, parameter: nn.Parameter, state: dict[str, Any]) -> None:
    optimizer.state[parameter] = {
        key: _laid_out_as(parameter, value) if isinstance(value, Tensor) else value for key, value in state.items()
    }


def _laid_out_as(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Return a saved tensor on the parameter's device and, where it has its shape, in its order in memory.

    Fused optimizers walk over both side by side: a channels-last weight needs its state in the same order.
    """
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _split_state(
    parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's tensors under flat names, and its plain numbers."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    tensors: dict[str, Tensor] = {}
    state: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for parameter, values in optimizer.state.items():
        state[names[parameter]] = _take_numbers(values, f"state/{names[parameter]}", tensors)
    for group in optimizer.param_groups:
        kept = {key: value for key, value in group.items() if key not in {"params", "lr", "name"}}
        groups[group["name"]] = _take_numbers(kept, f"group/{group['name']}", tensors)
    return tensors, {"state": state, "groups": groups}


def _take_numbers(values: Mapping[str, Any], prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}/{key}"] = value.detach()
        elif isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            numbers[key] = value
    return numbers


def _join(numbers: Mapping[str, dict[str, Any]], tensors: Mapping[str, Tensor], kind: str) -> dict[str, dict[str, Any]]:
    joined = {name: dict(values) for name, values in numbers.items()}
    for flat, tensor in tensors.items():
        found_kind, _, rest = flat.partition("/")
        if found_kind == kind:
            name, _, key = rest.rpartition("/")
            joined.setdefault(name, {})[key] = tensor
    return joined


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # clone: safetensors refuses tensors that share memory, and optimizers share tables between parameters
    separate = {name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    with disk_errors(path):
        try:
            safetensors.torch.save_file(separate, path)
        except safetensors.SafetensorError as error:
            raise os_error_in(error) from error
        fsync_path(path)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
