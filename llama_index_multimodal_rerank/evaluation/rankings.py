"""From the nodes that a retriever returned to ids of the benchmark, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llama_index.core.schema import BaseNode, NodeWithScore

from .benchmark import IMAGE_ID_KEY, Benchmark
from .json_files import first_double


def make_id_lookup(benchmark: Benchmark) -> Callable[[BaseNode], str]:
    """Return the function that gives the benchmark's id of a node.

    It is ``metadata["image_id"]``, else the node's id, else its picture's path, the path's last part or that
    without its ending: the first of these that the gallery has. Where no gallery is known, that the queries
    name; or else the node's own id.
    """
    gallery = benchmark.gallery
    named = {id_ for query in benchmark.queries for id_ in (*query.relevant, *query.excluded)}
    known = named if gallery is None else gallery.ids
    by_name = {} if gallery is None else {path.name: id_ for id_, path in gallery.files.items()}

    def id_of(node: BaseNode) -> str:
        path = getattr(node, "image_path", None) or ""
        name = path.replace("\\", "/").rpartition("/")[2]
        candidates = (
            str(node.metadata.get(IMAGE_ID_KEY, "")),
            node.node_id,
            path,
            by_name.get(name, name),
            name.rpartition(".")[0],
        )
        for candidate in candidates:
            if candidate in known:
                return candidate
        if gallery is None:
            return node.node_id
        raise ValueError(
            f"the retriever returned node {node.node_id!r} ({path or 'no image_path'}), which is not in "
            f"the gallery ({benchmark.name} {benchmark.split}, {gallery.kind}, {len(gallery.ids)} pictures). "
            f"Index gallery_nodes(benchmark) and nothing else, or put the ids into "
            f'metadata["{IMAGE_ID_KEY}"]'
        )

    return id_of


def check_different_pictures(ids: Sequence[str], whose: str, query_id: str) -> None:
    """Check that no picture is in a list twice: each would count again, and the others move back.

    Raises:
        ValueError: one is.
    """
    if (double := first_double(ids)) is not None:
        places = [place for place, id_ in enumerate(ids, start=1) if id_ == double]
        raise ValueError(
            f"query {query_id!r}: the picture {double!r} is in the list of {whose} more than once, at places "
            f"{places}. If it is indexed twice, build the index again (milvus_store(…, overwrite=True)); "
            "several pictures of one product need a postprocessor that keeps one of each"
        )


def put_first(first: Sequence[NodeWithScore], rest: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    """Return a reranked list, followed by what it does not have of the list before, in its order."""
    there = {hit.node.node_id for hit in first}
    return [*first, *(hit for hit in rest if hit.node.node_id not in there)]
