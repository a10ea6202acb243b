"""benchmarks/attack.py for a few seconds; and that it would tell."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attack
from llama_index_multimodal_rerank import ImageLoadError
from llama_index_multimodal_rerank.images.access import ImageAccess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")


@pytest.mark.parametrize("name", attack.ATTACKS)
def test_no_attack_gets_through(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack.main(["--seconds", "2", "--only", name]) == 0
    trials = int(capsys.readouterr().out.partition(f"{name}: ")[2].partition(" trials, 0 got through")[0])
    assert trials > 0


def test_a_race_that_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked by path and then opened by path, as it was."""

    def read(self: ImageAccess, source: Any) -> bytes:
        path, root = Path(source), Path(self.data_root or "")
        try:
            if not path.resolve().is_relative_to(root) or not path.is_file():
                raise ImageLoadError(str(source), "outside")
            time.sleep(0.001)
            return path.read_bytes() if path.is_file() else b"mine"
        except OSError as error:
            raise ImageLoadError(str(source), str(error)) from error

    monkeypatch.setattr(ImageAccess, "read", read)
    outcome = attack.data_root(time.monotonic() + 3)
    assert 0 < outcome.failures <= outcome.trials


def test_the_end_tells_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attack.ATTACKS, "data_root", lambda end: attack.AttackResult(3, 1))
    assert attack.main(["--seconds", "1", "--only", "data_root"]) == 1
