"""What a peft configuration says of an adapter's modules: kind, scale, how it began. Without torch and peft.

Configurations come with files from strangers. Only what changes the result is read, numbers are checked, and patterns
are compared as plain names: peft runs them as regular expressions, some of which take forever.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError

MAX_CONFIG_BYTES = 4 * 1024 * 1024

_PLAIN = re.compile(r"[A-Za-z0-9_.\-]{1,300}")
_BASE_CHANGED = ("pissa", "olora", "corda", "lora_ga", "loftq")
# Those of peft that begin as no change, or leave the base as it is (`tuners/lora/layer.py`).
_BASE_LEFT = ("true", "false", "gaussian", "eva", "orthogonal", "mica")
_NOT_REVERSED = "loftq"
_UNREAD = ("layer_replication", "use_qalora", "arrow_config", "alora_invocation_tokens", "use_bdlora", "lora_bias",
           "fan_in_fan_out", "target_parameters", "trainable_token_indices")  # fmt: skip


@dataclass(frozen=True)
class AdapterConfig:
    """The part of a configuration that tells what its factors mean.

    Attributes:
        kind: 'LORA', 'LOHA' or 'LOKR'.
        rank: of a module that no pattern names.
        alpha: likewise.
        ranks, alphas: by pattern.
        use_rslora: whether alpha is divided by the root of the rank.
        use_dora: whether there are magnitudes.
        began_as: the word for an initialisation that took a part out of the base, 'pissa'; or None.
    """

    kind: str = "LORA"
    rank: int | None = None
    alpha: float | None = None
    ranks: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    began_as: str | None = None

    def scale_of(self, module: str, rank: int | None) -> float:
        """Return what a module's product is multiplied by.

        Args:
            module: its path.
            rank: the inner dimension of its factors; None where they have none, and the configuration's counts.
        """
        alpha = next((value for pattern, value in self.alphas.items() if matches(module, pattern)), self.alpha)
        if rank is None:
            named = next((value for pattern, value in self.ranks.items() if matches(module, pattern)), self.rank)
            rank = None if named is None else int(named)
        if alpha is None or not rank:
            return 1.0
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def matches(module: str, pattern: str) -> bool:
    """Return whether a plain pattern means a module, as peft's `get_pattern_key` has it.

    It stands at the end of the path, behind a dot; with `^` in front it is all of it.
    """
    if pattern.startswith("^"):
        whole = pattern.removeprefix("^")
        return module in (whole, f"text_model.{whole}")
    return module == pattern or module.endswith(f".{pattern}")


def read_config(path: Path) -> AdapterConfig:
    """Read an `adapter_config.json`. Raises AtelierError when it is none, or one that cannot be trusted."""
    if not path.is_file():
        raise AtelierError(f"{path}: there is no such file. peft keeps an adapter's scale there")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise AtelierError(f"{path}: {path.stat().st_size} bytes are beyond reason for a configuration")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AtelierError(f"{path}: cannot be read as text") from error
    return make_config(_json_object(text, str(path)), str(path))


def read_diffusers_configs(metadata: Mapping[str, str], where: str) -> dict[str, AdapterConfig]:
    """Return the configuration of each component from `lora_adapter_metadata`, {} where there is none."""
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    where = f"{where}: its lora_adapter_metadata"
    if len(text) > MAX_CONFIG_BYTES:
        raise AtelierError(f"{where} is beyond reason ({len(text)} bytes)")
    settings: dict[str, dict[str, Any]] = {}
    for name, value in _json_object(text, where).items():
        component, dot, key = name.partition(".")
        settings.setdefault(component if dot else "", {})[key if dot else component] = value
    return {component: make_config(values, where) for component, values in settings.items()}


def make_config(settings: Mapping[str, Any], where: str) -> AdapterConfig:
    """Make a configuration from its settings.

    Raises:
        AtelierError: one of them is not what it must be, or asks for what is not read here.
    """
    kind = settings.get("peft_type") or "LORA"
    if kind not in ("LORA", "LOHA", "LOKR"):
        raise AtelierError(f"{where}: adapters of peft_type {kind!r:.60} are not read here. Known: LORA, LOHA, LOKR")
    for name in _UNREAD:
        if settings.get(name):
            raise AtelierError(f"{where}: {name} is set, which changes what the factors mean and is not read here")
    began = str(settings.get("init_lora_weights", True)).lower()
    changed = began.startswith(_BASE_CHANGED)
    if not changed and began not in (*_BASE_LEFT, "none"):
        raise AtelierError(
            f"{where}: init_lora_weights {began!r:.60} is not known here, nor whether it changed the base. Known: "
            f"{', '.join(_BASE_CHANGED + _BASE_LEFT)}"
        )
    if began.startswith(_NOT_REVERSED):
        raise AtelierError(
            f"{where}: LoftQ's factors belong to its own quantised base; on any other they are wrong. Extract a LoRA "
            "from the merged model instead: atelier lora extract"
        )
    alpha = settings.get("lora_alpha" if kind == "LORA" else "alpha")
    rank = settings.get("r")
    return AdapterConfig(
        kind=kind,
        rank=None if rank is None else int(_number(rank, f"{where}: r", least=1)),
        alpha=None if alpha is None else _number(alpha, f"{where}: {'lora_alpha' if kind == 'LORA' else 'alpha'}"),
        ranks=_patterns(settings.get("rank_pattern"), f"{where}: rank_pattern", least=1),
        alphas=_patterns(settings.get("alpha_pattern"), f"{where}: alpha_pattern"),
        use_rslora=bool(settings.get("use_rslora")),
        use_dora=bool(settings.get("use_dora")),
        began_as=began[:40] if changed else None,
    )


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AtelierError(f"{where} is not JSON") from error
    if not isinstance(value, dict):
        raise AtelierError(f"{where} is no JSON object")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _number(value: Any, where: str, least: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AtelierError(f"{where} is {value!r:.60}, not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise AtelierError(f"{where} is a number beyond reason") from error
    if not math.isfinite(number) or abs(number) > 1e9 or (least is not None and number < least):
        raise AtelierError(f"{where} is {number:g}, which is no sensible number there")
    return number


def _patterns(value: Any, where: str, least: float | None = None) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AtelierError(f"{where} is no JSON object")
    return {_plain(pattern, where): _number(number, f"{where}: {pattern!r:.60}", least)
            for pattern, number in value.items()}  # fmt: skip


def _plain(pattern: str, where: str) -> str:
    """Return a pattern without the ornaments of a regular expression that change nothing."""
    plain = pattern.removesuffix("$").replace("\\.", ".")
    anchored = plain.startswith("^")
    plain = plain.removeprefix("^")
    for front in ("(.*\\.)?", "(.*.)?", ".*."):
        if plain.startswith(front):
            plain, anchored = plain.removeprefix(front), False
            break
    if not _PLAIN.fullmatch(plain):
        raise AtelierError(
            f"{where}: {pattern!r:.80} is a regular expression; those of strangers are not run. Write the modules' "
            "names out"
        )
    return f"^{plain}" if anchored else plain
