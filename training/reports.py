"""What a report says about the machine and the software."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = (
    "llama-index-multimodal-rerank",
    "numpy",
    "pillow",
    "timm",
    "tokenizers",
    "torch",
    "transformers",
)


def environment(device: str) -> dict[str, Any]:
    """Return versions of Python and the packages that training depends on, and where it ran."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": device,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def check_arguments(path: Path, arguments: dict[str, Any]) -> None:
    """Keep the arguments of a run, so that it is not continued with others."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(path, arguments)
    elif (kept := json.loads(path.read_text(encoding="utf-8"))) != arguments:
        raise ValueError(
            f"{path.parent} holds a run with {kept}, not {arguments}. Delete it, or name another folder."
        )
