"""Candidates are looked at window by window; texts are cut to what a prompt can take."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode
from PIL import Image
from support.tiny_phi3_vision import write_folder
from support.vlm_doubles import Scripted, TextModel

from llama_index_multimodal_rerank import ImageTextQuery, LocalPhi3Vision, Phi3VisionRerank, image_node
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.reranking.candidates import Candidates
from llama_index_multimodal_rerank.reranking.shortening import Shortener

# -- pictures ---------------------------------------------------------------------------------

SHOWN = (672, 504)  # as which pictures of 700 x 525 pixels are held


def alive() -> int:
    return sum(1 for each in gc.get_objects() if issubclass(type(each), Image.Image) and each.size == SHOWN)


@pytest.fixture
def many(tmp_path: Path) -> list[NodeWithScore]:
    """40 candidates, redder and redder."""
    nodes = []
    for i in range(40):
        Image.new("RGB", (700, 525), (6 * i, 100, 250 - 6 * i)).save(tmp_path / f"{i}.png")
        nodes.append(NodeWithScore(node=image_node(tmp_path / f"{i}.png", id_=str(i)), score=1 - i / 100))
    return nodes


def ids(result: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in result]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_no_more_pictures_are_held_than_a_window_shows(
    many: list[NodeWithScore], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    held: list[int] = []
    load = ImageAccess.load
    monkeypatch.setattr(
        ImageAccess, "load", lambda self, source, **kw: read.append(source) or load(self, source, **kw)
    )

    class Counts(TextModel):
        def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
            held.append(alive())
            return super().generate(images, prompt, max_new_tokens=max_new_tokens)  # type: ignore[no-any-return]

    before = alive()
    rerank = Phi3VisionRerank(model=Counts(), window=6, stride=3, top_n=40)
    if kind == "async":
        result = await rerank.apostprocess_nodes(many, query_str="redder")
    else:
        result = rerank.postprocess_nodes(many, query_str="redder")

    assert ids(result)[:3] == ["39", "38", "37"]
    assert sorted(ids(result), key=int) == [str(i) for i in range(40)]
    assert len(held) == 13
    assert max(held) - before <= 6
    assert alive() == before
    assert len(read) == 40  # what goes on into the next window is not read again


class LikesGrey(TextModel):
    """Ranks grey cells first, whatever the prompt says."""

    def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
        from support.vlm_doubles import look

        self.prompts.append(prompt)
        n = int(prompt.split("Rank all ")[1].split()[0])
        reds = look(images[0], n)
        order = sorted(range(n), key=lambda label: (reds[label] != 128, -reds[label]))
        return "Ranking: " + " > ".join(f"[{label + 1}]" for label in order)


def with_gone(nodes: list[NodeWithScore], gone: set[int]) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=ImageNode(image_path="/gone.png", id_=f"gone{i}"), score=hit.score)
        if i in gone
        else hit
        for i, hit in enumerate(nodes)
    ]


def test_what_cannot_be_looked_at_does_not_travel_upwards(many: list[NodeWithScore]) -> None:
    gone = {0, 1, 2, 17, 33, 34, 35, 36, 37, 38}
    model = LikesGrey()
    rerank = Phi3VisionRerank(model=model, window=6, stride=3, top_n=40, explain=False)
    result = rerank.postprocess_nodes(with_gone(many, gone), query_str="redder")

    assert ids(result)[:3] == ["39", "32", "31"]
    assert ids(result)[-10:] == [f"gone{i}" for i in sorted(gone)]
    assert [hit.score for hit in result[-10:]] == [0.0] * 10
    assert all("rerank_unreadable" in hit.node.metadata for hit in result[-10:])
    scores = [hit.score or 0.0 for hit in result]
    assert scores == sorted(scores, reverse=True)


def test_windows_in_which_nothing_can_be_looked_at_are_not_asked_about(many: list[NodeWithScore]) -> None:
    model = TextModel()
    rerank = Phi3VisionRerank(model=model, window=6, stride=3, top_n=40)
    query = ImageTextQuery("redder", image=Image.new("RGB", (9, 9), "blue"))
    result = rerank.postprocess_nodes(with_gone(many, set(range(3, 40))), query)

    assert ids(result)[:4] == ["2", "1", "0", "gone3"]
    assert (model.captions, len(model.prompts)) == (1, 2)  # 0 to 6, and 1 to 7

    silent = Scripted()
    lost = Phi3VisionRerank(model=silent, window=6, top_n=40).postprocess_nodes(
        with_gone(many, set(range(40))), query
    )
    assert ids(lost) == [f"gone{i}" for i in range(40)]
    assert lost[0].node.metadata["rerank_audit"]["error"] == "no candidate can be looked at"
    assert silent.prompts == []


def test_without_candidates_nothing_is_loaded(tmp_path: Path) -> None:
    rerank = Phi3VisionRerank(model=str(tmp_path / "nothing"))
    assert rerank.postprocess_nodes([], query_str="words " * 5000) == []


# -- texts ------------------------------------------------------------------------------------


def counted(text: str) -> int:
    return len(text.split())


WORDS = Shortener(counted)


@given(
    st.text(max_size=200),
    st.integers(2, 30),
    st.sampled_from([len, counted, lambda text: len(text.encode())]),
)
def test_a_text_that_is_cut_is_its_beginning(text: str, limit: int, count: Any) -> None:
    text = text.replace("…", "")
    cut = Shortener(lambda each: count(each.encode("utf-8", "replace").decode())).cut(text, limit)

    assert count(cut.encode("utf-8", "replace").decode()) <= limit or count("…") > limit
    if count(text.encode("utf-8", "replace").decode()) <= limit:
        assert cut == text
    elif cut.endswith("…"):
        assert " ".join(text.split()).startswith(cut[:-1])
    else:
        assert cut == " ".join(text.split())


def test_cutting_by_hand() -> None:
    assert WORDS.cut("one two three four five six seven", 3) == "one two three…"
    assert WORDS.cut("one two three", 3) == "one two three"
    letters = Shortener(len)
    assert letters.cut("one two three", 9) == "one two…"
    assert letters.cut("onetwothree", 9) == "onetwoth…"
    assert letters.cut("a  \n  b", 4) == "a b"
    assert letters.cut(" " * 1000 + "a" + " " * 1000, 4) == "a"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalPhi3Vision:
    folder = write_folder(tmp_path_factory.mktemp("tiny-phi3"))
    return LocalPhi3Vision(str(folder), device="cpu", dtype="float32", num_crops=1)


def test_tokens_are_those_of_the_model_or_of_the_settings(local: LocalPhi3Vision) -> None:
    tokenizer = local.load().processor.tokenizer
    for text in ("a red chair", "一把椅子", ""):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert Shortener.of(local).count(text) == local.count_tokens(text) == len(expected)
    assert Shortener.of(Scripted()).count("a red chair") == 3


def nodes_with(*texts: str) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(i)), score=1 - i / 10) for i, text in enumerate(texts)
    ]


LONG = "a red chair with four legs and a high back, " * 2000
RANKING = "Ranking: [2] > [1]\nReason: x"


def test_long_texts_are_cut_with_a_warning_and_it_is_in_the_audit(caplog: pytest.LogCaptureFixture) -> None:
    model = Scripted(RANKING)
    rerank = Phi3VisionRerank(model=model, max_query_tokens=20, max_text_tokens=10)
    with caplog.at_level(logging.WARNING):
        result = rerank.postprocess_nodes(nodes_with(LONG, "a mug"), query_str=LONG)

    assert (
        '"a red chair with four legs and a high back, a red chair with four legs and a…"' in model.prompts[0]
    )
    assert "[1] a red chair with four legs and a high…\n[2] a mug\n" in model.prompts[0]
    audit = result[0].node.metadata["rerank_audit"]
    assert (audit["query_shortened"], audit["texts_shortened"]) == (True, 1)
    assert audit["action"] == "none"
    assert "max_query_tokens=20" in caplog.text
    assert "max_text_tokens=10" in caplog.text
    assert result[1].node.get_content() == LONG.strip() or result[1].node.get_content() == LONG


def test_texts_that_fit_are_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    model = Scripted(RANKING)
    text = "a chair that is described in more than two hundred characters, " * 4
    assert len(text) > 200
    result = Phi3VisionRerank(model=model).postprocess_nodes(nodes_with(text, "b"), query_str=text)

    assert f"[1] {text.strip()}\n" in model.prompts[0]
    assert not {"query_shortened", "texts_shortened"} & set(result[0].node.metadata["rerank_audit"])
    assert caplog.text == ""


def test_the_defaults_bound_every_prompt(local: LocalPhi3Vision) -> None:
    model = Scripted(*["no"] * 9)
    chinese = "红色的椅子有四条腿和高高的靠背" * 3000
    for text in (LONG, chinese, "x" * 100_000, "\u0301" * 9000, "🪑" * 9000):
        rerank = Phi3VisionRerank(model=model, window=25)
        rerank.postprocess_nodes(nodes_with(*[text] * 25), query_str=text)
        tokens = Shortener.of(model).count(model.prompts[-1])
        assert tokens < 25 * (64 + 8) + 512 + 200


def test_the_caption_of_a_model_that_does_not_stop_is_cut() -> None:
    class Rambles(Scripted):
        def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
            if "Rank all" not in prompt:
                return LONG
            self.prompts.append(prompt)
            return RANKING

    model = Rambles()
    query = ImageTextQuery("redder", image=Image.new("RGB", (9, 9), "blue"))
    result = Phi3VisionRerank(model=model).postprocess_nodes(nodes_with("a", "b"), query)

    caption = result[0].node.metadata["rerank_query_caption"]
    assert Shortener.of(model).count(caption) <= 128
    assert caption.rstrip(".") in model.prompts[0]


def test_a_summary_of_many_answers_says_so_as_well() -> None:
    model = Scripted(*["Ranking: [1] > [2]"] * 9)
    rerank = Phi3VisionRerank(model=model, window=2, stride=1, max_text_tokens=5, explain=False)
    result = rerank.postprocess_nodes(nodes_with(LONG, "b", LONG, LONG), query_str="x")

    audit = result[0].node.metadata["rerank_audit"]
    assert audit.pop("cost")["calls"] == 3
    assert audit == {"answers": 3, "clean": 3, "not_clean": [], "texts_shortened": 3}


def test_the_local_model_reads_a_query_of_any_length(local: LocalPhi3Vision) -> None:
    rerank = Phi3VisionRerank(model=local, strategy="first_token", explain=False)
    (first, second) = rerank.postprocess_nodes(nodes_with(LONG, "b"), query_str=LONG)
    assert first.node.metadata["rerank_audit"]["query_shortened"] is True
    assert {first.node.node_id, second.node.node_id} == {"0", "1"}


def test_a_jpeg_is_decoded_no_larger_than_its_cell_asks_for_and_looks_the_same(tmp_path: Path) -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    access = ImageAccess()
    full = access.load(tmp_path / "a.jpg")
    small = access.load(tmp_path / "a.jpg", shown_side=275)

    assert full.size == access.load(tmp_path / "a.jpg", shown_side=640).size == (640, 480)
    assert small.size == (320, 240)
    shown = [
        np.asarray(each.resize((275, 206), Image.Resampling.LANCZOS)).astype(int) for each in (full, small)
    ]
    assert np.abs(shown[0] - shown[1]).mean() < 2


def test_a_node_that_comes_again_stays_where_it_was_first() -> None:
    found = [NodeWithScore(node=TextNode(id_=id_, text=id_), score=0.5) for id_ in "abac"]
    assert [hit.node.node_id for hit in Candidates(found).nodes] == ["a", "b", "c"]
