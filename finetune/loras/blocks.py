"""Change the strength of a LoRA block by block: through the scales, with no decomposition.

A file in kohya's format has one alpha for all modules of a model, since not every reader takes several right; where
strengths differ, a factor of the module carries the rest of it, rounded once to the file's precision.

A rule is a pattern and a strength. A pattern is one or more parts of a module's name, from dot to dot, each of which
may be a glob: `down_blocks.1`, `mid_block`, `text_encoder`, `attn2`, `unet.up_blocks.*.attentions.0`. It means every
module in whose name, `unet.down_blocks.1.attentions.0.proj_in`, these parts stand one behind the other. Where several
rules mean a module the last one counts.

The community's vectors for SDXL (hako-mikan/sd-webui-lora-block-weight, `scripts/lora_block_weight.py`, BLOCKID12 and
BLOCKID20, `to26`, `ratiodealer`) name the original layout's blocks: 12 numbers for the encoders and the blocks with
attention, 20 for all. As there, blocks that the 12 do not name get 0, and what lies in no block keeps its strength.
"""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from finetune.dialects.lora_file import AnyModule, LoraFile
from finetune.errors import AtelierError, RecipeError
from finetune.loras.writing import Watch, choose_precision, unwatched, write_made
from finetune.naming.components import Component
from finetune.naming.keys import sgm_path
from finetune.naming.structure import SDXL_BASE, ModelStructure

ModuleName = tuple[Component, str]

_FULL_VECTOR = ("BASE", *(f"IN{i:02}" for i in range(9)), "M00", *(f"OUT{i:02}" for i in range(9)))
_ATTENTION_VECTOR = ("BASE", "IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{i:02}" for i in range(6)))
VECTORS = {len(vector): vector for vector in (_ATTENTION_VECTOR, _FULL_VECTOR)}


@dataclass(frozen=True)
class BlockRule:
    """Which modules get which strength.

    Attributes:
        pattern: as above; of a vector's blocks their word, 'IN04'.
        strength: what the change is multiplied by; 0 leaves the module out.
        block: whether the pattern is the word of a vector's block.
    """

    pattern: str
    strength: float
    block: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise RecipeError(f"{self.pattern}: a strength of {self.strength} is no number")


@dataclass(frozen=True)
class BlocksReport:
    """What the rules did.

    Attributes:
        touched: for each rule, the modules it decided on.
        kept: how many modules no rule touched.
        left_out: how many had a strength of 0.
    """

    touched: tuple[tuple[BlockRule, tuple[ModuleName, ...]], ...]
    kept: int
    left_out: int

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        rules = [
            {"pattern": rule.pattern, "strength": rule.strength, "modules": [".".join(name) for name in names]}
            for rule, names in self.touched
        ]
        return {"rules": rules, "unchanged": self.kept, "left_out": self.left_out}


def parse_rule(text: str) -> BlockRule:
    """Read `pattern=strength`. Raises RecipeError."""
    pattern, equals, number = text.rpartition("=")
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not equals or not pattern or math.isnan(strength):
        raise RecipeError(f"--set {text!r}: needs BLOCK=STRENGTH, as down_blocks.1=0.5")
    return BlockRule(pattern, strength)


def parse_vector(text: str) -> tuple[BlockRule, ...]:
    """Read the community's vector of 12 or 20 numbers. Raises RecipeError."""
    words = [word.strip() for word in text.split(",")]
    names = VECTORS.get(len(words))
    if names is None:
        allowed = "; ".join(f"{count} numbers: {', '.join(vector)}" for count, vector in VECTORS.items())
        raise RecipeError(f"--lbw: got {len(words)} numbers. For SDXL there are {allowed}")
    try:
        numbers = {name: float(word) for name, word in zip(names, words, strict=True)}
    except ValueError as error:
        raise RecipeError(f"--lbw: {error}. Only numbers are read here, no letters for random ones") from error
    return tuple(BlockRule(name, numbers.get(name, 0.0), block=True) for name in _FULL_VECTOR)


def scale_blocks(
    source: Path,
    target: Path,
    rules: Sequence[BlockRule],
    *,
    structure: ModelStructure,
    precision: str | None = None,
    watch: Watch = unwatched,
) -> BlocksReport:
    """Write a LoRA file with other strengths; modules of strength 0 are left out.

    Args:
        source: a LoRA file.
        target: the new one, in kohya's format.
        rules: the later ones count before the earlier ones.
        structure: the model it was trained on.
        precision: of the new file; None for the old one's.
        watch: told of progress.

    Raises:
        RecipeError: a rule means no module, or a vector is meant for another model than SDXL's base.
        AtelierError: the file cannot be read, all of it would be left out, or a module with DoRA would need the base.
        DiskError: the disk refuses.
    """
    if any(rule.block for rule in rules) and structure.unet.layout != SDXL_BASE.unet.layout:
        raise RecipeError("--lbw: these vectors are for SDXL's base, whose blocks they name. Take --set for this model")
    with LoraFile(source, structure) as file:
        deciding = decide(file.names, rules, structure)
        report = _report(file.names, rules, deciding)

        def modules() -> Iterator[AnyModule]:
            for done, name in enumerate(file.names, start=1):
                rule = deciding.get(name)
                watch(done, len(file.names))
                if rule is None:
                    yield file.load(name)
                elif rule.strength != 0:
                    yield scaled(file.load(name), rule.strength)

        made_by = {
            "verb": "scale-blocks",
            "rules": {rule.pattern: rule.strength for rule in rules},
            "of": [source.stem],
        }
        write_made(
            modules(),
            target,
            precision=choose_precision(precision, [file]),
            structure=structure,
            metadata=file.metadata,
            made_by=made_by,
        )
    return report


def decide(
    names: Sequence[ModuleName], rules: Sequence[BlockRule], structure: ModelStructure
) -> dict[ModuleName, BlockRule]:
    """Return the rule that decides on each module that one means.

    Raises:
        RecipeError: a rule means none; the message names the nearest blocks. A vector's block may be empty.
    """
    deciding: dict[ModuleName, BlockRule] = {}
    for rule in rules:
        if rule.block:
            meant = [name for name in names if block_word(name, structure) == rule.pattern]
        else:
            meant = [name for name in names if means(rule.pattern, name)]
            if not meant:
                raise RecipeError(_no_match(rule.pattern, names))
        deciding |= dict.fromkeys(meant, rule)
    return deciding


def means(pattern: str, name: ModuleName) -> bool:
    """Whether a pattern's parts stand one behind the other in a module's name."""
    wanted, parts = pattern.split("."), ".".join(name).split(".")
    return any(
        all(fnmatchcase(part, own) for part, own in zip(parts[start:], wanted, strict=False))
        for start in range(len(parts) - len(wanted) + 1)
    )


def block_word(name: ModuleName, structure: ModelStructure) -> str | None:
    """Return the word that a vector has for a module's block, 'IN04'; None for what lies in no block."""
    component, module = name
    if component != "unet":
        return "BASE"
    match = re.match(r"(input_blocks|output_blocks|middle_block)\.(\d+)", sgm_path(module, structure.unet.layout))
    if match is None:
        return None
    if match[1] == "middle_block":
        return "M00"
    return f"{'IN' if match[1] == 'input_blocks' else 'OUT'}{int(match[2]):02}"


def scaled(module: AnyModule, strength: float) -> AnyModule:
    """Return a module whose change is multiplied, by its scale alone.

    Raises:
        AtelierError: it has DoRA: its strength depends on the norms of the base's weight, which no file holds.
    """
    if strength == 1:
        return module
    if module.magnitude is not None:
        raise AtelierError(
            f"{module.component}.{module.module} has DoRA, and half of it is half way from the norms of the base's "
            "weight to its own, which no LoRA file holds. Use 1, or 0 to leave it out; `atelier lora fuse --weights` "
            "has the base"
        )
    return replace(module, scale=module.scale * strength)


def _report(
    names: Sequence[ModuleName], rules: Sequence[BlockRule], deciding: dict[ModuleName, BlockRule]
) -> BlocksReport:
    touched = tuple((rule, tuple(name for name in names if deciding.get(name) is rule)) for rule in rules)
    left_out = sum(rule.strength == 0 for rule in deciding.values())
    return BlocksReport(touched, len(names) - len(deciding), left_out)


def _no_match(pattern: str, names: Sequence[ModuleName]) -> str:
    words: set[str] = set()
    length = pattern.count(".") + 1
    for name in names:
        parts = ".".join(name).split(".")
        words |= {".".join(parts[start : start + length]) for start in range(len(parts) - length + 1)}
    nearest = difflib.get_close_matches(pattern, sorted(words), n=3, cutoff=0.0)
    return f"--set {pattern}: no module of the file is meant by it. Nearest: {', '.join(nearest)}"
