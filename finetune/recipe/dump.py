"""Writes a recipe back as YAML: every setting with its value, so that the text alone repeats the run."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from finetune.recipe.schema import Recipe
from finetune.recipe.yaml_text import plain_scalar

_HEADER = "# A complete recipe: every setting with its value. Run it with: atelier train FILE\n"


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML that `load_recipe` reads back to an equal recipe; nothing is left to a default."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), _null)
    yaml.dump(_written(recipe.model_dump(mode="json")), stream)
    return _HEADER + stream.getvalue()


def _null(representer: Any, _value: None) -> Any:
    """Write null out: an empty place reads like something forgotten."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _written(value: Any) -> Any:
    """Prepare a value for ruamel.yaml: short lists on one line, text in quotes wherever another reader could err."""
    if isinstance(value, dict):
        kind_first = sorted(value, key=lambda key: key != "kind")
        return CommentedMap((key, _written(value[key])) for key in kind_first)
    if isinstance(value, list):
        items = CommentedSeq(_written(entry) for entry in value)
        if not any(isinstance(entry, dict | list) for entry in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, str) and not _is_safe_plain(value):
        return DoubleQuotedScalarString(value)
    return value


def _is_safe_plain(text: str) -> bool:
    """Whether text means itself without quotes, in YAML 1.1 too."""
    simple = text.isascii() and text[:1].isalpha() and all(sign.isalnum() or sign in " _-+./" for sign in text)
    is_word_of_old_yaml = text.lower() in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
    return simple and text == text.strip() and not is_word_of_old_yaml and plain_scalar(text) == text
