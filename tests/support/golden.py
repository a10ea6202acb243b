"""Where the golden sets are: folders of recorded reference numbers, exchanged by one variable.

``GOLDEN_DIR=/some/folder pytest`` reads ``/some/folder/phi3_vision`` instead of ``tests/golden/phi3_vision``,
and so on. A set that is not in that folder is the one of ``tests/golden``; pytest's header says which it is.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

PUBLIC = Path(__file__).parents[1] / "golden"
SETS = ("visualized_bge", "phi3_vision", "bge_m3_sparse", "magiclens")


def golden_root(name: str) -> Path:
    """Return the folder that has the set of this name in it.

    Raises:
        FileNotFoundError: ``GOLDEN_DIR`` names a folder without any set.
    """
    given = os.environ.get("GOLDEN_DIR")
    if not given:
        return PUBLIC
    other = Path(given).expanduser().absolute()
    if not any((other / each).is_dir() for each in SETS):
        raise FileNotFoundError(f"GOLDEN_DIR={given}: no folder there is called {', '.join(SETS)}")
    return other if (other / name).is_dir() else PUBLIC


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def load_seeded_weights(folder: Path) -> ModuleType:
    """Return a set's own module that makes weights of a seed."""
    spec = importlib.util.spec_from_file_location(
        f"{folder.name}_seeded_weights", folder / "seeded_weights.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
