"""The reranker in LlamaIndex's own engines, and with Milvus Lite from index to answer."""

import numpy as np
import pytest
import torch
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import ImageNode, QueryBundle, TextNode
from PIL import Image
from support.tiny_phi3_vision import write_folder
from support.vlm_doubles import ConstrainedTextModel, LogitModel, TextModel, has_query

from llama_index_multimodal_rerank import (
    ImageText,
    ImageTextQuery,
    LocalPhi3Vision,
    Phi3VisionRerank,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.reranking.candidates import read_query

REDS = [20, 200, 90, 150, 60, 230, 120, 40, 180]
BEST_THREE = [230, 200, 180]

kinds = pytest.mark.parametrize("kind", ["sync", "async"])


def paint(folder, red):
    path = folder / f"{red:03}.png"
    Image.new("RGB", (48, 48), (red, 100, 250 - red)).save(path)
    return path


@pytest.fixture(autouse=True)
def no_llm():
    Settings.llm = None
    yield
    Settings._llm = None


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for red in REDS:
        paint(folder, red)
    return folder


@pytest.fixture
def query(tmp_path):
    return ImageTextQuery("redder than this", image_path=str(paint(tmp_path, 128)))


@pytest.fixture
def index(folder, embed_model):
    return VectorStoreIndex(load_image_nodes(folder), embed_model=embed_model)


@pytest.fixture
def rerank():
    return Phi3VisionRerank(model=TextModel(), top_n=3)


def reds(hits):
    return [int(hit.node.metadata["file_name"][:3]) for hit in hits]


def check(hits):
    assert reds(hits) == BEST_THREE
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= hit.node.metadata["retrieval_score"] <= 1 for hit in hits)


@kinds
async def test_as_query_engine(index, rerank, query, kind):
    engine = index.as_query_engine(similarity_top_k=9, response_mode="no_text", node_postprocessors=[rerank])
    response = await engine.aquery(query) if kind == "async" else engine.query(query)

    check(response.source_nodes)


@kinds
async def test_retriever_query_engine(index, rerank, query, kind):
    engine = RetrieverQueryEngine(
        retriever=index.as_retriever(similarity_top_k=9),
        response_synthesizer=get_response_synthesizer(response_mode="no_text"),
        node_postprocessors=[rerank],
    )
    response = await engine.aquery(query) if kind == "async" else engine.query(query)

    check(response.source_nodes)


@kinds
async def test_query_fusion(index, rerank, query, kind):
    fusion = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=9), index.as_retriever(similarity_top_k=4)],
        llm=MockLLM(),
        num_queries=1,
        similarity_top_k=9,
        mode="reciprocal_rerank",
        use_async=kind == "async",
    )
    engine = RetrieverQueryEngine.from_args(
        fusion, response_mode="no_text", node_postprocessors=[rerank], use_async=kind == "async"
    )
    response = await engine.aquery(query) if kind == "async" else engine.query(query)

    check(response.source_nodes)


@kinds
@pytest.mark.parametrize("engine_class", [ContextChatEngine, CondensePlusContextChatEngine])
async def test_chat_engines(index, rerank, kind, engine_class, tmp_path):
    engine = engine_class.from_defaults(
        retriever=index.as_retriever(similarity_top_k=9),
        llm=MockLLM(),
        node_postprocessors=[rerank],
        memory=ChatMemoryBuffer.from_defaults(llm=MockLLM()),
    )
    message = ImageText("redder than this", paint(tmp_path, 129))
    response = await engine.achat(message) if kind == "async" else engine.chat(message)

    check(response.source_nodes)
    assert has_query(rerank.vision_language_model.images[0])
    assert rerank.vision_language_model.captions == 1


@kinds
async def test_what_the_llm_reads_does_not_hold_the_audit(rerank, kind):
    nodes = [TextNode(text=f"fact {i}") for i in range(4)]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    engine = CitationQueryEngine.from_args(
        index,
        llm=MockLLM(),
        similarity_top_k=4,
        node_postprocessors=[Phi3VisionRerank(model=TextModel(), top_n=2)],
    )
    response = await engine.aquery("facts") if kind == "async" else engine.query("facts")

    assert len(response.source_nodes) == 2
    assert "fact" in str(response)
    assert "rerank" not in str(response)
    assert "retrieval_score" not in str(response)


# -- Milvus Lite ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_phi3(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = write_folder(tmp_path_factory.mktemp("tiny-phi3"))
    yield LocalPhi3Vision(str(folder), device="cpu", dtype="float32", num_crops=4)
    torch.set_num_threads(threads)


@pytest.fixture
def milvus_index(folder, embed_model, tmp_path):
    store = milvus_store(tmp_path / "catalogue.db", embed_model)
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=load_image_nodes(folder))
    yield VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    store.client.close()


def engine_on(index, rerank):
    return index.as_query_engine(similarity_top_k=9, response_mode="no_text", node_postprocessors=[rerank])


@kinds
async def test_milvus_with_models_that_look(milvus_index, query, kind):
    for model, strategy in (
        (TextModel(), "listwise"),
        (ConstrainedTextModel(), "listwise"),
        (LogitModel(), "first_token"),
    ):
        engine = engine_on(milvus_index, Phi3VisionRerank(model=model, strategy=strategy, top_n=3))
        response = await engine.aquery(query) if kind == "async" else engine.query(query)

        check(response.source_nodes)
        # What Milvus gives back is a plain ImageNode.
        assert all(type(hit.node) is ImageNode for hit in response.source_nodes)


@kinds
@pytest.mark.parametrize("strategy", ["first_token", "listwise"])
async def test_milvus_with_the_tiny_phi3_vision(milvus_index, tiny_phi3, query, kind, strategy):
    rerank = Phi3VisionRerank(model=tiny_phi3, strategy=strategy, top_n=3, max_new_tokens=8)
    engine = engine_on(milvus_index, rerank)

    response = await engine.aquery(query) if kind == "async" else engine.query(query)

    hits = response.source_nodes
    assert len({hit.node.node_id for hit in hits}) == 3
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    first = hits[0].node.metadata
    assert first["rerank_rank"] == 1
    assert first["rerank_audit"]["listed"] == 9
    assert first["rerank_reason"]
    assert first["rerank_query_caption"]
    # Seeded weights rank by no sense, but always the same way, and by what they were shown.
    retrieved = milvus_index.as_retriever(similarity_top_k=9).retrieve(query)
    again = rerank.postprocess_nodes(retrieved, query)
    assert [hit.node.node_id for hit in again] == [hit.node.node_id for hit in hits]
    assert [hit.score for hit in again] == pytest.approx(scores, rel=1e-4)
    backwards = rerank.postprocess_nodes(retrieved[::-1], query)
    assert not np.allclose([hit.score for hit in backwards], scores)


def test_the_reranker_sees_the_picture_of_a_query_that_a_tool_copied(pictures):
    original = ImageText("a mug", pictures[0])
    content = read_query(QueryBundle(", ".join([str(original)]) + "\n"))  # as RetrieverTool does
    assert content.text == "a mug"
    assert content.picture is not None
