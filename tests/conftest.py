"""Pictures every test module needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GOLDEN = Path(__file__).parent / "golden"


def draw_picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of smooth coloured blobs, different for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six different pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"picture-{i}.png" for i in range(6)]
    for seed, path in enumerate(paths):
        draw_picture(seed).save(path)
    return paths
