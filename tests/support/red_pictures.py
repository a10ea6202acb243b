"""Six pictures, more or less red, and the orders of a served model that ranks by redness."""

from __future__ import annotations

from pathlib import Path

from llama_index.core.schema import NodeWithScore
from PIL import Image

from llama_index_multimodal_rerank import image_node

REDS = [20, 200, 90, 150, 60, 230]
BEST_FIRST = ["5", "1", "3", "2", "4", "0"]
RETRIEVED = [str(i) for i in range(6)]


def red_nodes(folder: Path) -> list[NodeWithScore]:
    """Return the pictures as they were retrieved, with their places as ids."""
    nodes = []
    for i, red in enumerate(REDS):
        Image.new("RGB", (40, 30), (red, 100, 250 - red)).save(folder / f"{i}.png")
        nodes.append(NodeWithScore(node=image_node(folder / f"{i}.png", id_=str(i)), score=0.9 - i / 100))
    return nodes
