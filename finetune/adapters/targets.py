"""Which modules an adapter attaches to, by a word or by patterns.

Counts on the real U-Net: `attention` 560, `attention+feedforward` 722, `attention+feedforward+convolutions` 788; on
the encoders, `attention` 48 and 128, `attention+feedforward` 72 and 192.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from finetune.errors import RecipeError
from finetune.naming.components import Component

_ATTENTION = re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$")
_TRANSFORMER = re.compile(r"(^|\.)attentions\.\d+\.")
_CONVOLUTIONS = re.compile(
    r"(^|\.)(resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)|(down|up)samplers\.0\.conv)$"
)
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$")
_TEXT_FEEDFORWARD = re.compile(r"\.mlp\.(fc1|fc2)$")

_UNET_RULES: dict[str, Callable[[str], bool]] = {
    "attention": lambda path: bool(_ATTENTION.search(path)),
    "attention+feedforward": lambda path: bool(_TRANSFORMER.search(path)),
    "attention+feedforward+convolutions": lambda path: bool(_TRANSFORMER.search(path) or _CONVOLUTIONS.search(path)),
}
_TEXT_RULES: dict[str, Callable[[str], bool]] = {
    "attention": lambda path: bool(_TEXT_ATTENTION.search(path)),
    "attention+feedforward": lambda path: bool(_TEXT_ATTENTION.search(path) or _TEXT_FEEDFORWARD.search(path)),
}


def target_paths(model: nn.Module, component: Component, targets: str | Sequence[str]) -> list[str]:
    """Return the paths of the modules an adapter attaches to, in the model's order.

    Args:
        model: the U-Net or a text encoder, before any adapter is in it.
        component: which of the three it is.
        targets: one of the words above, or patterns. A pattern matches a path that equals it, ends with it after a
            dot, or that it matches as a glob (`down_blocks.*.to_q`).

    Raises:
        RecipeError: a pattern matches nothing, with the nearest module's name.
    """
    paths = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return choose_paths(paths, component, targets)


def choose_paths(paths: Sequence[str], component: Component, targets: str | Sequence[str]) -> list[str]:
    """Return those of a model's paths that `targets` means; arguments and errors as `target_paths`'."""
    if isinstance(targets, str):
        rules = _UNET_RULES if component == "unet" else _TEXT_RULES
        return [path for path in paths if rules[targets](path)]
    chosen: set[str] = set()
    for pattern in targets:
        matched = [path for path in paths if path_matches(path, pattern)]
        if not matched:
            raise RecipeError(_no_match(pattern, component, paths))
        chosen.update(matched)
    return [path for path in paths if path in chosen]


def path_matches(path: str, pattern: str) -> bool:
    """Whether a path equals the pattern, ends with it after a dot, or is matched by it as a glob."""
    return path == pattern or path.endswith("." + pattern) or fnmatchcase(path, pattern)


def _no_match(pattern: str, component: Component, paths: Sequence[str]) -> str:
    endings = {ending for path in paths for ending in (path, path.rpartition(".")[2])}
    nearest = difflib.get_close_matches(pattern, sorted(endings), n=1, cutoff=0.0)
    return (
        f"adapter.{component}.targets: {pattern!r} matches no Linear or convolution of the {component}. "
        f"Nearest: {nearest[0]!r}. See: atelier recipes schema"
    )
