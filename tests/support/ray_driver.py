"""A process that indexes by Ray, to be killed: ``python -m support.ray_driver '{"source": …}'``."""

from __future__ import annotations

import json
import sys
from typing import Any

import ray

from llama_index_multimodal_rerank.indexing.milvus_server import MilvusServer
from llama_index_multimodal_rerank.indexing.parquet_folder import ParquetFolder
from llama_index_multimodal_rerank.indexing.ray_index import IndexedWithRay, index_with_ray
from llama_index_multimodal_rerank.indexing.targets import Target

from .ray_doubles import PixelEmbedding


def start_ray() -> None:
    """Start Ray on this machine, with four CPUs, however many there are: most workers wait."""
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=256 * 2**20, log_to_driver=False)


def make_target(place: dict[str, Any]) -> Target:
    """Return the target that a dictionary names."""
    return MilvusServer(**place) if "uri" in place else ParquetFolder(**place)


def index(run: dict[str, Any]) -> IndexedWithRay:
    """Index what a dictionary says, on the Ray that is there."""
    return index_with_ray(
        run["source"],
        PixelEmbedding(**run["embedding"]),
        make_target(run["target"]),
        report=run["report"],
        actors=run.get("actors", 2),
        batch_size=run.get("batch_size", 16),
    )


if __name__ == "__main__":
    start_ray()
    index(json.loads(sys.argv[1]))
