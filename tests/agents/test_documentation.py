"""The example of an agent says what happens. The page's programs: tests/test_pages.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.machine import run_script

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [*run_script(), str(EXAMPLES / "agent.py")],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output = done.stdout
    assert output.count("The agent searched:") == 2
    assert output.splitlines()[-1] == "It is leopard_shoe.png."
