"""``explain="closer_look"``: the reason comes of a sheet of the query and the best alone."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode
from PIL import Image
from support.vlm_doubles import ConstrainedTextModel, TextModel, has_query, look

from llama_index_multimodal_rerank import ImageTextQuery, ModelCallError, Phi3VisionRerank, image_node
from llama_index_multimodal_rerank.reranking.sheet import Cell, build_sheet
from llama_index_multimodal_rerank.vlm.counting import counted_prompts

REDS = [20, 200, 90, 150, 60, 230, 120, 40, 180]


class LooksCloser:
    """Says how red the one picture of its sheet is; keeps what it was asked."""

    def __init__(self, answer: str = "[1] is {red} red.") -> None:
        super().__init__()
        self.answer = answer
        self.closer: list[tuple[Image.Image, str]] = []

    def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
        if "Say in one sentence" not in prompt:
            return super().generate(images, prompt, max_new_tokens=max_new_tokens)  # type: ignore[misc,no-any-return]
        (image,) = images
        self.closer.append((image, prompt))
        return self.answer.format(red=look(image, 1)[0])


class Text(LooksCloser, TextModel):  # type: ignore[misc]
    pass


class Constrained(LooksCloser, ConstrainedTextModel):  # type: ignore[misc]
    pass


def shop(folder: Path, reds: list[int] = REDS, size: int = 30) -> list[NodeWithScore]:
    nodes = []
    for place, red in enumerate(reds):
        path = folder / f"{place}.png"
        Image.new("RGB", (size, size), (red, 100, 250 - red)).save(path)
        nodes.append(NodeWithScore(node=image_node(path, id_=str(place)), score=0.9 - place / 100))
    return nodes


@pytest.fixture
def nodes(tmp_path: Path) -> list[NodeWithScore]:
    return shop(tmp_path)


QUERY_PICTURE = Image.new("RGB", (30, 20), (128, 0, 0))
QUERY = ImageTextQuery("redder than this", image=QUERY_PICTURE)
WAYS: dict[str, tuple[type[LooksCloser], dict[str, Any]]] = {
    "text": (Text, {}),
    "a text in windows": (Text, {"window": 4, "stride": 2}),
    "a list": (Constrained, {}),
    "the first token": (Constrained, {"strategy": "first_token"}),
    "permutations": (Constrained, {"permutations": 3}),
}


@pytest.mark.parametrize(("model", "settings"), WAYS.values(), ids=WAYS.keys())
async def test_the_reason_is_about_the_first_and_nothing_else(
    model: type[LooksCloser], settings: dict[str, Any], nodes: list[NodeWithScore]
) -> None:
    asked = model()
    rerank = Phi3VisionRerank(model=asked, explain="closer_look", **settings)
    with counted_prompts() as counted:
        first, *others = rerank.postprocess_nodes(nodes, QUERY)

    assert first.node.node_id == "5"
    assert first.node.metadata["rerank_reason"] == "#1 is 230 red."
    assert not any("rerank_reason" in hit.node.metadata for hit in others)
    ((image, prompt),) = asked.closer
    assert has_query(image)
    assert 'the words: "redder than this"' in prompt
    assert "A reddish blob" in prompt  # the caption
    assert not any("Reason" in each or "why the best" in each for each in asked.prompts)  # type: ignore[attr-defined]
    planned = rerank.planned_calls(9, QUERY)
    assert counted.prompts == planned

    (again,) = (await rerank.apostprocess_nodes(nodes, QUERY))[:1]
    (batch,) = rerank.rerank_batch([(nodes, QUERY)])
    (abatch,) = await rerank.arerank_batch([(nodes, QUERY)])
    reasons = [hit.node.metadata["rerank_reason"] for hit in (again, batch[0], abatch[0])]
    assert reasons == ["#1 is 230 red."] * 3


def test_it_is_larger_than_in_the_list_and_read_anew(tmp_path: Path) -> None:
    """A chessboard of 8 pixels is lost among nine; the sheet of one is drawn of the file."""
    nodes = shop(tmp_path)
    tiles = np.indices((400, 400)).sum(axis=0) // 8 % 2 * 255
    board = Image.fromarray(np.stack([np.full((400, 400), 240), tiles, tiles], axis=-1).astype(np.uint8))
    board.save(tmp_path / "board.png")
    nodes[3] = NodeWithScore(node=image_node(tmp_path / "board.png", id_="board"), score=0.5)
    model = Text("a chessboard")
    rerank = Phi3VisionRerank(model=model, explain="closer_look", caption=False)

    (first, *_) = rerank.postprocess_nodes(nodes, QUERY)

    assert first.node.node_id == "board"
    ((image, _),) = model.closer
    assert image.tobytes() == build_sheet([Cell(board)], QUERY_PICTURE, num_crops=16).image.tobytes()


def test_a_single_candidate_is_not_ranked_but_looked_at(nodes: list[NodeWithScore]) -> None:
    model = Text()
    rerank = Phi3VisionRerank(model=model, explain="closer_look", caption=False)
    with counted_prompts() as counted:
        (only,) = rerank.postprocess_nodes(nodes[1:2], QUERY)
    assert only.node.metadata["rerank_reason"] == "#1 is 200 red."
    assert only.score == nodes[1].score
    assert only.node.metadata["rerank_audit"]["source"] == "none"
    assert counted.prompts == rerank.planned_calls(1, QUERY) == 1
    assert model.prompts == []


def test_a_number_that_is_not_on_its_sheet_stays(nodes: list[NodeWithScore]) -> None:
    rerank = Phi3VisionRerank(model=Text("[1] is redder than [2]."), explain="closer_look")
    (first, *_) = rerank.postprocess_nodes(nodes, QUERY)
    assert first.node.metadata["rerank_reason"] == "#1 is redder than [2]."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("  Reason: red. \n", "red."), ("<think>[2]?</think>\nred.", "red."), (" ", None)],
)
def test_what_stands_around_a_reason_is_left_out(
    answer: str, reason: str | None, nodes: list[NodeWithScore]
) -> None:
    (first, *_) = Phi3VisionRerank(model=Text(answer), explain="closer_look").postprocess_nodes(nodes, QUERY)
    assert first.node.metadata.get("rerank_reason") == reason


def test_texts_are_told(tmp_path: Path) -> None:
    nodes = [NodeWithScore(node=TextNode(text=f"number {place}", id_=str(place))) for place in range(3)]
    model = Text("said")
    rerank = Phi3VisionRerank(model=model, explain="closer_look")
    (first, *_) = rerank.postprocess_nodes(nodes, ImageTextQuery("a number"))
    ((_, prompt),) = model.closer
    assert f"[1] number {first.node.node_id}\n" in prompt
    assert first.node.metadata["rerank_reason"] == "said"


class Silent(Text):
    def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
        if "Say in one sentence" in prompt:
            raise RuntimeError("no more today")
        return super().generate(images, prompt, max_new_tokens=max_new_tokens)


@pytest.mark.parametrize("settings", [{}, {"window": 4, "stride": 2}], ids=["one sheet", "windows"])
def test_a_ranking_stands_without_its_reason(settings: dict[str, Any], nodes: list[NodeWithScore]) -> None:
    rerank = Phi3VisionRerank(model=Silent(), explain="closer_look", **settings)
    (first, *_) = rerank.postprocess_nodes(nodes, QUERY)
    assert first.node.node_id == "5"
    assert "rerank_reason" not in first.node.metadata
    assert "no more today" in first.node.metadata["rerank_audit"]["reason_error"]


def test_a_picture_that_is_gone_since_it_was_ranked(nodes: list[NodeWithScore], tmp_path: Path) -> None:
    class Deletes(Text):
        def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
            answer = super().generate(images, prompt, max_new_tokens=max_new_tokens)
            (tmp_path / "5.png").unlink(missing_ok=True)
            return answer

    model = Deletes()
    rerank = Phi3VisionRerank(model=model, explain="closer_look", caption=False)
    (first, *_) = rerank.postprocess_nodes(nodes, QUERY)
    assert first.node.node_id == "5"
    assert model.closer == []
    assert not {"rerank_reason", "rerank_unreadable"} & set(first.node.metadata)
    assert "no such file" in first.node.metadata["rerank_audit"]["reason_error"]


def test_no_answer_at_all_is_still_an_error(nodes: list[NodeWithScore]) -> None:
    class Down(Text):
        def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
            raise RuntimeError("down")

    with pytest.raises(ModelCallError, match="down"):
        Phi3VisionRerank(model=Down(), explain="closer_look").postprocess_nodes(nodes, QUERY)


# -- settings -------------------------------------------------------------------------------------


def test_the_demos_model_looks_closer_by_default_and_others_do_not(nodes: list[NodeWithScore]) -> None:
    demo = Phi3VisionRerank(model="demo")
    assert demo.planned_calls(9, QUERY) == 1 + 1 + 1
    assert Phi3VisionRerank(model="demo", explain=True).planned_calls(9, QUERY) == 1 + 1
    assert Phi3VisionRerank(model="demo", explain=False).planned_calls(9, QUERY) == 1 + 1
    model = Text()
    (first, *_) = Phi3VisionRerank(model=model).postprocess_nodes(nodes, QUERY)
    assert first.node.metadata["rerank_reason"] == "the reddest of all 9."
    assert model.closer == []


@pytest.mark.parametrize("explain", [None, True, False, "closer_look"])
def test_settings_survive_a_file_and_a_pickle(explain: Any) -> None:
    rerank = Phi3VisionRerank(
        model="demo", explain=explain, reason_prompt="Say in one sentence: {query_str}?"
    )
    for copy in (
        Phi3VisionRerank.from_dict(json.loads(rerank.to_json())),
        pickle.loads(pickle.dumps(rerank)),
    ):
        assert copy.explain == explain
        assert copy.reason_prompt.get_template() == "Say in one sentence: {query_str}?"


def test_another_value_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="closer_look"):
        Phi3VisionRerank(model="demo", explain="closer")  # type: ignore[arg-type]


def test_a_prompt_of_ones_own(nodes: list[NodeWithScore]) -> None:
    prompt = "Say in one sentence, of {query_caption}: {query_str}."
    model = Text("said")
    rerank = Phi3VisionRerank(model=model, explain="closer_look", reason_prompt=prompt)
    rerank.postprocess_nodes(nodes, QUERY)
    assert model.closer[0][1] == "Say in one sentence, of A reddish blob.: redder than this."

    assert set(rerank.get_prompts()) == {"rank_prompt", "caption_prompt", "reason_prompt"}
    with pytest.raises(ValueError, match=r"reason_prompt has the variables \{labels\}"):
        rerank.update_prompts(
            {"reason_prompt": PromptTemplate("{labels}?"), "caption_prompt": PromptTemplate("?")}
        )
    assert rerank.get_prompts()["caption_prompt"].get_template() != "?"  # all or nothing
    failing = PromptTemplate("{query}", function_mappings={"query": lambda **kwargs: 1 / 0})
    with pytest.raises(ValueError, match="reason_prompt cannot be formatted: ZeroDivisionError"):
        Phi3VisionRerank(model=Text(), reason_prompt=failing)


def test_tasks_side_by_side(nodes: list[NodeWithScore]) -> None:
    async def all_at_once() -> list[str]:
        rerank = Phi3VisionRerank(model=Text(), explain="closer_look", top_n=1)
        hits = await asyncio.gather(
            *(rerank.apostprocess_nodes(nodes[place : place + 3], QUERY) for place in range(5))
        )
        return [hit.node.metadata["rerank_reason"] for (hit,) in hits]

    assert asyncio.run(all_at_once()) == [f"#1 is {max(REDS[i : i + 3])} red." for i in range(5)]
