"""Phi3VisionRerank: complete, in order, and honest about how it came about."""

import asyncio
import base64
import copy
import doctest
import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import (
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from PIL import Image
from support.vlm_doubles import (
    ConstrainedTextModel,
    LogitModel,
    PrefillingTextModel,
    Scripted,
    TextModel,
    has_query,
)

from llama_index_multimodal_rerank import (
    BadAnswerError,
    ImageLoadError,
    ImageText,
    ImageTextNode,
    ImageTextQuery,
    ModelCallError,
    Phi3VisionRerank,
    image_node,
)
from llama_index_multimodal_rerank.reranking import postprocessor

REDS = [20, 200, 90, 150, 60, 230, 120, 40, 180]
"""Red value of the nine candidates; the best is number 5 (from 0)."""
BEST_FIRST = ["5", "1", "8", "3", "6", "2", "4", "7", "0"]


def picture(red, size=(30, 20)):
    return Image.new("RGB", size, (red, 100, 250 - red))


def image_file(folder, red, name=None):
    path = folder / f"{name or red}.png"
    picture(red).save(path)
    return path


@pytest.fixture
def nodes(tmp_path):
    return [
        NodeWithScore(node=image_node(image_file(tmp_path, red), id_=str(i)), score=0.9 - i / 100)
        for i, red in enumerate(REDS)
    ]


@pytest.fixture
def query(tmp_path):
    return ImageTextQuery("redder than this", image_path=str(image_file(tmp_path, 128, "query")))


def ids(result):
    return [hit.node.node_id for hit in result]


def scores(result):
    return [hit.score for hit in result]


@pytest.fixture(
    params=[TextModel, ConstrainedTextModel, LogitModel], ids=["text", "constrained", "first_token"]
)
def rerank(request):
    strategy = "first_token" if request.param is LogitModel else "listwise"
    return Phi3VisionRerank(model=request.param(), strategy=strategy, top_n=3)


def test_the_order_is_what_the_model_saw(rerank, nodes, query):
    result = rerank.postprocess_nodes(nodes, query)

    assert ids(result) == ["5", "1", "8"]
    assert scores(result) == sorted(scores(result), reverse=True)
    assert 0 < scores(result)[-1] <= scores(result)[0] <= 1
    first = result[0].node.metadata
    assert first["rerank_rank"] == 1
    assert first["retrieval_score"] == 0.85
    assert first["rerank_query_caption"] == "A reddish blob."
    assert first["rerank_audit"]["expected"] == 9
    assert first["rerank_audit"]["action"] == "none"
    assert [hit.node.metadata["rerank_rank"] for hit in result] == [1, 2, 3]
    assert "rerank_reason" not in result[1].node.metadata


async def test_async_gives_the_same(rerank, nodes, query):
    result = await rerank.apostprocess_nodes(nodes, query)

    assert ids(result) == ["5", "1", "8"]
    assert scores(result) == scores(rerank.postprocess_nodes(nodes, query))


def test_originals_are_untouched(rerank, nodes, query):
    before = [(hit.score, hit.node.to_dict()) for hit in nodes]

    result = rerank.postprocess_nodes(nodes, query)

    assert [(hit.score, hit.node.to_dict()) for hit in nodes] == before
    assert all(isinstance(hit.node, ImageTextNode) for hit in result)
    assert result[0].node.image_path == nodes[5].node.image_path
    result[0].node.metadata["mine"] = 1
    result[0].node.metadata["rerank_audit"]["mine"] = 1
    assert "mine" not in result[1].node.metadata["rerank_audit"]
    assert "mine" not in nodes[5].node.metadata


def test_what_is_added_stays_out_of_what_other_models_read(rerank, nodes, query):
    node = rerank.postprocess_nodes(nodes, query)[0].node

    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "rerank" not in node.get_content(mode)
        assert "retrieval_score" not in node.get_content(mode)
    json.dumps(node.metadata)


@pytest.mark.parametrize(("top_n", "n", "count"), [(3, 9, 3), (20, 9, 9), (5, 2, 2), (3, 1, 1), (3, 0, 0)])
def test_exactly_as_many_as_there_can_be(rerank, nodes, query, top_n, n, count):
    rerank.top_n = top_n

    result = rerank.postprocess_nodes(nodes[:n], query)

    assert len(result) == len(set(ids(result))) == count


def test_a_node_given_twice_is_returned_once(rerank, nodes, query):
    rerank.top_n = 20

    result = rerank.postprocess_nodes([*nodes, *nodes], query)

    assert ids(result) == BEST_FIRST


def test_probabilities_by_hand(nodes, query):
    # exp(red / 32) for red = 200 and 168: the difference is one unit.
    two = nodes[:2]
    two[0].node.image_path = two[0].node.image_path.replace("20.png", "168.png")
    picture(168).save(two[0].node.image_path)
    by_token = Phi3VisionRerank(model=LogitModel(), strategy="first_token").postprocess_nodes(two, query)
    listwise = Phi3VisionRerank(model=ConstrainedTextModel()).postprocess_nodes(two, query)

    assert ids(by_token) == ids(listwise) == ["1", "0"]
    assert scores(by_token) == pytest.approx([0.7310586, 0.2689414])
    # The second step has one label left; the list as a whole is as likely as its first step.
    assert scores(listwise) == pytest.approx([0.7310586, 0.7310586])
    assert by_token[0].node.metadata["rerank_audit"]["source"] == "first_token"
    assert listwise[0].node.metadata["rerank_audit"]["source"] == "constraint"


def test_the_reason_is_the_models(nodes, query):
    text, constrained, logits = TextModel(), ConstrainedTextModel(), ConstrainedTextModel()

    def reason(model, **kwargs):
        hit = Phi3VisionRerank(model=model, **kwargs).postprocess_nodes(nodes, query)[0]
        return hit.node.metadata.get("rerank_reason")

    assert reason(text) == "the reddest of all 9."
    assert reason(constrained, max_new_tokens=50) == "label 6 is red"
    assert constrained.batches == [(1, 50, None)]
    # One pass for the order, one that writes this order and goes on to the reason.
    assert reason(logits, strategy="first_token") == "label 6 is red"
    assert logits.batches == [(1, 128, (5, 1, 8, 3, 6, 2, 4, 7, 0))]
    assert reason(ConstrainedTextModel(), explain=False) is None
    assert "reason" not in text.prompts[0].lower() or "Reason:" in text.prompts[0]
    quiet = TextModel()
    Phi3VisionRerank(model=quiet, explain=False).postprocess_nodes(nodes, query)
    assert "reason" not in quiet.prompts[0].lower()


def test_a_list_without_a_reason_is_not_asked_for_again(nodes, query):
    """The model would answer the same: its choice is not drawn."""

    class Taciturn(ConstrainedTextModel):
        def rank_labels(self, requests, *, max_new_tokens, order=None):
            rankings = super().rank_labels(requests, max_new_tokens=max_new_tokens, order=order)
            return [replace(ranking, text="") for ranking in rankings]

    model = Taciturn()
    first = Phi3VisionRerank(model=model, max_new_tokens=50).postprocess_nodes(nodes, query)[0]
    assert "rerank_reason" not in first.node.metadata
    assert model.batches == [(1, 50, None)]


async def test_a_model_that_goes_on_from_what_it_has_read_reads_a_sheet_once(nodes, query):
    model = PrefillingTextModel()
    rerank = Phi3VisionRerank(model=model, strategy="first_token")

    result = rerank.postprocess_nodes(nodes, query)

    assert ids(result) == ["5", "1", "8"]
    assert result[0].node.metadata["rerank_reason"] == "label 6 is red"
    assert (model.read, model.batches) == (1, [])
    assert model.ranked == [(1, 128, (5, 1, 8, 3, 6, 2, 4, 7, 0))]
    assert ids(await rerank.apostprocess_nodes(nodes, query)) == ids(result)
    assert (model.read, model.batches, len(model.ranked)) == (2, [], 2)

    # Without a reason nothing is asked twice, and an order of several sheets is explained on another one.
    Phi3VisionRerank(model=model, strategy="first_token", explain=False).postprocess_nodes(nodes, query)
    Phi3VisionRerank(model=model, strategy="first_token", permutations=2).postprocess_nodes(nodes, query)
    assert (model.read, len(model.ranked)) == (2 + 1 + 2, 2)
    assert model.batches == [(1, 128, (5, 1, 8, 3, 6, 2, 4, 7, 0))]


# -- many candidates, permutations ------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """30 candidates; the reddest is the last but one."""
    reds = [(i * 37) % 199 for i in range(28)] + [250, 10]
    return [
        NodeWithScore(node=image_node(image_file(tmp_path, red, f"many{i}"), id_=str(i)), score=1 - i / 100)
        for i, red in enumerate(reds)
    ], reds


async def test_windows_carry_the_best_to_the_top(many, query):
    nodes, reds = many
    model = TextModel()
    rerank = Phi3VisionRerank(model=model, window=6, stride=3, top_n=30)

    result = rerank.postprocess_nodes(nodes, query)

    best = sorted(range(30), key=lambda i: -reds[i])
    assert ids(result)[:3] == [str(i) for i in best[:3]]  # window - stride of them are sure
    assert sorted(ids(result), key=int) == [str(i) for i in range(30)]
    assert scores(result) == [pytest.approx((30 - i) / 30) for i in range(30)]
    assert len(model.prompts) == 9
    assert model.captions == 1
    audit = result[0].node.metadata["rerank_audit"]
    cost = audit.pop("cost")
    assert audit == {"answers": 9, "clean": 9, "not_clean": []}
    assert (cost["calls"], cost["retries"]) == (10, 0)  # nine sheets and a caption
    assert result[0].node.metadata["rerank_reason"] == "the reddest of all 9."
    # Only the last window knows the best, so only it is asked why.
    assert ["Reason:" in prompt for prompt in model.prompts] == [False] * 8 + [True]
    assert ids(await rerank.apostprocess_nodes(nodes, query)) == ids(result)
    assert model.captions == 1  # the picture is the same, and so is its caption


class LikesTheFirstCell(TextModel):
    def generate(self, images, prompt, *, max_new_tokens):
        n = int(prompt.split("Rank all ")[1].split()[0])
        return "Ranking: " + " > ".join(f"[{label}]" for label in range(1, n + 1))


def test_permutations_tell_sight_from_habit(nodes, query):
    def ranked(model):
        rerank = Phi3VisionRerank(model=model, permutations=8, top_n=9, caption=False)
        return rerank.postprocess_nodes(nodes, query)

    seen = ranked(TextModel())
    assert ids(seen) == BEST_FIRST
    assert seen[0].node.metadata["rerank_confidence"] == pytest.approx(1.0)
    assert scores(seen) == pytest.approx([i / 8 for i in range(8, -1, -1)])
    habit = ranked(LikesTheFirstCell())
    assert habit[0].node.metadata["rerank_confidence"] < 0.3
    assert ids(habit) == ids(ranked(LikesTheFirstCell()))  # the shuffles are seeded
    assert habit[0].node.metadata["rerank_audit"]["answers"] == 8


def test_permutations_are_one_batch_and_one_more_pass_for_the_reason(nodes, query):
    model = ConstrainedTextModel()
    rerank = Phi3VisionRerank(model=model, permutations=4, top_n=9)

    result = rerank.postprocess_nodes(nodes, query)

    assert ids(result) == BEST_FIRST
    assert model.batches == [(4, 0, None), (1, 128, (5, 1, 8, 3, 6, 2, 4, 7, 0))]
    assert result[0].node.metadata["rerank_reason"] == "label 6 is red"


# -- queries and candidates -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["query", "bundle", "image_text", "embedding_strs", "bytes", "image_only"])
def test_the_query_picture_is_shown_however_it_comes(nodes, tmp_path, kind):
    path = str(image_file(tmp_path, 77, "query"))
    query = {
        "query": lambda: ImageTextQuery("words", image_path=path),
        "bundle": lambda: QueryBundle("words", image_path=path),
        "image_text": lambda: QueryBundle(ImageText("words", path)),
        "embedding_strs": lambda: QueryBundle("words", custom_embedding_strs=["x", ImageText("words", path)]),
        "bytes": lambda: ImageTextQuery("words", image=picture(77)),
        "image_only": lambda: ImageTextQuery(image_path=path),
    }[kind]()
    model = TextModel()

    result = Phi3VisionRerank(model=model).postprocess_nodes(nodes, query)

    assert ids(result) == ["5", "1", "8"]
    (sheet,) = model.images
    assert has_query(sheet)
    assert (np.asarray(sheet) == (77, 100, 173)).all(axis=-1).sum() > 5000
    assert ('together with the words: "words"' in model.prompts[0]) == (kind != "image_only")
    assert "(A reddish blob)" in model.prompts[0]


def test_a_query_of_words_only(nodes):
    model = TextModel()

    result = Phi3VisionRerank(model=model).postprocess_nodes(nodes, query_str="the reddest")

    assert ids(result) == ["5", "1", "8"]
    assert model.captions == 0
    assert not has_query(model.images[0])
    assert 'The query is: "the reddest"' in model.prompts[0]


def test_every_kind_of_candidate(tmp_path, query):
    path = image_file(tmp_path, 10)
    buffer = BytesIO()
    picture(90).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue())
    candidates = [
        ImageNode(image_path=str(path), id_="path"),
        ImageNode(image=data.decode(), id_="base64"),
        Node(image_resource=MediaResource(path=image_file(tmp_path, 130)), id_="resource"),
        Node(image_resource=MediaResource(data=buffer.getvalue()), id_="resource data"),
        ImageDocument(image_path=str(image_file(tmp_path, 170)), id_="document"),
        image_node(image_file(tmp_path, 210), text="a red thing", id_="captioned"),
        TextNode(text="a white page of text", id_="text"),
    ]
    model = TextModel()
    rerank = Phi3VisionRerank(model=model, top_n=10)

    result = rerank.postprocess_nodes([NodeWithScore(node=node, score=0.5) for node in candidates], query)

    # The text's cell is white where it is looked at.
    assert ids(result) == ["text", "captioned", "document", "resource", "base64", "resource data", "path"]
    assert "[6] a red thing\n[7] a white page of text\n" in model.prompts[0]
    assert not any("rerank_unreadable" in hit.node.metadata for hit in result)


def test_unreadable_pictures_come_last_and_are_reported(tmp_path, nodes, query, caplog):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    broken = [
        NodeWithScore(node=ImageNode(image_path=str(tmp_path / "gone.png"), id_="gone"), score=0.99),
        NodeWithScore(
            node=ImageNode(image_path=str(tmp_path / "broken.png"), text="x", id_="broken"), score=0.98
        ),
        NodeWithScore(node=ImageNode(image_url="http://localhost:9/x.png", id_="url"), score=0.97),
        NodeWithScore(node=TextNode(text=" ", id_="empty"), score=0.96),
        NodeWithScore(node=Node(image_resource=MediaResource(data=b"AAA"), id_="bad data"), score=0.96),
    ]
    rerank = Phi3VisionRerank(model=TextModel(), top_n=20, window=20)

    result = rerank.postprocess_nodes([*broken, *nodes], query)

    assert ids(result) == [*BEST_FIRST, "gone", "broken", "url", "empty", "bad data"]
    assert scores(result) == sorted(scores(result), reverse=True)
    assert scores(result)[-5:] == [0.0] * 5
    reported = [hit.node.metadata["rerank_unreadable"] for hit in result[-5:]]
    assert reported[0] == "no such file"
    assert "not a picture in a known format" in reported[1]
    assert "allow_urls=True" in reported[2]
    assert reported[3] == "the node has neither picture nor text"
    assert "gone cannot be looked at: no such file" in caplog.text


@pytest.mark.parametrize("port", ["99999", str(2**64), "-1", "0"])
def test_no_url_gets_past_keep_order(nodes, query, port):
    url = f"http://127.0.0.1:{port}/x.png"
    candidate = NodeWithScore(node=ImageNode(image_url=url, id_="url"), score=0.99)
    rerank = Phi3VisionRerank(model=TextModel(), top_n=20, window=20, allow_urls=True, on_error="keep_order")

    result = rerank.postprocess_nodes([candidate, *nodes], query)

    assert ids(result) == [*BEST_FIRST, "url"]
    assert "no port" in result[-1].node.metadata["rerank_unreadable"]
    kept = rerank.postprocess_nodes(nodes, ImageTextQuery("x", image=url))
    assert ids(kept) == ids(nodes)
    assert "no port" in kept[0].node.metadata["rerank_audit"]["error"]


def test_nothing_readable_is_no_question(query):
    gone = [
        NodeWithScore(node=ImageNode(image_path=f"/gone/{i}.png", id_=str(i)), score=0.5) for i in range(3)
    ]

    result = Phi3VisionRerank(model=Scripted()).postprocess_nodes(gone, query)

    assert ids(result) == ["0", "1", "2"]
    assert scores(result) == [0.0, 0.0, 0.0]
    assert result[0].node.metadata["rerank_audit"]["error"] == "no candidate can be looked at"


def test_turned_photographs_are_turned_back(tmp_path, query):
    photo = Image.new("RGB", (40, 20), (200, 100, 50))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    model = TextModel()

    Phi3VisionRerank(model=model).postprocess_nodes(
        [NodeWithScore(node=image_node(tmp_path / "turned.jpg"), score=1.0)], query
    )

    sheet = model.images[0]
    shown = np.abs(np.asarray(sheet).astype(int) - (200, 100, 50)).max(axis=-1) < 12
    ys, xs = shown.nonzero()
    assert (max(ys) - min(ys)) > 1.7 * (max(xs) - min(xs))


# -- bad answers and errors -------------------------------------------------------------------

LEAVES_OUT_7 = "Ranking: [6] > [2] > [9] > [4] > [5] > [3] > [8] > [1]"


def test_bad_answers_by_policy(nodes, query):
    def ranked(model, policy):
        rerank = Phi3VisionRerank(model=model, top_n=9, on_bad_answer=policy)
        return rerank.postprocess_nodes(nodes, query)

    repaired = ranked(Scripted(LEAVES_OUT_7), "repair")
    assert ids(repaired) == ["5", "1", "8", "3", "4", "2", "7", "0", "6"]
    assert repaired[0].node.metadata["rerank_audit"]["missing"] == [7]
    kept = ranked(Scripted(LEAVES_OUT_7), "keep_order")
    assert ids(kept) == [str(i) for i in range(9)]
    assert kept[0].node.metadata["rerank_audit"]["action"] == "retrieval_order"
    with pytest.raises(BadAnswerError, match=r"1 left out \(7\)"):
        ranked(Scripted(LEAVES_OUT_7), "raise")


def test_retry_says_what_was_wrong_and_gives_up_after_three(nodes, query):
    good = "Ranking: " + " > ".join(f"[{i}]" for i in (9, 8, 7, 6, 5, 4, 3, 2, 1))
    model = Scripted(LEAVES_OUT_7, good)
    rerank = Phi3VisionRerank(model=model, top_n=9, on_bad_answer="retry")

    result = rerank.postprocess_nodes(nodes, query)

    assert ids(result) == ["8", "7", "6", "5", "4", "3", "2", "1", "0"]
    assert result[0].node.metadata["rerank_audit"]["attempts"] == 2
    assert "1 left out (7)" in model.prompts[1]
    assert "left out" not in model.prompts[0]

    stubborn = Scripted("no", "no", LEAVES_OUT_7)
    result = Phi3VisionRerank(model=stubborn, on_bad_answer="retry").postprocess_nodes(nodes, query)
    assert ids(result) == ["5", "1", "8"]
    assert result[0].node.metadata["rerank_audit"]["attempts"] == 3
    assert result[0].node.metadata["rerank_audit"]["action"] == "repaired"


async def test_errors_by_policy(nodes, query, caplog):
    error = RuntimeError("429: 5 requests per 3 s")
    rerank = Phi3VisionRerank(model=Scripted(error, error), caption=False)
    with pytest.raises(
        ModelCallError, match="scripted gave no answer: RuntimeError: 429: 5 requests"
    ) as raised:
        rerank.postprocess_nodes(nodes, query)
    assert raised.value.__cause__ is error
    with pytest.raises(ModelCallError):
        await rerank.apostprocess_nodes(nodes, query)

    rerank = Phi3VisionRerank(model=Scripted(error, error), on_error="keep_order", top_n=9)
    for result in (rerank.postprocess_nodes(nodes, query), await rerank.apostprocess_nodes(nodes, query)):
        assert ids(result) == [str(i) for i in range(9)]
        assert scores(result) == sorted(scores(result), reverse=True)
        audit = result[0].node.metadata["rerank_audit"]
        assert audit["action"] == "retrieval_order"
        assert "5 requests per 3 s" in audit["error"]
    assert "Kept the retrieval order" in caplog.text


def test_unreadable_pictures_come_last_after_an_error_too(nodes, query):
    gone = NodeWithScore(node=ImageNode(image_path="/gone.png", id_="gone"), score=1.0)
    rerank = Phi3VisionRerank(model=Scripted(RuntimeError()), on_error="keep_order", top_n=3, caption=False)

    assert ids(rerank.postprocess_nodes([gone, *nodes[:2]], query)) == ["0", "1", "gone"]


def test_reranking_again_says_only_what_is_true_now(nodes, query):
    first = Phi3VisionRerank(model=TextModel(), permutations=2).postprocess_nodes(nodes, query)
    second = Phi3VisionRerank(model=TextModel(), explain=False, caption=False).postprocess_nodes(
        first[::-1], query
    )

    assert ids(second) == ids(first)
    metadata = second[0].node.metadata
    assert metadata["retrieval_score"] == first[0].score
    assert not {"rerank_reason", "rerank_query_caption", "rerank_confidence"} & set(metadata)


def test_a_query_picture_that_cannot_be_read(nodes):
    gone = ImageTextQuery("words", image_path="/gone.png")

    with pytest.raises(ImageLoadError, match="no such file"):
        Phi3VisionRerank(model=TextModel()).postprocess_nodes(nodes, gone)
    kept = Phi3VisionRerank(model=TextModel(), on_error="keep_order").postprocess_nodes(nodes, gone)
    assert ids(kept) == ["0", "1", "2"]


@pytest.mark.parametrize("reply", [None, 7, b"[1]"])
def test_a_model_that_answers_with_no_text(nodes, query, reply):
    with pytest.raises(ModelCallError, match=f"answered with {type(reply).__name__}, expected str"):
        Phi3VisionRerank(model=Scripted(reply), caption=False).postprocess_nodes(nodes, query)


label = st.integers(-2, 30).map("[{}]".format)
answers = st.one_of(st.text(max_size=60), st.lists(label, max_size=30).map(" > ".join))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# 14 windows of 4 in 30 candidates, each asked up to three times
@given(st.lists(answers, min_size=42, max_size=42), st.integers(1, 30), st.integers(1, 40), st.data())
def test_nothing_is_lost_whatever_is_answered(script, n, top_n, data):
    policy = data.draw(st.sampled_from(["repair", "retry", "keep_order"]))
    window = data.draw(st.integers(4, 25))
    nodes = [NodeWithScore(node=TextNode(text=f"text {i}", id_=str(i)), score=0.5) for i in range(n)]
    rerank = Phi3VisionRerank(
        model=Scripted(*script), top_n=top_n, on_bad_answer=policy, window=window, num_crops=4
    )

    result = rerank.postprocess_nodes(nodes, query_str="any")

    assert len(set(ids(result))) == len(result) == min(top_n, n)
    assert scores(result) == sorted(scores(result), reverse=True)


# -- LlamaIndex's conventions -----------------------------------------------------------------


def test_eight_threads_on_one_instance(rerank, nodes, query):
    def run(number):
        given = nodes[number % 3 :]
        return ids(rerank.postprocess_nodes(given, query)), [i for i in BEST_FIRST if int(i) >= number % 3][
            :3
        ]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(16)))

    assert all(got == expected for got, expected in results)


async def test_many_tasks_on_one_instance(rerank, nodes, query):
    results = await asyncio.gather(*(rerank.apostprocess_nodes(nodes, query) for _ in range(12)))

    assert all(ids(result) == ["5", "1", "8"] for result in results)


def test_callback_event(nodes, query):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = Phi3VisionRerank(model=TextModel(), callback_manager=CallbackManager([debug]))

    result = rerank.postprocess_nodes(nodes, query)

    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert start.payload["top_k"] == 3
    assert start.payload["model_name"] == "text-model"
    assert start.payload["query_str"] == "redder than this"
    assert ids(start.payload["nodes"]) == [str(i) for i in range(9)]
    assert end.payload["nodes"] == result


async def test_instrumentation_events(nodes, query):
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent

    seen = []

    class Collect(BaseEventHandler):
        def handle(self, event, **kwargs):
            seen.append(event)

    root = get_dispatcher()
    handler = Collect()
    root.add_event_handler(handler)
    try:
        rerank = Phi3VisionRerank(model=TextModel())
        rerank.postprocess_nodes(nodes, query)
        await rerank.apostprocess_nodes(nodes, query)
    finally:
        root.event_handlers.remove(handler)

    events = [event for event in seen if isinstance(event, (ReRankStartEvent, ReRankEndEvent))]
    assert [type(event).__name__ for event in events] == ["ReRankStartEvent", "ReRankEndEvent"] * 2
    assert events[0].query.query_str == "redder than this"
    assert (events[0].top_n, events[0].model_name, len(events[0].nodes)) == (3, "text-model", 9)
    assert ids(events[1].nodes) == ids(events[3].nodes) == ["5", "1", "8"]


def test_prompts_can_be_replaced(nodes, query):
    model = TextModel()
    rerank = Phi3VisionRerank(model=model)
    assert set(rerank.get_prompts()) == {"rank_prompt", "caption_prompt", "reason_prompt"}

    rerank.update_prompts(
        {
            "rank_prompt": PromptTemplate(
                "Rank all {num_candidates} candidates for {query_str}! {answer_format}"
            ),
            "caption_prompt": PromptTemplate("What is it?"),
        }
    )
    rerank.postprocess_nodes(nodes, query)

    assert model.prompts[0].startswith("Rank all 9 candidates for redder than this! Answer with one line")
    assert model.captions == 1
    assert rerank.get_prompts()["caption_prompt"].format() == "What is it?"


def test_braces_in_texts_are_texts(tmp_path, query):
    node = NodeWithScore(node=TextNode(text="{num_candidates} {x} 100%", id_="a"), score=1.0)
    model = TextModel()

    Phi3VisionRerank(model=model).postprocess_nodes([node], query_str="{query} {}")

    assert 'The query is: "{query} {}"' in model.prompts[0]
    assert "[1] {num_candidates} {x} 100%\n" in model.prompts[0]


def test_sheets_can_be_saved(nodes, query, tmp_path):
    folder = tmp_path / "deep" / "sheets"
    rerank = Phi3VisionRerank(model=TextModel(), save_sheets=folder, window=5, stride=2)

    rerank.postprocess_nodes(nodes, query)

    saved = sorted(folder.glob("*.png"))
    assert len(saved) == 3
    assert all(has_query(Image.open(path).convert("RGB")) for path in saved)


def test_serialisation(nodes, query):
    by_name = Phi3VisionRerank(model="some/model", top_n=7, device="cpu", window=12)
    assert by_name.to_dict()["model"] == "some/model"
    by_name.update_prompts({"caption_prompt": PromptTemplate("What is it?")})
    restored = Phi3VisionRerank.from_json(by_name.to_json())
    assert restored.get_prompts()["caption_prompt"].format() == "What is it?"
    assert restored.get_prompts()["rank_prompt"].template == by_name.rank_prompt.template
    assert (restored.model, restored.top_n, restored.window) == ("some/model", 7, 12)
    assert pickle.loads(pickle.dumps(by_name)).top_n == 7

    own = Phi3VisionRerank(model=Scripted(LEAVES_OUT_7), caption=False)
    assert own.to_dict()["model"] == {"model_name": "scripted"}
    copied = pickle.loads(pickle.dumps(own))
    assert ids(copied.postprocess_nodes(nodes, query)) == ["5", "1", "8"]
    assert copy.deepcopy(by_name).model_name == "some/model"
    # LlamaIndex drops what cannot be pickled, and the default model would take its place.
    with pytest.raises(TypeError, match="TextModel cannot be pickled"):
        pickle.dumps(Phi3VisionRerank(model=TextModel()))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": 7}, "model must be the name or folder of a Phi-3 Vision checkpoint"),
        ({"model": {"model_name": "x"}}, "model must be the name or folder"),
        ({"model": TextModel(), "strategy": "first_token"}, "which TextModel does not give"),
        ({"model": TextModel(), "device": "cuda"}, "device='cuda' is for models given by name"),
        ({"window": 5, "stride": 5}, "stride must be smaller than window=5, got 5"),
        ({"window": 26}, "less than or equal to 25"),
        ({"top_n": 0}, "greater than 0"),
        ({"strategy": "pairwise"}, "'first_token' or 'listwise'"),
        ({"on_bad_answer": "ignore"}, "'repair', 'retry', 'keep_order' or 'raise'"),
        ({"model": MockLLM()}, "is not set to chat"),
    ],
)
def test_mistakes_show_when_the_reranker_is_made(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Phi3VisionRerank(**kwargs)


def test_the_example_runs():
    found = doctest.testmod(postprocessor)
    assert found.attempted >= 12
    assert found.failed == 0


def test_every_field_is_described_with_its_range():
    text = Phi3VisionRerank.__doc__.partition("    Args:\n")[2].partition("    Raises:\n")[0]
    described = dict(re.findall(r"^ {8}(\w+): ((?:.+\n(?: {12}.+\n)*))", text, re.MULTILINE))
    fields = {
        name: field for name, field in Phi3VisionRerank.model_fields.items() if name != "callback_manager"
    }

    assert list(described) == list(fields)
    for name, field in fields.items():
        bounds = [getattr(bound, "gt", None) for bound in field.metadata]
        allowed = [bound + 1 for bound in bounds if bound is not None]
        allowed += [
            getattr(bound, side) for bound in field.metadata for side in ("ge", "le") if hasattr(bound, side)
        ]
        for number in allowed:
            assert re.search(rf"\b{number}\b", described[name]), name


def test_the_model_of_an_instance_does_not_change():
    rerank = Phi3VisionRerank(model=TextModel())
    with pytest.raises(ValueError, match="frozen"):
        rerank.model = TextModel()


def test_the_query_is_needed(nodes):
    with pytest.raises(ValueError, match="needs the query"):
        Phi3VisionRerank(model=TextModel()).postprocess_nodes(nodes)


async def test_a_missing_checkpoint_is_no_failed_answer(nodes, query, tmp_path):
    rerank = Phi3VisionRerank(model=str(tmp_path / "nothing"), on_error="keep_order")
    with pytest.raises(OSError, match="nothing"):
        rerank.postprocess_nodes(nodes, query)
    with pytest.raises(OSError, match="nothing"):
        await rerank.apostprocess_nodes(nodes, query)
