"""Start the service: ``python -m llama_index_multimodal_rerank.serving --model BAAI/bge-visualized``."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..embeddings.magiclens import MagicLensEmbedding
from ..embeddings.visualized_bge import VisualizedBGEEmbedding
from .limits import MIB, Limits

if TYPE_CHECKING:
    from ..embeddings.image_text_embedding import ImageTextEmbedding

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8765
EMBEDDINGS = {"visualized-bge": VisualizedBGEEmbedding, "magiclens": MagicLensEmbedding}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m llama_index_multimodal_rerank.serving",
        description="Embed texts and pictures for other processes. There is no password: whoever reaches the "
        "port can use the model.",
    )
    parser.add_argument("--embedding", choices=EMBEDDINGS, default="visualized-bge", help="kind of model")
    parser.add_argument("--model", help="checkpoint: name on the hub, path, or demo")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument("--device", help="torch device, such as cuda:0")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--cache-folder", help="where files of the hub are kept")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    parser.add_argument("--apply-exif-orientation", action="store_true", help="turn photographs as they say")
    parser.add_argument("--max-items", type=int, default=limits.max_items, help="items of a request")
    parser.add_argument("--max-body-mib", type=int, default=limits.max_body_bytes // MIB, help="of a request")
    parser.add_argument("--max-requests", type=int, default=limits.max_requests, help="served at a time")
    parser.add_argument(
        "--max-queue-mib",
        type=int,
        default=limits.max_queue_bytes // MIB,
        help="of all requests being served",
    )
    parser.add_argument("--max-batch", type=int, default=limits.max_batch, help="items for the model at once")
    return parser


def embedding_of(options: argparse.Namespace) -> ImageTextEmbedding:
    """Return the embedding that the command line asks for; its model is not loaded yet."""
    given: dict[str, Any] = {
        "model_name": options.model,
        "device": options.device,
        "dtype": options.dtype,
        "revision": options.revision,
        "cache_folder": options.cache_folder,
        "local_files_only": options.local_files_only,
        "apply_exif_orientation": options.apply_exif_orientation,
    }
    return EMBEDDINGS[options.embedding](
        **{name: value for name, value in given.items() if value is not None}
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is told to end; what is under way then is finished first."""
    options = parser().parse_args(arguments)
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        sys.exit("the service needs two more packages: pip install 'llama-index-multimodal-rerank[serve]'")
    import uvicorn

    from .app import build_app

    limits = Limits(
        max_items=options.max_items,
        max_body_bytes=options.max_body_mib * MIB,
        max_requests=options.max_requests,
        max_queue_bytes=options.max_queue_mib * MIB,
        max_batch=options.max_batch,
    )
    if not _is_loopback(options.host):
        logger.warning(
            "%s is no loopback address, and the service asks for no password: whoever reaches port %d can "
            "use it. Let only your own machines reach it.",
            options.host,
            options.port,
        )
    uvicorn.run(
        build_app(embedding_of(options), limits),
        host=options.host,
        port=options.port,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=30,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
