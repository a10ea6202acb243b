"""GroupByProduct: of several photographs of one product, the best."""

from __future__ import annotations

import logging

from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from ..schema.annotations import each_once
from ..schema.nodes import describe_node
from .left_out import SAME_PRODUCT_KEY, with_left_out

logger = logging.getLogger(__name__)


class GroupByProduct(BaseNodePostprocessor):
    """Keep the best picture of each product.

    Hits come best first, as from a retriever, and the first of each product stays. Its metadata has the ids
    of the others, ``same_product``, which are kept out of what an LLM or embedding model reads. Scores and
    order stay; hits are copied, not changed.

    It can only choose among what was retrieved. With at most ``p`` pictures of a product, ``top_k`` products
    are certainly among the first ``(top_k - 1) * p + 1`` hits: :meth:`rows_needed`. If there are fewer
    products than ``top_k`` a warning is logged, since more may be in the store.

    A node without the key, or with None or ``""`` for it, is a product of its own.

    Example:
        Three photographs of two mugs:

        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from llama_index_multimodal_rerank import GroupByProduct
        >>> photographs = [("m1-front", "M1", 0.9), ("m1-side", "M1", 0.8), ("m2-front", "M2", 0.7)]
        >>> hits = [NodeWithScore(node=TextNode(id_=name, metadata={"product": product}), score=score)
        ...         for name, product, score in photographs]
        >>> best = GroupByProduct(group_id="product", top_k=2).postprocess_nodes(hits)
        >>> [(hit.node.node_id, hit.score, hit.node.metadata.get("same_product")) for hit in best]
        [('m1-front', 0.9, ['m1-side']), ('m2-front', 0.7, None)]
        >>> GroupByProduct.rows_needed(top_k=9, pictures_per_product=3)
        25

    Args:
        group_id: metadata key that tells products apart; its values are strings or numbers.
        top_k: products to return at most. Default: all that were retrieved.

    Raises:
        ValueError: at construction, ``group_id`` is empty or ``top_k`` less than 1; from
            ``postprocess_nodes``, a node has something else than a string or a number under the key.
    """

    model_config = ConfigDict(validate_assignment=True, extra="forbid")

    group_id: str = Field(
        default="parent_asin", min_length=1, description="Metadata key that tells products apart."
    )
    top_k: int | None = Field(
        default=None, ge=1, description="Products to return at most. Default: all that were retrieved."
    )

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "GroupByProduct"

    @staticmethod
    def rows_needed(top_k: int, pictures_per_product: int) -> int:
        """Return the ``similarity_top_k`` among which there certainly are enough products.

        Args:
            top_k: products wanted, 1 or more; for the second page of nine, 18.
            pictures_per_product: the most that any product has, 1 or more.

        Raises:
            ValueError: one is less than 1.
        """
        for name, value in (("top_k", top_k), ("pictures_per_product", pictures_per_product)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        return (top_k - 1) * pictures_per_product + 1

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        groups: dict[object, list[NodeWithScore]] = {}
        for hit in each_once(nodes):
            groups.setdefault(self._product(hit), []).append(hit)
        if self.top_k is not None and len(groups) < self.top_k and len(groups) < len(nodes):
            logger.warning(
                "Only %d products, told apart by %r, are among %d hits; top_k is %d. Retrieve more: "
                "similarity_top_k=GroupByProduct.rows_needed(...).",
                len(groups),
                self.group_id,
                len(nodes),
                self.top_k,
            )
        chosen = list(groups.values())[: self.top_k]
        return [with_left_out(best, others, SAME_PRODUCT_KEY) for best, *others in chosen]

    def _product(self, hit: NodeWithScore) -> object:
        value = hit.node.metadata.get(self.group_id)
        if value is None or value == "":
            return ("node", hit.node.node_id)
        if not isinstance(value, str | int | float):
            raise ValueError(
                f"{describe_node(hit.node)}: metadata[{self.group_id!r}] must be a string or a number, to "
                f"tell products apart, got {type(value).__name__} {value!r:.100}"
            )
        return ("product", value)
