"""ImageSearchTool: a tool that an agent searches pictures with, by words, a picture, or both."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.tools import FunctionTool, ToolMetadata, ToolOutput
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters

from ..images.access import ImageAccess
from ..images.errors import ImageLoadError
from ..images.sources import as_path, is_url
from ..images.url_hosts import AllowUrls
from ..logs import one_line
from ..schema.nodes import node_image
from ..schema.query import ImageTextQuery
from .arguments import arguments_model, checked, metadata_filters, shortened
from .errors import SearchArgumentError
from .results import as_json, audit_word, describe_hits

logger = logging.getLogger(__name__)

DESCRIPTION = (
    "Search a collection of pictures by words, by a query picture, or by both together: a picture and words "
    "that say what is to be different ('the same in red') or what its pattern is to be on ('a mug with "
    "this'). Give text, a picture, or both. The answer is JSON: results, best first, each with rank, id, "
    "file, score and, where known, title and reason. To search on from a result, pass its id as image_id."
)


class ImageSearchTool(FunctionTool):
    """A tool with which agents search pictures: words, picture, or both in, JSON out.

    LlamaIndex' own tools turn what they are given into a string, which drops the picture, and return the
    texts of nodes, which pictures do not have. This one works where tools do: in ``FunctionAgent``,
    ``ReActAgent``, workflows, ``tool.call(...)`` and ``await tool.acall(...)``. ``str(...)`` of what is
    returned is what the agent reads; ``raw_output`` is the same as a dict.

    What an agent sends is not trusted. Arguments are checked, lengths are limited, pictures are read from
    ``data_root`` and from allowed URLs alone, ids lead to nodes of this index alone, and only
    ``filter_fields`` can be filtered by. What cannot be carried out is answered by
    ``{"error": ...}``, which says what to do instead; paths and details of the server go to the log.

    Example:
        >>> from llama_index.core import VectorStoreIndex
        >>> from llama_index_multimodal_rerank import ImageSearchTool, VisualizedBGEEmbedding, image_node
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> looks = [Look(kind, "dots", "red") for kind in ("mug", "shoe", "umbrella")]
        >>> nodes = [image_node(draw_query_picture(look, seed=1), id_=look.kind) for look in looks]
        >>> index = VectorStoreIndex(nodes, embed_model=VisualizedBGEEmbedding(model_name="demo"))
        >>> tool = ImageSearchTool(index)
        >>> tool.call(text="a shoe with dots", top_k=1).raw_output["results"][0]["id"]
        'shoe'
        >>> tool.call(image_id="mug", text="the same as an umbrella").raw_output["results"][0]["id"]
        'umbrella'
        >>> print(tool.call(image_id="hat"))
        {"error": "image_id is 'hat', which is no result of this collection: pass the id of a result"}

    Args:
        index: what is searched.
        node_postprocessors: applied to what was retrieved, such as a ``Phi3VisionRerank``. Its ``top_n``
            limits the results; give it ``max_top_k``.
        similarity_top_k: nodes to retrieve, 1 or more; if more results are asked for, as many as these.
        top_k: results where the agent asks for no number.
        max_top_k: the most results that an agent may ask for.
        filter_fields: metadata that an agent may filter by and is shown: names, or names with what they are
            (``{"price": "euros, a number"}``). Default: none.
        filters: conditions that hold for every search and cannot be left out by the agent, such as
            whose pictures may be seen.
        title_keys: metadata that may hold a title, the first that is there is shown. Default of
            all: the node's text.
        data_root: the only folder that query pictures are read from; relative paths begin there. Default:
            that of the index' embedding. Without one, paths are no argument at all.
        allow_urls: fetch query pictures from http(s) URLs; see :class:`ImageAccess`. Off by default.
        name: of the tool.
        description: tells the LLM what is in the collection; it is put before what the tool does.
        **retriever_kwargs: handed to ``VectorIndexRetriever``, such as ``vector_store_query_mode="hybrid"``.

    Raises:
        ValueError: a number is below 1, ``top_k`` is more than ``max_top_k``, or name and description are
            too long for OpenAI's function calls.
    """

    def __init__(
        self,
        index: VectorStoreIndex,
        *,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        similarity_top_k: int = 9,
        top_k: int = 5,
        max_top_k: int = 20,
        filter_fields: Iterable[str] | Mapping[str, str] = (),
        filters: MetadataFilters | None = None,
        title_keys: Sequence[str] = ("title", "name"),
        data_root: str | os.PathLike[str] | None = None,
        allow_urls: AllowUrls = False,
        name: str = "search_images",
        description: str = "",
        **retriever_kwargs: Any,
    ) -> None:
        if not 1 <= top_k <= max_top_k or similarity_top_k < 1:
            raise ValueError(
                f"top_k must be 1 to max_top_k, similarity_top_k 1 or more; got top_k={top_k}, "
                f"max_top_k={max_top_k}, similarity_top_k={similarity_top_k}"
            )
        embedding = index._embed_model
        root = data_root if data_root is not None else getattr(embedding, "data_root", None)
        self._root = None if root is None else Path(root).absolute()
        self._access = ImageAccess(allow_urls, self._root)
        self._index, self._retriever_kwargs = index, retriever_kwargs
        self._postprocessors = tuple(node_postprocessors)
        self._similarity_top_k, self._top_k, self._filters = similarity_top_k, top_k, filters
        given = filter_fields if isinstance(filter_fields, Mapping) else dict.fromkeys(filter_fields, "")
        self._fields, self._title_keys = dict(given), tuple(title_keys)
        self._schema = arguments_model(
            paths=self._readable(), filter_fields=self._fields, default_top_k=top_k, max_top_k=max_top_k
        )
        text = f"{description} {DESCRIPTION}".strip()
        if len(text) > 1024:  # what OpenAI takes
            raise ValueError(
                f"description must have at most {1023 - len(DESCRIPTION)} characters, got {len(description)}"
            )
        super().__init__(
            fn=self._search,
            async_fn=self._asearch,
            metadata=ToolMetadata(name=name, description=text, fn_schema=self._schema),
        )

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Search.

        Args:
            *args: the words, if they are not given by name.
            **kwargs: see ``metadata.fn_schema``.
        """
        return self._output(args, kwargs, self._search(*args, **kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """As :meth:`call`."""
        return self._output(args, kwargs, await self._asearch(*args, **kwargs))

    def _output(self, args: tuple[Any, ...], kwargs: dict[str, Any], found: dict[str, Any]) -> ToolOutput:
        return ToolOutput(
            content=as_json(found),
            tool_name=self.metadata.get_name(),
            raw_input={"args": args, "kwargs": kwargs},
            raw_output=found,
            is_error="error" in found,
        )

    def _search(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            query, retriever, count = self._prepare(args, kwargs)
            hits = retriever.retrieve(query)
            for postprocessor in self._postprocessors:
                hits = postprocessor.postprocess_nodes(hits, query_bundle=query)
            return self._found(hits, count)
        except Exception as error:  # whatever it is, an agent goes on
            return self._failed(error, kwargs)

    async def _asearch(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            query, retriever, count = await asyncio.to_thread(self._prepare, args, kwargs)
            hits = await retriever.aretrieve(query)
            for postprocessor in self._postprocessors:
                hits = await postprocessor.apostprocess_nodes(hits, query_bundle=query)
            return self._found(hits, count)
        except Exception as error:
            return self._failed(error, kwargs)

    def _prepare(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[ImageTextQuery, BaseRetriever, int]:
        """Return the query of a call, who answers it, and how many results are wanted."""
        if len(args) > 1 or (args and "text" in kwargs):
            raise SearchArgumentError("give text once, and everything else by name")
        arguments = checked(self._schema, {**({"text": args[0]} if args else {}), **kwargs})
        path = getattr(arguments, "image_path", None)
        if path and arguments.image_id:
            raise SearchArgumentError("there are two pictures: give image_id or image_path, not both")
        count = arguments.top_k or self._top_k
        filters = self._all_filters(metadata_filters(getattr(arguments, "filters", None)))
        text = (arguments.text or "").strip()
        if arguments.image_id:
            query = self._query_like(text, arguments.image_id)
        elif path:
            query = ImageTextQuery(text, image=self._read(path))
        elif text:
            query = ImageTextQuery(text)
        else:
            raise SearchArgumentError("there is nothing to look for: give text, a picture, or both")
        return query, self._retriever(max(count, self._similarity_top_k), filters), count

    def _retriever(self, count: int, filters: MetadataFilters | None, **kwargs: Any) -> BaseRetriever:
        options = {"similarity_top_k": count, "filters": filters, **self._retriever_kwargs, **kwargs}
        if "node_ids" not in options:
            return self._index.as_retriever(**options)
        return VectorIndexRetriever(self._index, embed_model=self._index._embed_model, **options)

    def _all_filters(self, given: list[Any]) -> MetadataFilters | None:
        fixed = self._filters
        if fixed is None or not fixed.filters:
            return MetadataFilters(filters=given) if given else None
        if not given:
            return fixed
        # Not every store takes groups in groups.
        own = fixed.filters if fixed.condition == FilterCondition.AND else [fixed]
        return MetadataFilters(filters=[*own, *given], condition=FilterCondition.AND)

    # -- query pictures ---------------------------------------------------------------------------

    def _readable(self) -> str | None:
        """Say which pictures may be named; None for none."""
        allowed = []
        if self._root is not None:
            allowed.append("the path of a file in the folder of query pictures, relative to it")
        if self._access.allow_urls:
            hosts = self._access.allow_urls
            public = "an http(s) URL of a public address"
            allowed.append(public if hosts is True else f"an http(s) URL at {', '.join(hosts)}")
        return ", or ".join(allowed) or None

    def _read(self, path: str) -> bytes:
        """Return a query picture's bytes; it is decoded later, within the embedding's limits."""
        refused = SearchArgumentError(
            f"image_path is {shortened(path, 120)!r}, and no picture can be read there; allowed is "
            f"{self._readable()}. Check the name, or pass image_id"
        )
        local = as_path(path)
        if (local is None and not is_url(path)) or (local is not None and self._root is None):
            raise refused
        source = path if local is None or self._root is None else self._root / local
        try:
            return self._access.check(source).data
        except (ImageLoadError, OSError, ValueError) as error:
            logger.warning("A query picture of an agent was not read: %s", one_line(str(error)))
            raise refused from None

    def _query_like(self, text: str, node_id: str) -> ImageTextQuery:
        """Return a query with the picture of a node that the agent may see."""
        node = self._node(node_id)
        source = None if node is None else node_image(node)
        if node is not None and source is None:
            raise SearchArgumentError(
                f"the result {shortened(node_id, 120)!r} has no picture: pass the id of one that has"
            )
        query = _with_picture(text, source) if source is not None else None
        if query is not None and self._filters is not None:
            seen = self._retriever(1, self._filters, node_ids=[node_id]).retrieve(_with_picture("", source))
            query = query if [hit.node.node_id for hit in seen] == [node_id] else None
        if query is None:
            raise SearchArgumentError(
                f"image_id is {shortened(node_id, 120)!r}, which is no result of this collection: pass the "
                "id of a result"
            )
        return query

    def _node(self, node_id: str) -> BaseNode | None:
        try:
            found = self._index.vector_store.get_nodes(node_ids=[node_id])
        except NotImplementedError:  # stores that keep vectors alone
            found = self._index.docstore.get_nodes([node_id], raise_error=False)
        # Not every store takes an id for nothing but an id.
        return next((node for node in found if node.node_id == node_id), None)

    # -- results ----------------------------------------------------------------------------------

    def _found(self, hits: Sequence[NodeWithScore], count: int) -> dict[str, Any]:
        results = describe_hits(hits[:count], title_keys=self._title_keys, metadata_keys=self._fields)
        found: dict[str, Any] = {"results": results}
        if (audit := audit_word(hits)) is not None:
            found["reranking"] = audit
        if not results:
            found["note"] = "nothing was found; loosen filters, or use other words"
        return found

    def _failed(self, error: Exception, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(error, SearchArgumentError):
            return {"error": str(error)}
        if isinstance(error, ImageLoadError):  # candidates that cannot be read are no errors
            logger.warning("A query picture of an agent was not read: %s", one_line(str(error)))
            named = shortened(arguments.get("image_id") or arguments.get("image_path"), 120)
            return {
                "error": f"the picture of {named!r} cannot be read any more: pass the id of another result, "
                "or search with words"
            }
        from ..milvus.filters import FilterError

        if isinstance(error, FilterError):
            return {"error": shortened(one_line(str(error)), 400)}
        logger.error("A search of an agent failed: %s", one_line(str(error)), exc_info=error)
        return {
            "error": f"the search failed ({type(error).__name__}), which is no fault of the arguments: try "
            "again once, then tell the user"
        }


def _with_picture(text: str, source: Any) -> ImageTextQuery:
    if isinstance(source, (str, os.PathLike)) and (as_path(source) is not None or is_url(source)):
        return ImageTextQuery(text, image_path=str(source))
    return ImageTextQuery(text, image=source)
