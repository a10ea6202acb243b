"""ImageSearchTool: what an agent finds is what a retriever finds, and what it sends is not trusted."""

from __future__ import annotations

import asyncio
import doctest
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from llama_index.core.tools.calling import call_tool
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from support.scripted_llm import ReActLLM, calling_llm

from llama_index_multimodal_rerank import (
    ImageSearchTool,
    ImageText,
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    image_node,
    milvus_store,
)
from llama_index_multimodal_rerank.agents import search_tool
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look

KINDS, SURFACES = ("mug", "shoe", "umbrella"), ("leopard", "dots", "plain")
LOOKS = [Look(kind, surface, "red") for kind in KINDS for surface in SURFACES]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with products, a query picture beside them, and a secret outside."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "products").mkdir()
    (folder / "asked").mkdir()
    for look in LOOKS:
        draw_query_picture(look, seed=1).save(folder / "products" / f"{look.surface}_{look.kind}.png")
    draw_query_picture("leopard", seed=0).save(folder / "asked" / "leopard.png")
    (folder / "asked" / "text.png").write_text("no picture")
    draw_query_picture("leopard", seed=0).save(folder / "secret.png")
    return folder


@pytest.fixture(scope="module")
def index(pictures: Path) -> Iterator[VectorStoreIndex]:
    """The products on Milvus Lite, embedded by the demo's model."""
    embed_model = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")
    store = milvus_store(pictures / "shop.db", embed_model)
    nodes = [
        image_node(
            pictures / "products" / f"{look.surface}_{look.kind}.png",
            id_=f"{look.kind}-{look.surface}",
            metadata={
                "kind": look.kind,
                "price": 10 * place,
                "sold": place < 2 or place > 3,
                "title": f"The {look}",
                "owner": "us",
            },
        )
        for place, look in enumerate(LOOKS)
    ]
    store.add(embed_model(nodes))  # type: ignore[arg-type]
    yield VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    store.client.close()


@pytest.fixture(scope="module")
def tool(index: VectorStoreIndex, pictures: Path) -> ImageSearchTool:
    fields = {"kind": "what it is", "price": "euros, a number", "sold": ""}
    return ImageSearchTool(index, data_root=pictures / "asked", filter_fields=fields)


CALLS = {
    "composed": {"text": "a mug with this", "image_path": "leopard.png"},
    "composed, on from a result": {"text": "the same, but as a mug", "image_id": "umbrella-leopard"},
    "image only": {"image_path": "leopard.png"},
    "image only, of a result": {"image_id": "shoe-dots"},
    "text only": {"text": "a mug with dots"},
}


def query_of(call: dict[str, Any], pictures: Path) -> ImageTextQuery:
    path = pictures / "asked" / call["image_path"] if "image_path" in call else None
    if "image_id" in call:
        kind, surface = call["image_id"].split("-")
        path = pictures / "products" / f"{surface}_{kind}.png"
    return ImageTextQuery(call.get("text", ""), image_path=path and str(path))


def scored(hits: list[NodeWithScore]) -> list[tuple[str, float]]:
    return [(hit.node.node_id, round(hit.score or 0, 4)) for hit in hits]


def listed(found: dict[str, Any]) -> list[tuple[str, float]]:
    return [(each["id"], each["score"]) for each in found["results"]]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_hits_equal_the_retrievers(
    index: VectorStoreIndex, tool: ImageSearchTool, pictures: Path, call: dict[str, Any]
) -> None:
    expected = scored(index.as_retriever(similarity_top_k=9).retrieve(query_of(call, pictures)))[:4]
    output = tool.call(**call, top_k=4)
    assert listed(output.raw_output) == expected
    assert json.loads(str(output)) == output.raw_output
    assert [each["rank"] for each in output.raw_output["results"]] == [1, 2, 3, 4]
    assert str(await tool.acall(**call, top_k=4)) == str(output)
    assert str(call_tool(tool, {**call, "top_k": 4})) == str(output)  # as LlamaIndex calls tools


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_hits_equal_the_query_engines_after_reranking(
    index: VectorStoreIndex, pictures: Path, call: dict[str, Any]
) -> None:
    rerank = Phi3VisionRerank(model="demo", top_n=9, device="cpu", dtype="float32")
    tool = ImageSearchTool(index, node_postprocessors=[rerank], data_root=pictures / "asked")
    query = query_of(call, pictures)
    hits = rerank.postprocess_nodes(index.as_retriever(similarity_top_k=9).retrieve(query), query)
    found = (await tool.acall(**call)).raw_output
    assert listed(found) == scored(hits)[:5]
    assert found["reranking"] == "clean"
    best = found["results"][0]
    assert best["retrieval_score"] == round(hits[0].node.metadata["retrieval_score"], 4)
    assert best["reason"] == hits[0].node.metadata["rerank_reason"]
    assert "reason" not in found["results"][1]


def test_a_result_says_what_an_llm_can_use(tool: ImageSearchTool, pictures: Path) -> None:
    output = tool.call("a mug with dots", top_k=1)
    (best,) = output.raw_output["results"]
    score = best.pop("score")
    assert 0 < score <= 1
    assert best == {
        "rank": 1,
        "id": "mug-dots",
        "file": "dots_mug.png",
        "title": "The red dots mug",
        "metadata": {"kind": "mug", "price": 10, "sold": True},
    }
    assert str(pictures) not in str(output)
    assert not output.is_error


def test_the_tools_of_llama_index_drop_the_picture_or_the_results(index: VectorStoreIndex) -> None:
    """Why there is a tool of our own."""
    retriever = index.as_retriever(similarity_top_k=2)
    read = RetrieverTool.from_defaults(retriever).call("a mug with dots")
    assert "mug-dots" not in str(read)
    assert "dots_mug.png" not in str(read)
    llm, Settings.llm = Settings._llm, None
    try:
        engine = index.as_query_engine(similarity_top_k=2, response_mode="no_text")
        assert str(QueryEngineTool.from_defaults(engine).call("a mug with dots")) == "None"
    finally:
        Settings._llm = llm


# -- the schema ------------------------------------------------------------------------------------


def test_the_schema_holds_what_is_allowed_and_nothing_else(
    index: VectorStoreIndex, tool: ImageSearchTool
) -> None:
    properties = tool.metadata.get_parameters_dict()["properties"]
    assert set(properties) == {"text", "image_id", "image_path", "filters", "top_k"}
    shown = json.dumps(tool.metadata.get_parameters_dict())
    assert "price: euros, a number" in shown
    assert tool.metadata.to_openai_tool()["function"]["name"] == "search_images"
    bare = ImageSearchTool(index).metadata.get_parameters_dict()["properties"]
    assert set(bare) == {"text", "image_id", "top_k"}
    urls = ImageSearchTool(index, allow_urls=["images.example.org"]).metadata.get_parameters_dict()
    assert "an http(s) URL at images.example.org" in json.dumps(urls)


def test_the_data_root_of_the_embedding_is_taken(index: VectorStoreIndex, pictures: Path) -> None:
    embed_model = index._embed_model.model_copy(update={"data_root": str(pictures)})
    confined = VectorStoreIndex.from_vector_store(index.vector_store, embed_model=embed_model)
    found = ImageSearchTool(confined).call(image_path="asked/leopard.png").raw_output
    assert len(found["results"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "got top_k=0"),
        ({"top_k": 30}, "max_top_k=20"),
        ({"similarity_top_k": 0}, "similarity_top_k=0"),
        ({"description": "x" * 1000}, "got 1000"),
    ],
)
def test_settings_that_do_not_fit(index: VectorStoreIndex, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSearchTool(index, **arguments)


# -- filters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ([{"field": "kind", "value": "shoe"}], {"shoe-leopard", "shoe-dots", "shoe-plain"}),
        ([{"field": "price", "operator": ">=", "value": 70}], {"umbrella-dots", "umbrella-plain"}),
        (
            [
                {"field": "kind", "operator": "in", "value": ["mug", "shoe"]},
                {"field": "price", "operator": "<", "value": 10},
            ],
            {"mug-leopard"},
        ),
        ([{"field": "sold", "value": True}, {"field": "kind", "value": "mug"}], {"mug-leopard", "mug-dots"}),
        (
            [
                {"field": "sold", "operator": "in", "value": [False]},
                {"field": "price", "operator": "<", "value": 40},
            ],
            {"mug-plain", "shoe-leopard"},
        ),
        ([{"field": "price", "operator": "in", "value": [10, 20.0, True]}], {"mug-dots", "mug-plain"}),
    ],
)
def test_filters(tool: ImageSearchTool, filters: list[dict[str, Any]], ids: set[str]) -> None:
    found = tool.call(text="anything", filters=filters, top_k=9).raw_output
    assert {each["id"] for each in found["results"]} == ids


def test_nothing_found_is_said(tool: ImageSearchTool) -> None:
    filters = [{"field": "kind", "value": 'hat"] or id != "'}]
    assert tool.call(text="a hat", filters=filters).raw_output == {
        "results": [],
        "note": "nothing was found; loosen filters, or use other words",
    }


def test_an_agent_cannot_leave_out_the_owners_filters(index: VectorStoreIndex) -> None:
    shoes = MetadataFilters(filters=[MetadataFilter(key="kind", value="shoe", operator=FilterOperator.EQ)])
    tool = ImageSearchTool(index, filters=shoes, filter_fields=["kind", "price"])
    for filters in (None, [{"field": "price", "operator": ">=", "value": 0}]):
        found = tool.call(text="a mug", filters=filters, top_k=9).raw_output
        assert {each["metadata"]["kind"] for each in found["results"]} == {"shoe"}
    assert tool.call(text="a mug", filters=[{"field": "kind", "value": "mug"}]).raw_output["results"] == []
    assert len(tool.call(image_id="shoe-dots").raw_output["results"]) == 3
    assert "no result of this collection" in tool.call(image_id="mug-dots").raw_output["error"]


# -- what cannot be carried out --------------------------------------------------------------------


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ["give text, a picture, or both"]),
    "blank": ({"text": "  "}, ["nothing to look for"]),
    "two pictures": ({"image_path": "leopard.png", "image_id": "mug-dots"}, ["not both"]),
    "another argument": ({"query": "a mug"}, ["query is no argument", "text, image_id"]),
    "no number": ({"text": "a mug", "top_k": "many"}, ["top_k is 'many'", "integer"]),
    "too many": ({"text": "a mug", "top_k": 21}, ["top_k is '21'", "20"]),
    "too long": ({"text": "mug" * 1000}, ["text", "2000"]),
    "field": (
        {"text": "a mug", "filters": [{"field": "owner", "value": "us"}]},
        ["'owner'", "'kind', 'price' or 'sold'"],
    ),
    "operator": (
        {"text": "a mug", "filters": [{"field": "kind", "operator": "like", "value": "x"}]},
        ["'like'", "'=='"],
    ),
    "no list": (
        {"text": "a mug", "filters": [{"field": "kind", "operator": "in", "value": "mug"}]},
        ["kind", "'mug'", "in takes a list"],
    ),
    "a list": (
        {"text": "a mug", "filters": [{"field": "kind", "value": ["mug"]}]},
        ["kind", "== takes a single value"],
    ),
    "no value": ({"text": "a mug", "filters": [{"field": "kind"}]}, ["kind has no value", "is_empty"]),
    "a wildcard": (
        {"text": "a mug", "filters": [{"field": "kind", "operator": "text_match", "value": "%"}]},
        ["filter on 'kind'"],
    ),
    "texts and numbers": (
        {"text": "a mug", "filters": [{"field": "kind", "operator": "in", "value": ["mug", 3]}]},
        ["kind", "['mug', 3]", "texts or numbers, not both"],
    ),
    "unknown id": ({"image_id": "hat"}, ["'hat'", "pass the id of a result"]),
    "an id that is an expression": ({"image_id": 'x"] or id != "'}, ["no result of this collection"]),
    "missing": ({"image_path": "gone.png"}, ["'gone.png'", "relative to it", "pass image_id"]),
    "no picture": ({"image_path": "text.png"}, ["'text.png'", "no picture can be read there"]),
    "outside": ({"image_path": "../secret.png"}, ["no picture can be read there"]),
    "absolute": ({"image_path": "/etc/passwd"}, ["'/etc/passwd'", "no picture can be read there"]),
    "file URL": ({"image_path": "file:///etc/passwd"}, ["no picture can be read there"]),
    "URL": ({"image_path": "http://127.0.0.1:9/a.png"}, ["no picture can be read there"]),
    "data URI": ({"image_path": "data:image/png;base64,iVBORw0KGgo="}, ["no picture can be read there"]),
    "home": ({"image_path": "~/a.png"}, ["no picture can be read there"]),
    "null byte": ({"image_path": "a\0.png"}, ["no picture can be read there"]),
}


@pytest.mark.parametrize(("call", "said"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_is_a_short_error(
    tool: ImageSearchTool, pictures: Path, call: dict[str, Any], said: list[str]
) -> None:
    output = tool.call(**call)
    assert output.is_error
    error = json.loads(str(output))["error"]
    for words in said:
        assert words in error
    assert len(str(output)) < 1500
    assert str(pictures) not in str(output).replace(str(call.get("image_path")), "")
    assert "Traceback" not in error
    assert str(await tool.acall(**call)) == str(output)


def test_errors_do_not_tell_whether_a_file_outside_exists(tool: ImageSearchTool, pictures: Path) -> None:
    def told(path: Path) -> str:
        return tool.call(image_path=str(path)).raw_output["error"].replace(str(path), "")

    assert told(pictures / "secret.png") == told(pictures / "secrex.png") == told(pictures)


def test_paths_are_no_argument_without_a_data_root(index: VectorStoreIndex, pictures: Path) -> None:
    found = ImageSearchTool(index).call(image_path=str(pictures / "asked" / "leopard.png")).raw_output
    assert found["error"].startswith("image_path is no argument")


async def test_a_failure_of_the_store_is_told_without_its_details(
    index: VectorStoreIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("/srv/secret: token=abc")

    monkeypatch.setattr(type(index.vector_store), "query", fail)
    monkeypatch.setattr(type(index.vector_store), "aquery", fail)
    for output in (ImageSearchTool(index).call("a mug"), await ImageSearchTool(index).acall("a mug")):
        assert output.is_error
        assert "ConnectionError" in str(output)
        assert "secret" not in str(output)
    assert "/srv/secret" in caplog.text  # for whoever runs the server


async def test_a_result_whose_file_is_gone_is_no_query_picture(tmp_path: Path) -> None:
    embed_model = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")
    draw_query_picture("leopard", seed=0).save(tmp_path / "a.png")
    index = VectorStoreIndex([image_node(tmp_path / "a.png", id_="a")], embed_model=embed_model)
    (tmp_path / "a.png").unlink()
    tool = ImageSearchTool(index)
    for output in (tool.call(image_id="a"), await tool.acall(image_id="a")):
        assert output.raw_output == {
            "error": "the picture of 'a' cannot be read any more: pass the id of another result, "
            "or search with words"
        }


def test_a_text_without_a_picture_is_no_query_picture() -> None:
    embed_model = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")
    index = VectorStoreIndex([TextNode(text="a mug", id_="t")], embed_model=embed_model)
    found = ImageSearchTool(index).call(image_id="t").raw_output
    assert found["error"] == "the result 't' has no picture: pass the id of one that has"
    (hit,) = ImageSearchTool(index).call("a mug").raw_output["results"]
    assert hit["title"] == "a mug"


def test_sizes_are_bounded(index: VectorStoreIndex) -> None:
    """Whatever the metadata holds; line ends and what else does not print is escaped."""
    embed_model = index._embed_model
    nodes = [
        image_node(
            draw_query_picture("leopard", seed=number),
            id_=str(number),
            metadata={"title": "x\n\x1b" * 5000, "note": ["y" * 5000]},
        )
        for number in range(20)
    ]
    large = VectorStoreIndex(nodes, embed_model=embed_model)
    output = str(ImageSearchTool(large, filter_fields=["note"]).call(text="a leopard", top_k=20))
    assert len(json.loads(output)["results"]) == 20
    assert len(output) < 20 * 1000
    assert "\\u001b" not in output


# -- in agents and workflows -----------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_function_agent_answers_with_the_right_file(tool: ImageSearchTool, streaming: bool) -> None:
    llm = calling_llm({"text": "a mug with this", "image_path": "leopard.png"})
    agent = FunctionAgent(tools=[tool], llm=llm, streaming=streaming)
    response = await agent.run("Which mug has the pattern of leopard.png?")
    assert str(response) == "The best is leopard_mug.png."


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_react_agent_answers_with_the_right_file(tool: ImageSearchTool, streaming: bool) -> None:
    llm = ReActLLM(calls=[{"text": "a mug with this", "image_path": "leopard.png"}])
    agent = ReActAgent(tools=[tool], llm=llm, streaming=streaming)
    response = await agent.run("Which mug has the pattern of leopard.png?")
    assert str(response) == "The best is leopard_mug.png."
    assert "image_path" in llm.prompts[0]  # the agent is told of the schema


async def test_an_agent_searches_on_from_a_result(tool: ImageSearchTool) -> None:
    calls = [{"text": "an umbrella with no pattern"}, {"image_id": "$id", "text": "the same, but as a mug"}]
    for agent in (
        FunctionAgent(tools=[tool], llm=calling_llm(*calls)),
        ReActAgent(tools=[tool], llm=ReActLLM(calls=calls)),
    ):
        assert str(await agent.run("A mug like the plain umbrella?")) == "The best is plain_mug.png."


async def test_an_agent_reads_an_error_and_goes_on(tool: ImageSearchTool) -> None:
    agent = FunctionAgent(
        tools=[tool], llm=calling_llm({"image_path": "/etc/passwd"}, {"text": "a mug with dots"})
    )
    assert str(await agent.run("What is it?")) == "The best is dots_mug.png."
    agent = FunctionAgent(tools=[tool], llm=calling_llm({"image_path": "/etc/passwd"}))
    assert "I could not search: image_path is '/etc/passwd'" in str(await agent.run("What is it?"))


class SearchEvent(StartEvent):
    """What a workflow is started with."""

    text: str = ""
    image_path: str | None = None


class SearchWorkflow(Workflow):
    """Search the shop's pictures."""

    tool: ImageSearchTool

    @step
    async def search(self, event: SearchEvent) -> StopEvent:
        arguments = {"text": event.text, "image_path": event.image_path, "top_k": 2}
        return StopEvent(result=str(await self.tool.acall(**arguments)))


async def test_in_a_workflow(tool: ImageSearchTool) -> None:
    workflow = SearchWorkflow()
    workflow.tool = tool
    found = json.loads(await workflow.run(text="a mug with this", image_path="leopard.png"))
    assert found["results"][0]["file"] == "leopard_mug.png"


async def test_over_mcp(tool: ImageSearchTool) -> None:
    """LlamaIndex' bridge makes a server of the workflow."""
    mcp_tools = pytest.importorskip("llama_index.tools.mcp", reason="needs llama-index-tools-mcp")
    workflow = SearchWorkflow()
    workflow.tool = tool
    server = mcp_tools.workflow_as_mcp(workflow, workflow_name="search_images")
    (listed_tool,) = await server.list_tools()
    assert listed_tool.name == "search_images"
    arguments = {"run_args": {"text": "a mug with this", "image_path": "leopard.png"}}
    answer = await server.call_tool("search_images", arguments)
    assert "leopard_mug.png" in str(answer)


async def test_many_at_once(tool: ImageSearchTool) -> None:
    calls = [CALLS["composed"], CALLS["text only"]] * 5
    found = await asyncio.gather(*(tool.acall(**call) for call in calls))
    assert [each.raw_output["results"][0]["id"] for each in found] == ["mug-leopard", "mug-dots"] * 5


def test_a_picture_that_is_carried_by_a_string(tool: ImageSearchTool, pictures: Path) -> None:
    """A program may hand over an ImageText; an agent cannot write one."""
    text = ImageText("a mug with this", pictures / "asked" / "leopard.png")
    assert tool.call(text).raw_output["results"][0]["id"] == "mug-leopard"


def test_documented_example() -> None:
    found = doctest.testmod(search_tool)
    assert (found.failed, found.attempted > 5) == (0, True)
