"""New values as YAML: on one line, or as a block. Text gets quotes wherever another reader could take it for more."""

from typing import Any

from finetune.recipe.yaml_text import plain_scalar

_OLD_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def flow(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    return str(value.text)  # as it was typed


def block_lines(value: Any) -> list[str]:
    """Return the lines of a mapping or a list, each entry on lines of its own; short lists stay on one."""
    if isinstance(value, dict) and value:
        return [line for key, inner in value.items() for line in _entry(f"{flow(key)}:", inner)]
    if isinstance(value, list | tuple) and value:
        lines = []
        for inner in value:
            first, *others = block_lines(inner) if isinstance(inner, dict) and inner else [flow(inner)]
            lines += [f"- {first}", *(f"  {line}" for line in others)]
        return lines
    return [flow(value)]


def _entry(head: str, value: Any) -> list[str]:
    nested = isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(e, dict) for e in value))
    if not (nested and value):
        return [f"{head} {flow(value)}"]
    return [head, *(f"  {line}" for line in block_lines(value))]


def _number(value: float) -> str:
    if value != value:
        return ".nan"
    return repr(value) if abs(value) < float("inf") else (".inf" if value > 0 else "-.inf")


def _is_plain(text: str) -> bool:
    """Whether text means itself without quotes, in YAML 1.1 and inside brackets too."""
    simple = text.isascii() and text[:1].isalpha() and all(sign.isalnum() or sign in " _-+./" for sign in text)
    return simple and text == text.strip() and text.lower() not in _OLD_WORDS and plain_scalar(text) == text


def _quoted(text: str) -> str:
    return '"' + "".join(_SHORT.get(sign) or (sign if sign.isprintable() else _escaped(sign)) for sign in text) + '"'


def _escaped(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
