"""The demo's model in this process, and a service of it in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.drawing import draw_picture

from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding


class ServiceProcess:
    """``python -m llama_index_multimodal_rerank.serving`` on a port of 127.0.0.1."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--model", "demo", "--device", "cpu", "--dtype", "float32", "--max-items", "8"]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "llama_index_multimodal_rerank.serving",
                *options,
                "--port",
                str(self.port),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def end(self, how: signal.Signals) -> int:
        """Send a signal, wait, and return the exit code."""
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(timeout=120)


@pytest.fixture(scope="session")
def served() -> VisualizedBGEEmbedding:
    return VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def service() -> Iterator[ServiceProcess]:
    process = ServiceProcess()
    process.start()
    yield process
    process.end(signal.SIGKILL)


def mixed_items(count: int, *, of: int = 0) -> list[ImageText | str]:
    """Texts, pictures, and pairs of both, different for each ``of``."""
    items: list[ImageText | str] = []
    for number in range(count):
        own = 100 * of + number
        picture = draw_picture(own % 40, (48 + own % 7, 40))
        kinds = (
            f"a mug, number {own}",
            ImageText("", picture),
            ImageText(f"like this, {own} times", picture),
        )
        items.append(kinds[own % 3])
    return items
