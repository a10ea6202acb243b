"""One Ray for all tests of this folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PATHS = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray on this machine, whose workers can import what tests share."""
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    from support.ray_driver import start_ray

    with pytest.MonkeyPatch.context() as patch:
        known = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        patch.setenv("PYTHONPATH", os.pathsep.join([*known, *PATHS]))
        # Else a token is written into the home folder; nothing outside of this machine reaches this Ray.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        # Workers have one thread each, as tests in many processes do.
        patch.setenv("OMP_NUM_THREADS", "1")
        start_ray()
        yield
        ray.shutdown()
    assert "ray" in sys.modules
