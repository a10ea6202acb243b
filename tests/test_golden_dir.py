"""GOLDEN_DIR puts another golden set in the place of the public one, which no test has written into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.golden import PUBLIC, golden_root
from support.golden_maker.magiclens import make_magiclens
from support.golden_maker.phi3_vision import make_phi3_vision
from support.golden_maker.visualized_bge import make_visualized_bge

TESTS = Path(__file__).parent
# those that compare with recorded numbers; CI runs the whole core with another set
COMPARING = (
    "magiclens/test_checkpoint.py",
    "magiclens/test_full_size.py",
    "magiclens/test_golden.py",
    "visualized_bge/test_configuration.py",
    "visualized_bge/test_golden.py",
    "phi3_vision/test_generation.py",
    "phi3_vision/test_hd_geometry.py",
    "phi3_vision/test_image_features.py",
    "phi3_vision/test_image_processing.py",
    "phi3_vision/test_logits.py",
    "phi3_vision/test_processing.py",
)
NAMES = (
    "test_golden",
    "limits",
    "reference",
    "record",
    "growing",
    "tiles",
    "tokenize",
    "decode",
    "test_chat",
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sets with other sizes, seeds, texts and pictures; the numbers are our own."""
    folder = tmp_path_factory.mktemp("other")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make_visualized_bge(folder / "visualized_bge", seed=3)
    make_phi3_vision(folder / "phi3_vision", seed=3)
    make_magiclens(folder / "magiclens", seed=3)
    torch.set_num_threads(threads)
    return folder


def test_golden_tests_pass_with_another_set(other: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", " or ".join(NAMES)]
    command += ["-c", str(TESTS.parent / "pyproject.toml"), f"--rootdir={TESTS.parent}"]
    done = subprocess.run(
        [*command, *(str(TESTS / "models" / name) for name in COMPARING)],
        cwd=tmp_path,
        env={**os.environ, "GOLDEN_DIR": str(other)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert f"golden sets: {other / 'visualized_bge'}, {other / 'phi3_vision'}" in done.stdout
    assert str(other / "magiclens") in done.stdout
    for case in ("little_lens-it_edit", "little_bert-it_edit", "little_xlmr-it_edit", "veil_nc6"):
        assert case in done.stdout


def test_sets_are_exchanged_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLDEN_DIR", raising=False)
    assert golden_root("phi3_vision") == PUBLIC
    monkeypatch.setenv("GOLDEN_DIR", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"GOLDEN_DIR=.*no folder there is called visualized_bge, phi3"
    ):
        golden_root("phi3_vision")
    (tmp_path / "visualized_bge").mkdir()
    assert (golden_root("visualized_bge"), golden_root("phi3_vision")) == (tmp_path, PUBLIC)
