"""A service in a thread of this process: for examples, notebooks and tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from .app import build_app
from .limits import Limits

if TYPE_CHECKING:
    from ..embeddings.image_text_embedding import ImageTextEmbedding


@contextmanager
def serve_in_thread(
    embed_model: ImageTextEmbedding, limits: Limits | None = None, *, port: int = 0
) -> Iterator[str]:
    """Serve on 127.0.0.1 inside of the ``with`` block; yields the endpoint.

    Args:
        embed_model: what is served.
        limits: what it takes on.
        port: 0 takes a free one.

    Raises:
        RuntimeError: it does not start; the log says why.
    """
    server = uvicorn.Server(
        uvicorn.Config(build_app(embed_model, limits), log_level="warning", lifespan="on")
    )
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the embedding service did not start; its log says why")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
