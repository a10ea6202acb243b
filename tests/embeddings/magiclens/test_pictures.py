"""Pictures come in by the same door as elsewhere: ``data_root``, ``allow_urls``, damaged files."""

from __future__ import annotations

import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_picture
from support.magiclens_golden import assert_close

from llama_index_multimodal_rerank import (
    ImageLoadError,
    MagicLensEmbedding,
)


def test_data_root_and_allow_urls(checkpoint: Path, pictures: list[Path], tmp_path: Path) -> None:
    confined = MagicLensEmbedding(model_name=str(checkpoint), device="cpu", data_root=str(pictures[0].parent))
    assert len(confined.get_image_embedding(pictures[0])) == confined.dim
    outside = tmp_path / "outside.png"
    draw_picture(0).save(outside)
    with pytest.raises(ImageLoadError, match="data_root"):
        confined.get_image_embedding(outside)
    with pytest.raises(ImageLoadError, match="allow_urls=True"):
        confined.get_image_embedding("http://127.0.0.1:9/a.png")

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(pictures[0].parent))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        fetching = MagicLensEmbedding(model_name=str(checkpoint), device="cpu", allow_urls=[host])
        found = fetching.get_image_embedding(f"http://{host}/{pictures[0].name}")
        server.shutdown()
    assert_close(found, fetching.get_image_embedding(pictures[0]))


def test_broken_pictures_are_named(lens: MagicLensEmbedding, pictures: list[Path]) -> None:
    pictures[0].write_bytes(pictures[0].read_bytes()[:200])
    with pytest.raises(ImageLoadError, match=r"picture-0\.png'?: it is damaged"):
        lens.get_image_embedding(pictures[0])
