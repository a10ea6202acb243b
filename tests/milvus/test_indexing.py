"""The same pictures, indexed in every way LlamaIndex knows, on a Milvus Lite file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import Settings, StorageContext, VectorStoreIndex
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, MediaResource, Node
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from support.drawing import draw_picture
from support.visualized_bge_golden import SAME

from llama_index_multimodal_rerank import (
    ImageText,
    ImageTextQuery,
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
    milvus_store,
    to_image_nodes,
)


@pytest.fixture(autouse=True)
def no_llm() -> Iterator[None]:
    Settings.llm = None
    yield
    Settings.llm = None


@pytest.fixture
def expected(embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> dict[str, np.ndarray]:
    vectors = embed_model.model.encode([draw_picture(seed) for seed in range(len(pictures))])
    return {str(path): vector for path, vector in zip(pictures, vectors, strict=True)}


def stored_vectors(store: object) -> dict[str, np.ndarray]:
    rows = store.client.query(store.collection_name, filter='id != ""', output_fields=["*"], limit=1000)  # type: ignore[attr-defined]
    assert len({row["file_path"] for row in rows}) == len(rows)
    return {row["file_path"]: np.asarray(row["embedding"]) for row in rows}


def by_pipeline(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    IngestionPipeline(transformations=[model], vector_store=store).run(nodes=load_image_nodes(folder))


def by_pipeline_with_cache_one_by_one(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    pipeline = IngestionPipeline(transformations=[model], vector_store=store, cache=IngestionCache())
    for node in load_image_nodes(folder):
        pipeline.run(nodes=[node])


def by_documents_of_pipeline(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    IngestionPipeline(
        transformations=[model],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    ).run(documents=load_image_nodes(folder))


def by_index(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(load_image_nodes(folder), storage_context=context, embed_model=model)


def by_async_index(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(load_image_nodes(folder), storage_context=context, embed_model=model, use_async=True)


def by_from_documents(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex.from_documents(
        load_image_nodes(folder), storage_context=context, embed_model=model, transformations=[model]
    )


def by_insert_nodes(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    for node in load_image_nodes(folder):
        index.insert_nodes([node])


def by_multi_modal_index(folder: Path, store: object, model: VisualizedBGEEmbedding) -> None:
    context = StorageContext.from_defaults(image_store=store)
    MultiModalVectorStoreIndex(
        load_image_nodes(folder), storage_context=context, embed_model=model, image_embed_model=model
    )


WAYS = [
    by_pipeline,
    by_pipeline_with_cache_one_by_one,
    by_documents_of_pipeline,
    by_index,
    by_async_index,
    by_from_documents,
    by_insert_nodes,
    by_multi_modal_index,
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_stores_the_same_vectors(
    way: Callable[..., None],
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    expected: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    store = milvus_store(tmp_path / "m.db", embed_model)
    way(pictures[0].parent, store, embed_model)
    stored = stored_vectors(store)
    assert stored.keys() == expected.keys()
    for path, vector in expected.items():
        np.testing.assert_allclose(stored[path], vector, atol=1e-5, rtol=0, err_msg=path)
    # ... and a composed query finds the picture itself first, as an ImageNode with its path.
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    hits = index.as_retriever(similarity_top_k=3).retrieve(ImageTextQuery("", image_path=str(pictures[4])))
    assert len(hits) == 3
    assert type(hits[0].node) is ImageNode
    assert hits[0].node.image_path == str(pictures[4])
    assert hits[0].score == pytest.approx(1.0, abs=1e-4)


def test_an_index_without_a_vector_store_works_too(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    index = VectorStoreIndex(load_image_nodes(pictures), embed_model=embed_model)
    hits = index.as_retriever(similarity_top_k=2).retrieve(ImageTextQuery("", image_path=str(pictures[2])))
    assert hits[0].node.image_path == str(pictures[2])


def test_an_index_that_inserted_one_picture_still_finds_all(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", embed_model)
    by_pipeline(pictures[0].parent, store, embed_model)
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    draw_picture(99).save(tmp_path / "new.png")
    index.insert_nodes([image_node(tmp_path / "new.png")])
    hits = index.as_retriever(similarity_top_k=10).retrieve(ImageTextQuery("", image_path=str(pictures[0])))
    assert len(hits) == 7
    assert hits[0].node.image_path == str(pictures[0])


def test_a_text_splitter_is_caught(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    nodes = load_image_nodes(pictures, text=lambda path: f"caption of {path.name}")
    with pytest.raises(ValueError, match="names a picture but does not carry it"):
        IngestionPipeline(transformations=[SentenceSplitter(), embed_model]).run(nodes=nodes)
    with pytest.raises(ValueError, match="names a picture but does not carry it"):
        VectorStoreIndex.from_documents(
            load_image_nodes(pictures), embed_model=embed_model, transformations=[SentenceSplitter()]
        )


def test_pipeline_cache_serves_pictures_and_sees_changes(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    pipeline = IngestionPipeline(transformations=[embed_model], cache=IngestionCache())
    first, second = (pipeline.run(nodes=[image_node(path)])[0].embedding for path in pictures[:2])
    assert np.abs(np.subtract(first, second)).max() > 1e-3
    assert pipeline.run(nodes=[image_node(pictures[0])])[0].embedding == pytest.approx(first, abs=SAME)
    pictures[0].write_bytes(pictures[1].read_bytes())
    assert pipeline.run(nodes=[image_node(pictures[0])])[0].embedding == pytest.approx(second, abs=SAME)


def other_peoples_node(kind: str, path: Path) -> BaseNode:
    if kind == "Node":
        return Node(image_resource=MediaResource(path=path))
    if kind == "ImageDocument of a reader":
        return ImageDocument(image_path=str(path), metadata={"file_path": str(path)})
    return (ImageDocument if kind == "ImageDocument" else ImageNode)(image_path=str(path))


@pytest.mark.parametrize("kind", ["ImageDocument", "ImageNode", "Node", "ImageDocument of a reader"])
async def test_pipeline_cache_tells_other_peoples_pictures_apart(
    kind: str, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    pipeline = IngestionPipeline(transformations=[embed_model], cache=IngestionCache())

    def nodes(paths: list[Path]) -> list[BaseNode]:
        return [other_peoples_node(kind, path) for path in paths]

    told = r"which picture.*run\(nodes=to_image_nodes\(nodes\)\)"
    with pytest.raises(ValueError, match=told):
        pipeline.run(nodes=nodes(pictures[:2]))
    with pytest.raises(ValueError, match=told):
        await pipeline.arun(nodes=nodes(pictures[:2]))
    rows = [row for path in pictures for row in pipeline.run(nodes=to_image_nodes(nodes([path])))]
    assert len({row.node_id for row in rows}) == len({tuple(row.embedding or ()) for row in rows}) == 6
    pictures[0].write_bytes(pictures[1].read_bytes())
    changed = pipeline.run(nodes=to_image_nodes(nodes([pictures[0]])))[0]
    assert changed.embedding == pytest.approx(rows[1].embedding, abs=SAME)


def test_docstore_upserts_skip_the_same_and_replace_the_changed(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", embed_model)
    pipeline = IngestionPipeline(
        transformations=[embed_model],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    folder = pictures[0].parent
    assert len(pipeline.run(documents=load_image_nodes(folder))) == 6
    assert len(pipeline.run(documents=load_image_nodes(folder))) == 0
    draw_picture(77).save(pictures[0])
    assert len(pipeline.run(documents=load_image_nodes(folder))) == 1
    stored = stored_vectors(store)
    assert len(stored) == 6
    np.testing.assert_allclose(
        stored[str(pictures[0])], embed_model.model.encode([draw_picture(77)])[0], atol=1e-5, rtol=0
    )


def test_an_index_in_memory_forgets_a_deleted_picture(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    nodes = load_image_nodes(pictures)
    index = VectorStoreIndex(nodes, embed_model=embed_model)
    index.delete_ref_doc(nodes[2].node_id, delete_from_docstore=True)
    left = {node.node_id for node in nodes} - {nodes[2].node_id}
    assert set(index.docstore.docs) == left
    hits = index.as_retriever(similarity_top_k=9).retrieve(ImageTextQuery("", image_path=str(pictures[2])))
    assert {hit.node.node_id for hit in hits} == left


# -- querying --------------------------------------------------------------------------------


@pytest.fixture
def index(embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path) -> VectorStoreIndex:
    store = milvus_store(tmp_path / "m.db", embed_model)
    by_pipeline(pictures[0].parent, store, embed_model)
    return VectorStoreIndex.from_vector_store(store, embed_model=embed_model)


def brute_force(
    embed_model: VisualizedBGEEmbedding, expected: dict[str, np.ndarray], text: str, image: Path | None
) -> list[str]:
    item = text if image is None else (text, draw_picture(int(image.stem[-1])))
    query = embed_model.model.encode([item])[0]
    return sorted(expected, key=lambda path: -float(expected[path] @ query))


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("text", ["a mug with this", ""])
@pytest.mark.parametrize("with_image", [True, False])
async def test_query_engines_answer_as_brute_force(
    index: VectorStoreIndex,
    embed_model: VisualizedBGEEmbedding,
    expected: dict[str, np.ndarray],
    pictures: list[Path],
    use_async: bool,
    text: str,
    with_image: bool,
) -> None:
    if not text and not with_image:
        pytest.skip("an empty query is an error, see test_query.py")
    image = pictures[3] if with_image else None
    right = brute_force(embed_model, expected, text, image)
    query = ImageTextQuery(text, image_path=None if image is None else str(image))
    engine = index.as_query_engine(similarity_top_k=6, response_mode="no_text")
    fusion = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=6)], similarity_top_k=6, num_queries=1, use_async=use_async
    )
    router = RouterQueryEngine(
        selector=LLMSingleSelector.from_defaults(llm=FirstChoice()),
        query_engine_tools=[QueryEngineTool.from_defaults(engine, description="pictures")],
        llm=MockLLM(),
    )
    if use_async:
        answers = [(await engine.aquery(query)).source_nodes, await fusion.aretrieve(query)]
        answers.append((await router.aquery(query)).source_nodes)
    else:
        answers = [engine.query(query).source_nodes, fusion.retrieve(query), router.query(query).source_nodes]
    for hits in answers:
        assert [hit.node.image_path for hit in hits] == right


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("text", ["a mug with this", ""])
async def test_strings_with_pictures_answer_as_brute_force_everywhere(
    index: VectorStoreIndex,
    embed_model: VisualizedBGEEmbedding,
    expected: dict[str, np.ndarray],
    pictures: list[Path],
    use_async: bool,
    text: str,
) -> None:
    query = ImageText(text, pictures[3])
    retriever = index.as_retriever(similarity_top_k=6)
    engine = index.as_query_engine(similarity_top_k=6, response_mode="no_text")
    engine_tool = QueryEngineTool.from_defaults(engine, description="pictures")
    retriever_tool = RetrieverTool.from_defaults(retriever, description="pictures")
    chat = ContextChatEngine.from_defaults(retriever=retriever, llm=MockLLM())
    if use_async:
        answers = {
            "retriever": await retriever.aretrieve(query),
            "engine": (await engine.aquery(query)).source_nodes,
            "engine tool": (await engine_tool.acall(query)).raw_output.source_nodes,
            "engine tool by name": (await engine_tool.acall(input=query)).raw_output.source_nodes,
            "retriever tool": (await retriever_tool.acall(query)).raw_output,
            "chat": (await chat.achat(query)).source_nodes,
        }
    else:
        answers = {
            "retriever": retriever.retrieve(query),
            "engine": engine.query(query).source_nodes,
            "engine tool": engine_tool.call(query).raw_output.source_nodes,
            "engine tool by name": engine_tool.call(input=query).raw_output.source_nodes,
            "retriever tool": retriever_tool.call(query).raw_output,
            "chat": chat.chat(query).source_nodes,
        }
    right = brute_force(embed_model, expected, text, pictures[3])
    assert {name: [hit.node.image_path for hit in hits] for name, hits in answers.items()} == dict.fromkeys(
        answers, right
    )


class FirstChoice(MockLLM):
    """Routes every query to the first engine."""

    def predict(self, *args: object, **kwargs: object) -> str:
        return '[{"choice": 1, "reason": "the only one"}]'

    async def apredict(self, *args: object, **kwargs: object) -> str:
        return self.predict()


def test_multi_modal_retriever_composes(
    embed_model: VisualizedBGEEmbedding,
    expected: dict[str, np.ndarray],
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    store = milvus_store(tmp_path / "mm.db", embed_model)
    index = MultiModalVectorStoreIndex(
        load_image_nodes(pictures),
        storage_context=StorageContext.from_defaults(image_store=store),
        embed_model=embed_model,
        image_embed_model=embed_model,
        is_text_vector_store_empty=True,
    )
    retriever = index.as_retriever(image_similarity_top_k=6)
    right = brute_force(embed_model, expected, "a mug", pictures[5])
    hits = retriever.text_to_image_retrieve(ImageTextQuery("a mug", image_path=str(pictures[5])))
    assert [hit.node.image_path for hit in hits] == right
    hits = retriever.image_to_image_retrieve(ImageTextQuery("", image_path=str(pictures[5])))
    assert hits[0].node.image_path == str(pictures[5])
