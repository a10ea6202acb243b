"""AdaptiveRerank: who is reranked, what it costs, and what the nodes say about it."""

from __future__ import annotations

import doctest
import json
import pickle
import threading

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from PIL import Image
from support.vlm_doubles import ConstrainedTextModel, LogitModel, PrefillingTextModel, Scripted, TextModel

from llama_index_multimodal_rerank import (
    AdaptiveRerank,
    CallBudget,
    ImageTextQuery,
    ModelCallError,
    Phi3VisionRerank,
    RerankBatchError,
    image_node,
)
from llama_index_multimodal_rerank.reranking import adaptive
from llama_index_multimodal_rerank.vlm.counting import counted_prompts
from llama_index_multimodal_rerank.vlm.protocols import LabelScores

QUERY = QueryBundle("redder")
UNSURE, SURE = (0.5, 0.45, 0.25), (0.75, 0.5, 0.25)
REDS = (20, 200, 90)


def nodes(scores=SURE, reds=REDS):
    return [
        NodeWithScore(
            node=image_node(Image.new("RGB", (30, 20), (red, 100, 250 - red)), id_=str(red)), score=score
        )
        for red, score in zip(reds, scores, strict=True)
    ]


def many(n):
    reds = [10 * place for place in range(1, n + 1)]
    return nodes([1 - place / 100 for place in range(n)], reds)


def ids(hits):
    return [hit.node.node_id for hit in hits]


def decision(hits):
    (details,) = {json.dumps(hit.node.metadata["rerank_audit"]["adaptive"], sort_keys=True) for hit in hits}
    return json.loads(details)


async def rerank(kind, reranker, found, query=QUERY):
    if kind == "async":
        return await reranker.apostprocess_nodes(found, query)
    return reranker.postprocess_nodes(found, query)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class ServedModel(TextModel):
    """Tells how likely each label is to begin its answer, and writes reasons, as a server does."""

    max_scored_labels = 9

    def generate(self, images, prompt, *, max_new_tokens):
        return "a caption or a reason"

    async def agenerate(self, images, prompt, *, max_new_tokens):
        return self.generate(images, prompt, max_new_tokens=max_new_tokens)

    def score_answer(self, request):
        return LabelScores(-float(label) for label in range(request.num_labels))

    async def ascore_answer(self, request):
        return self.score_answer(request)


class BatchPrefillingTextModel(PrefillingTextModel):
    """Goes on for several queries together."""

    def rank_prefilled(self, prefilled, orders, *, max_new_tokens):
        pairs = zip(prefilled.requests, orders, strict=True)
        asked = [
            self.rank_labels([each], max_new_tokens=max_new_tokens, order=order) for each, order in pairs
        ]
        return [ranking for rankings in asked for ranking in rankings]


class Plain(BaseNodePostprocessor):
    """A reranker that is not ours: turns the list round."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        if query_bundle is not None and query_bundle.query_str == "fail":
            raise RuntimeError("no")
        return [NodeWithScore(node=hit.node, score=float(place)) for place, hit in enumerate(nodes[::-1], 1)][
            ::-1
        ][::-1]


@pytest.fixture
def events():
    class Handler(BaseEventHandler):
        seen: list = []  # noqa: RUF012 (pydantic)

        def handle(self, event, **kwargs):
            self.seen.append(event)

    handler, dispatcher = Handler(), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler.seen
    dispatcher.event_handlers.remove(handler)


def test_the_example_runs():
    found = doctest.testmod(adaptive)
    assert found.attempted > 0
    assert found.failed == 0


# -- the margin ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_clear_first_is_not_reranked_and_says_so(kind, events):
    model = TextModel()
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=model, top_n=2), margin=0.25)
    given = nodes()

    hits = await rerank(kind, reranker, given, ImageTextQuery("redder", image=Image.new("RGB", (9, 9))))

    assert ids(hits) == ["20", "200"]
    assert [hit.score for hit in hits] == [0.75, 0.5]
    assert [hit.node.metadata["rerank_rank"] for hit in hits] == [1, 2]
    assert [hit.node.metadata["retrieval_score"] for hit in hits] == [0.75, 0.5]
    assert hits[0].node.metadata["rerank_audit"] == {
        "expected": 3,
        "source": "none",
        "listed": 0,
        "action": "none",
        "attempts": 0,
        "adaptive": {"decision": "skipped", "because": "margin", "margin": 0.25, "threshold": 0.25},
    }
    assert set(hits[0].node.metadata) <= set(hits[0].node.excluded_llm_metadata_keys)
    assert model.prompts == []
    assert model.captions == 0
    assert all("rerank_audit" not in hit.node.metadata for hit in given)
    skipped = [event for event in events if isinstance(event, adaptive.RerankSkippedEvent)]
    assert [(event.query_str, event.details) for event in skipped] == [("redder", decision(hits))]
    assert not any(isinstance(event, ReRankStartEvent | ReRankEndEvent) for event in events)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_first_in_doubt_is_reranked_as_without(kind, events):
    inner = Phi3VisionRerank(model=TextModel(), top_n=2)
    hits = await rerank(kind, AdaptiveRerank(reranker=inner, margin=0.25), nodes(UNSURE))
    alone = inner.postprocess_nodes(nodes(UNSURE), QUERY)

    assert ids(hits) == ids(alone) == ["200", "90"]
    assert [hit.score for hit in hits] == [hit.score for hit in alone]
    assert decision(hits) == {
        "decision": "reranked",
        "margin": pytest.approx(0.05),
        "threshold": 0.25,
        "planned_calls": 1,
    }
    for hit, other in zip(hits, alone, strict=True):
        del hit.node.metadata["rerank_audit"]["adaptive"]
        for each in (hit, other):
            del each.node.metadata["rerank_audit"]["cost"]["seconds"]
        assert hit.node.metadata == other.node.metadata
    assert sum(isinstance(event, ReRankEndEvent) for event in events) == 2


@pytest.mark.parametrize(
    "scores",
    [(None, None, None), (0.75, None, 0.25), (float("nan"), 0.5, 0.25), (0.25, 0.5, 0.75)],
    ids=["none", "one without", "nan", "distances"],
)
def test_scores_that_say_nothing_are_reranked(scores):
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), margin=0.0)
    assert ids(reranker.postprocess_nodes(nodes(scores), QUERY)) == ["200", "90", "20"]


def test_the_places_that_are_compared():
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), margin=0.2)
    assert ids(reranker.postprocess_nodes(nodes(UNSURE), QUERY)) == ["200", "90", "20"]
    reranker.margin_places = (2, 3)
    assert ids(reranker.postprocess_nodes(nodes(UNSURE), QUERY)) == ["20", "200", "90"]


def test_nothing_to_order():
    model = TextModel()
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=model), margin=0.1)
    assert reranker.postprocess_nodes([], QUERY) == []
    (hit,) = reranker.postprocess_nodes(nodes([0.5], [7]), QUERY)
    assert decision([hit]) == {"decision": "skipped", "because": "one node"}
    assert model.prompts == []


def test_a_node_that_comes_twice_counts_once():
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), margin=0.2)
    first, second, third = nodes()
    hits = reranker.postprocess_nodes([first, first, second, third], QUERY)
    assert ids(hits) == ["20", "200", "90"]
    assert decision(hits)["margin"] == 0.25


def test_an_earlier_reranking_leaves_no_audit():
    earlier = Phi3VisionRerank(model=TextModel()).postprocess_nodes(nodes(), QUERY)
    for hit, score in zip(earlier, SURE, strict=True):
        hit.score = score
    skipped = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), margin=0.1)
    assert skipped.postprocess_nodes(earlier, QUERY)[0].node.metadata["rerank_audit"]["source"] == "none"
    assert "rerank_reason" not in skipped.postprocess_nodes(earlier, QUERY)[0].node.metadata
    plain = AdaptiveRerank(reranker=Plain()).postprocess_nodes(earlier, QUERY)
    assert set(plain[0].node.metadata["rerank_audit"]) == {"adaptive"}


# -- what a query costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("permutations", [1, 2])
@pytest.mark.parametrize("explain", [True, False])
@pytest.mark.parametrize(
    ("model", "strategy"),
    [
        (TextModel, "listwise"),
        (ConstrainedTextModel, "listwise"),
        (LogitModel, "first_token"),
        (ConstrainedTextModel, "first_token"),
        (PrefillingTextModel, "first_token"),
        (ServedModel, "first_token"),
    ],
)
def test_what_is_planned_is_what_is_asked(model, strategy, explain, permutations):
    reranker = Phi3VisionRerank(
        model=model(),
        strategy=strategy,
        explain=explain,
        permutations=permutations,
        window=4,
        stride=2,
        top_n=9,
    )
    for n in (1, 5):
        query = ImageTextQuery("redder", image=Image.new("RGB", (9 + n, 9)))  # not captioned yet
        with counted_prompts() as counted:
            reranker.postprocess_nodes(many(n), query)
        assert counted.prompts == reranker.planned_calls(n, query), n
    assert reranker.planned_calls(0, query) == 0


@pytest.mark.parametrize("model", [TextModel, ConstrainedTextModel])
async def test_threads_and_tasks_are_counted(model):
    reranker = Phi3VisionRerank(model=model(), top_n=9, explain=False)
    with counted_prompts() as counted:
        await reranker.apostprocess_nodes(many(3), QUERY)
        await reranker.arerank_batch([(many(3), QUERY)] * 3)
        reranker.rerank_batch([(many(3), QUERY)] * 2)
    assert counted.prompts == 1 + 3 + 2


def test_some_costs_by_hand():
    text = Phi3VisionRerank(model=TextModel(), window=4, stride=2)
    with_picture = ImageTextQuery("redder", image=Image.new("RGB", (9, 9)))
    # Windows 9-12, 7-10, 5-8, 3-6, 1-4; a caption.
    assert text.planned_calls(12, QUERY) == 5
    assert text.planned_calls(12, with_picture) == 6
    first = Phi3VisionRerank(
        model=ConstrainedTextModel(), strategy="first_token", window=4, stride=2, permutations=3
    )
    assert first.planned_calls(12, with_picture) == 5 * 3 + 1 + 1  # and the reason


def test_counts_of_a_batch_are_those_of_its_queries():
    model = ConstrainedTextModel()
    reranker = Phi3VisionRerank(model=model, explain=False)
    with counted_prompts() as outer, counted_prompts() as counted:
        reranker.rerank_batch([(many(3), QUERY)] * 5, batch_size=4)
    assert counted.prompts == outer.prompts == 5
    assert [size for size, *_ in model.batches] == [4, 1]


def test_a_sheet_that_was_read_for_several_queries_is_not_counted_again_for_their_reasons():
    model = BatchPrefillingTextModel()
    with counted_prompts() as counted:
        Phi3VisionRerank(model=model, strategy="first_token").rerank_batch([(many(3), QUERY)] * 4)
    assert model.read == 4
    assert counted.prompts == 4


def test_a_query_may_cost_so_much():
    """2 calls reach 6 candidates (3 would 8): windows 3-6 and 1-4; 10, 20, 60 and 50 are in the last."""
    model = TextModel()
    inner = Phi3VisionRerank(model=model, window=4, stride=2, top_n=3)
    hits = AdaptiveRerank(reranker=inner, calls_per_query=2).postprocess_nodes(many(12), QUERY)
    assert ids(hits) == ["60", "50", "20"]
    assert len(model.prompts) == 2
    assert decision(hits) == {
        "decision": "reranked",
        "planned_calls": 2,
        "calls_allowed": 2,
        "left_out": 6,
    }


def test_nodes_that_were_not_shown_follow_where_there_is_place():
    inner = Phi3VisionRerank(model=TextModel(), window=4, stride=2, top_n=6)
    hits = AdaptiveRerank(reranker=inner, calls_per_query=1).postprocess_nodes(many(9), QUERY)
    assert ids(hits) == ["40", "30", "20", "10", "50", "60"]
    assert [hit.node.metadata["rerank_rank"] for hit in hits] == [1, 2, 3, 4, 5, 6]
    assert [hit.score for hit in hits] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert hits[4].node.metadata["retrieval_score"] == pytest.approx(0.96)
    assert hits[4].node.metadata["rerank_audit"]["adaptive"]["shown"] is False


def test_a_query_that_costs_more_than_is_allowed_is_not_reranked():
    model = TextModel()
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=model), calls_per_query=1)
    query = ImageTextQuery("redder", image=Image.new("RGB", (9, 9)))
    hits = reranker.postprocess_nodes(nodes(), query)
    assert ids(hits) == ["20", "200", "90"]
    assert decision(hits) == {
        "decision": "skipped",
        "because": "calls_per_query",
        "planned_calls": 2,  # the caption and the sheet
        "calls_allowed": 1,
    }
    assert model.captions == 0


# -- the budget ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_calls_per_minute(kind):
    clock = Clock()
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), budget=CallBudget(2, clock=clock))
    orders = []
    for now in (0, 30, 59, 60, 61):
        clock.now = now
        hits = await rerank(kind, reranker, nodes())
        orders.append(ids(hits)[0])
        if now == 59:
            assert decision(hits) == {
                "decision": "skipped",
                "because": "budget",
                "planned_calls": 1,
                "budget_used": 2,
                "budget": 2,
            }
    assert orders == ["200", "200", "20", "200", "20"]


def test_the_budget_counts_what_was_asked():
    budget = CallBudget(9)
    query = ImageTextQuery("redder", image=Image.new("RGB", (9, 9)))
    captioned = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), budget=budget)
    captioned.postprocess_nodes(nodes(), query)
    assert budget.used == 2
    captioned.postprocess_nodes(nodes(), query)
    assert budget.used == 3  # the caption is known

    model = Scripted("no list", "none either", "[1] > [2] > [3]")
    again = AdaptiveRerank(reranker=Phi3VisionRerank(model=model, on_bad_answer="retry"), budget=budget)
    again.postprocess_nodes(nodes(), QUERY)
    assert budget.used == 6  # planned was one, and three were asked

    failing = AdaptiveRerank(reranker=Phi3VisionRerank(model=Scripted(RuntimeError("no"))), budget=budget)
    with pytest.raises(ModelCallError):
        failing.postprocess_nodes(nodes(), QUERY)
    assert budget.used == 7  # it was asked

    missing = ImageTextQuery("redder", image_path="/gone.png")
    with pytest.raises(ValueError, match="gone"):
        failing.postprocess_nodes(nodes(), missing)
    assert budget.used == 7  # nobody was


def test_a_skipped_query_costs_nothing():
    budget = CallBudget(1)
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), margin=0.1, budget=budget)
    reranker.postprocess_nodes(nodes(), QUERY)
    assert budget.used == 0


def test_a_query_that_no_minute_has_place_for_is_cut_to_the_budget():
    inner = Phi3VisionRerank(model=TextModel(), window=4, stride=2, top_n=1)
    hits = AdaptiveRerank(reranker=inner, budget=2).postprocess_nodes(many(12), QUERY)
    assert ids(hits) == ["60"]
    assert decision(hits)["left_out"] == 6


def test_threads_share_the_budget():
    model = TextModel()
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=model), budget=CallBudget(5, 3600))
    barrier = threading.Barrier(8)
    firsts = []

    def run():
        barrier.wait()
        firsts.extend(ids(reranker.postprocess_nodes(nodes(), QUERY))[0] for _ in range(2))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(firsts) == ["20"] * 11 + ["200"] * 5
    assert len(model.prompts) == 5


# -- many queries ----------------------------------------------------------------------------------


async def batch(kind, reranker, queries, **options):
    if kind == "async":
        return await reranker.arerank_batch(queries, **options)
    return reranker.rerank_batch(queries, **options)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_batches_hold_those_that_are_reranked(kind):
    model = ConstrainedTextModel()
    inner = Phi3VisionRerank(model=model, explain=False)
    reranker = AdaptiveRerank(reranker=inner, margin=0.25, budget=CallBudget(4, 3600))
    queries = [(nodes(SURE if number % 2 else UNSURE), QUERY) for number in range(11)]

    results = await batch(kind, reranker, queries, batch_size=3)

    firsts = [ids(hits)[0] for hits in results]
    assert firsts == ["200", "20"] * 4 + ["20"] * 3  # the budget ends after four
    assert [size for size, *_ in model.batches] == [3, 1]
    because = [decision(hits).get("because") for hits in results]
    assert because == [None, "margin"] * 4 + ["budget", "margin", "budget"]
    assert reranker.budget.used == 4


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_query_of_a_batch_that_fails_takes_none_of_the_others(kind):
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=LogitModel()), margin=0.25)
    gone = ImageTextQuery("redder", image_path="/gone.png")
    queries = [(nodes(), gone), (nodes(UNSURE), QUERY), (nodes(UNSURE), gone), (nodes(UNSURE), QUERY)]
    reranker.reranker.strategy = "first_token"
    with pytest.raises(RerankBatchError, match="query 2") as raised:
        await batch(kind, reranker, queries)
    assert list(raised.value.errors) == [2]
    assert [hits and ids(hits)[0] for hits in raised.value.results] == ["20", "200", None, "200"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_reranker_of_others(kind):
    reranker = AdaptiveRerank(reranker=Plain(), margin=0.25, budget=CallBudget(2, 3600))
    fail = QueryBundle("fail")
    queries = [(nodes(UNSURE), QUERY), (nodes(), fail), (nodes(UNSURE), QUERY), (nodes(UNSURE), QUERY)]
    results = await batch(kind, reranker, queries)
    assert [ids(hits) for hits in results] == [
        ["90", "200", "20"],
        ["20", "200", "90"],
        ["90", "200", "20"],
        ["20", "200", "90"],
    ]
    assert decision(results[0])["planned_calls"] == 1
    assert decision(results[3])["because"] == "budget"

    reranker.budget = None
    with pytest.raises(RerankBatchError, match="query 1") as raised:
        await batch(kind, reranker, [(nodes(UNSURE), QUERY), (nodes(UNSURE), fail)])
    assert ids(raised.value.results[0]) == ["90", "200", "20"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_nothing_asked_and_what_cannot_be_asked(kind):
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()))
    assert await batch(kind, reranker, []) == []
    with pytest.raises(ValueError, match="batch_size must be 1 or more queries, got 0"):
        await batch(kind, reranker, [(nodes(), QUERY)], batch_size=0)
    with pytest.raises(ValueError, match="needs the query"):
        await rerank(kind, reranker, nodes(), None)


# -- as LlamaIndex has it --------------------------------------------------------------------------


def test_callbacks_and_prompts_reach_the_reranker():
    inner = Phi3VisionRerank(model=TextModel())
    reranker = AdaptiveRerank(reranker=inner, margin=0.1)
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker.callback_manager = CallbackManager([debug])
    reranker.postprocess_nodes(nodes(UNSURE), QUERY)
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1
    assert reranker._get_prompt_modules()["reranker"].get_prompts().keys() == {
        "rank_prompt",
        "caption_prompt",
        "reason_prompt",
    }


def test_pickles():
    reranker = AdaptiveRerank(
        reranker=Phi3VisionRerank(model="demo", top_n=2),
        margin=0.1,
        calls_per_query=3,
        budget=CallBudget(7, 9),
    )
    reranker.budget.take(1)
    other = pickle.loads(pickle.dumps(reranker))
    assert (other.margin, other.margin_places, other.calls_per_query) == (0.1, (1, 2), 3)
    assert (other.reranker.model, other.reranker.top_n) == ("demo", 2)
    assert (other.budget.calls, other.budget.seconds, other.budget.used) == (7, 9, 0)

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel())))


def test_json():
    reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model="demo"), margin=0.1, budget=60)
    data = json.loads(reranker.to_json())
    assert data["class_name"] == "AdaptiveRerank"
    assert data["reranker"]["class_name"] == "Phi3VisionRerank"
    assert data["budget"] == {"calls": 60, "seconds": 60.0}
    again = AdaptiveRerank.from_dict({**data, "reranker": reranker.reranker})
    assert (again.margin, again.budget.calls) == (0.1, 60)


@pytest.mark.parametrize(
    ("field", "value"),
    [("margin", -0.1), ("calls_per_query", 0), ("budget", 0), ("budget", "60"), ("margin_places", (2, 1))],
)
def test_values_that_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        AdaptiveRerank(reranker=Plain(), **{field: value})
    reranker = AdaptiveRerank(reranker=Plain())
    with pytest.raises(ValueError, match=field):
        setattr(reranker, field, value)


def test_texts_are_candidates_as_well():
    found = [NodeWithScore(node=TextNode(text=text), score=score) for text, score in (("a", 0.9), ("b", 0.1))]
    hits = AdaptiveRerank(reranker=Phi3VisionRerank(model=TextModel()), margin=0.5).postprocess_nodes(
        found, QUERY
    )
    assert [hit.text for hit in hits] == ["a", "b"]
