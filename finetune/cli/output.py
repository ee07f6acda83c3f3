"""How the command line speaks: plain words on stdout, one JSON object where a program reads."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Write one JSON object to stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def format_duration(seconds: float) -> str:
    """Write a duration as '42 s', '3 min 05 s' or '2 h 14 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(count: float) -> str:
    """Write a number of bytes as '48 KiB', '512 MiB' or '5.6 GiB'."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def format_pace(seconds_each: float) -> str:
    """Write how fast things of a kind are done as '12.5/s' or '1.8 s each'."""
    if seconds_each <= 0:
        return "-"
    return f"{1 / seconds_each:.1f}/s" if seconds_each < 1 else f"{seconds_each:.1f} s each"


def format_rate(seconds_per_step: float) -> str:
    """Write a speed as '4.2 steps/s' or '1.8 s/step'."""
    if seconds_per_step <= 0:
        return "-"
    return f"{1 / seconds_per_step:.1f} steps/s" if seconds_per_step < 1 else f"{seconds_per_step:.1f} s/step"
