"""The tables that stand beside this file, as YAML."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..config.yaml import read_yaml


@cache
def table(name: str) -> dict[str, Any]:
    """What NAME.yaml says."""
    file = Path(__file__).with_name(f"{name}.yaml")
    return read_yaml(file.read_text(encoding="utf-8"), file.name).value
