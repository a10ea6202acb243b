"""Any answer becomes a complete ranking; what was wrong with it is counted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_multimodal_rerank.reranking.answer_parser import parse_answer
from llama_index_multimodal_rerank.reranking.ranking import (
    Audit,
    BadAnswerError,
    Ranking,
    cumulative_scores,
    rank_scores,
    ranking_from_answer,
    repair,
    retrieval_order,
)

# answer, candidates, labels in the order expected, what the audit must count
BAD_ANSWERS = {
    "digits in prose are no ranks": (
        "Of the 3 chairs in 2 rows, [2] > [1] is how I would put it.",
        3,
        [2, 1, 3],
        {"missing": (3,), "action": "repaired"},
    ),
    "label 0 is not the last candidate": (
        "Ranking: [0] > [3] > [2]",
        3,
        [3, 2, 1],
        {"out_of_range": (0,), "missing": (1,), "action": "repaired"},
    ),
    "a duplicate is returned once": (
        "Ranking: [2] > [2] > [3] > [1] > [2]",
        3,
        [2, 3, 1],
        {"duplicates": (2, 2), "action": "repaired"},
    ),
    "what is missing follows in retrieval order": (
        "Ranking: [4] > [2]",
        5,
        [4, 2, 1, 3, 5],
        {"missing": (1, 3, 5), "action": "repaired"},
    ),
    "an error text is no ranking": (
        "Error 429: Too Many Requests. You may send 5 requests per 3 s.",
        5,
        [1, 2, 3, 4, 5],
        {"listed": 0, "action": "retrieval_order"},
    ),
    "scores do not overrule the order": (
        '{"ranking": [2, 3, 1], "scores": [0.1, 0.5, 0.9], "ranking_of": 3}',
        4,
        [2, 3, 1, 4],
        {"missing": (4,), "action": "repaired"},
    ),
    "numbers beyond the sheet are refused": (
        "Ranking: [7] > [2] > [99999999999] > [-1] > [1]",
        3,
        [2, 1, 3],
        {"out_of_range": (7,), "refused": ("99999999999", "-1"), "missing": (3,)},
    ),
    "a refusal is no ranking": (
        "I'm sorry, but I can't help with comparing these 2 people [1] and [3].",
        3,
        [1, 2, 3],
        {"listed": 0, "missing": (1, 2, 3), "action": "retrieval_order"},
    ),
    "what a token limit cut off is not guessed": (
        '{"ranking": [3, 11, 1',
        12,
        [3, 11, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12],
        {"listed": 2, "action": "repaired"},
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer(name):
    answer, n, labels, counted = BAD_ANSWERS[name]

    ranking = ranking_from_answer(answer, n)

    assert [index + 1 for index in ranking.order] == labels
    assert {key: getattr(ranking.audit, key) for key in counted} == counted
    assert not ranking.audit.clean
    assert ranking.audit.answer == answer
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)

    kept = ranking_from_answer(answer, n, on_bad_answer="keep_order")
    assert kept.order == tuple(range(n))
    assert kept.audit.action == "retrieval_order"
    for policy in ("raise", "retry"):
        with pytest.raises(BadAnswerError, match="on_bad_answer") as error:
            ranking_from_answer(answer, n, on_bad_answer=policy)
        assert error.value.audit.expected == n


@pytest.mark.parametrize(
    ("answer", "labels", "reason"),
    [
        ("[3] > [1] > [2]", [3, 1, 2], None),
        ("3, 1, 2", [3, 1, 2], None),
        ("[3, 1, 2]", [3, 1, 2], None),
        ("Ranking: 3 > 1 > 2 (of 3 chairs)", [3, 1, 2], None),
        ("**Final ranking:** [3] > [1] > [2]\n**Reason:** 3 legs.", [3, 1, 2], "3 legs."),
        ("Ranking:\n[Image 3] > [#1] > [2]\nReason: [1] has 4 legs, [3] > [2].", [3, 1, 2], None),
        ('Sure!\n```json\n{"ranking": ["[3]", "1", 2], "reason": "blue"}\n```', [3, 1, 2], "blue"),
        ("{'ranking': [3, 1, 2], 'reason': 'single quotes'}", [3, 1, 2], None),
        ('{"ranking": [3, 1, 2,], }', [3, 1, 2], None),
        ("1. [3] - 2 legs\n2. [1] - 3 legs\n3. [2]", [3, 1, 2], None),
        ("I see 3. So [3] > [1] > [2].", [3, 1, 2], None),
        ("```\n[3] > [1] > [2]\n```", [3, 1, 2], None),
        ("[3] ≻ [1] ≻ [2]", [3, 1, 2], None),
        ("<think>Ranking: [1] > [2] > [3]? No.</think>\nRanking: [3] > [1] > [2]", [3, 1, 2], None),
    ],
)
def test_good_answers_in_the_forms_models_use(answer, labels, reason):
    ranking = ranking_from_answer(answer, 3, on_bad_answer="raise")

    assert [index + 1 for index in ranking.order] == labels
    assert ranking.audit == Audit(expected=3, listed=3)
    assert ranking.scores == (1.0, 2 / 3, 1 / 3)
    if reason:
        assert ranking.reason == reason


def test_the_declared_list_wins_over_chains_and_the_last_over_the_first():
    text = "At first sight [1] > [2] > [3].\nRanking: [2] > [1] > [3]\nWait.\nRanking: [3] > [2] > [1]"

    parsed = parse_answer(text)

    assert (parsed.kind, parsed.entries, parsed.lists) == ("declared", (3, 2, 1), 2)
    with pytest.raises(BadAnswerError, match="2 lists that contradict each other"):
        ranking_from_answer(text, 3, on_bad_answer="raise")
    assert ranking_from_answer(text, 3).order == (2, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5 requests per 3 s",
        "Ranking: 3 chairs are red",
        "Ranking: none of them",
        '{"error": {"code": 429, "message": "5 > 3"}}',
        "The 3 best are [1], [2] and [3].",
        "1.5 > x",
        "HTTP/1.1 503 Service Unavailable\nRetry-After: 3",
        "[2]: a dog\n[1]: a cat",
        "<think>\nRanking: [3] > [1]",
        "{" * 5000,
        "[" * 5000,
        '{"a":' * 5000,
        "9" * 10_000,
    ],
)
def test_no_list_is_found_where_none_is_declared(text):
    if text == "1.5 > x":
        assert parse_answer(text).kind == "none"
    assert ranking_from_answer(text, 5).order == (0, 1, 2, 3, 4)


label = st.integers(-3, 105)
joints = st.sampled_from([" > ", ">", ", ", "; ", " ", "\n", " and ", " > > "])
fragments = st.one_of(
    st.text(max_size=30),
    label.map(str),
    label.map("[{}]".format),
    st.sampled_from(
        ["Ranking:", "Reason:", '{"ranking": [', "]", "}", "1. ", "2. [", "```json\n", "```", " > ", "٣", "²"]
    ),
    st.lists(label, max_size=20).map(lambda labels: " > ".join(f"[{entry}]" for entry in labels)),
    st.lists(label | st.text(max_size=5) | st.floats() | st.none(), max_size=20).map(
        lambda entries: json.dumps({"ranking": entries})
    ),
)
answers = st.lists(st.one_of(fragments, joints), max_size=12).map("".join)


@given(answers, st.integers(1, 100), st.sampled_from(["repair", "keep_order", "retry", "raise"]))
def test_any_answer_gives_a_permutation(text, n, policy):
    if policy in ("retry", "raise") and not ranking_from_answer(text, n).audit.clean:
        with pytest.raises(BadAnswerError):
            ranking_from_answer(text, n, on_bad_answer=policy)
        return
    ranking = ranking_from_answer(text, n, on_bad_answer=policy)
    assert sorted(ranking.order) == list(range(n))
    assert all(a >= b for a, b in zip(ranking.scores, ranking.scores[1:], strict=False))
    assert ranking.audit.clean or policy in ("repair", "keep_order")
    json.dumps(ranking.audit.to_dict())


@given(st.lists(label, min_size=2, max_size=60), st.integers(1, 100))
def test_repair_keeps_the_order_of_what_is_valid(labels, n):
    order = ranking_from_answer("Ranking: " + " > ".join(f"[{entry}]" for entry in labels), n).order

    valid = list(dict.fromkeys(entry - 1 for entry in labels if 1 <= entry <= n))
    assert list(order[: len(valid)]) == valid
    assert list(order[len(valid) :]) == sorted(order[len(valid) :])


def test_repair_by_hand():
    assert repair([3, "x", 0, 3, 9, 1], 4) == (2, 0, 1, 3)


def test_step_scores_by_hand():
    assert cumulative_scores([0.5, 0.8, 1.0]) == (0.5, 0.4, 0.4)
    assert rank_scores(4) == (1.0, 0.75, 0.5, 0.25)


@pytest.mark.parametrize(
    ("order", "scores", "message"),
    [
        ((0, 0), (1.0, 0.5), "each of 0..1 once"),
        ((1, 2), (1.0, 0.5), "each of 0..1 once"),
        ((0, 1), (0.5, 1.0), "must not rise"),
        ((0, 1), (1.0,), "2 candidates, but 1 scores"),
        ((0, 1), (float("nan"), 0.5), "finite"),
    ],
)
def test_an_incomplete_ranking_cannot_be_made(order, scores, message):
    with pytest.raises(ValueError, match=message):
        Ranking(order, scores, None, Audit(expected=2))


def test_unknown_policy():
    with pytest.raises(ValueError, match=r"'repair', 'retry', 'keep_order', 'raise'.*got 'ignore'"):
        ranking_from_answer("[1]", 1, on_bad_answer="ignore")


def test_audit_dict_holds_only_what_happened():
    assert retrieval_order(3, error="timeout").audit.to_dict() == {
        "expected": 3,
        "source": "none",
        "listed": 0,
        "action": "retrieval_order",
        "attempts": 1,
        "error": "timeout",
    }
    assert ranking_from_answer("[1] > [3]", 3).audit.to_dict() == {
        "expected": 3,
        "source": "answer",
        "listed": 2,
        "missing": [2],
        "action": "repaired",
        "attempts": 1,
        "answer": "[1] > [3]",
    }
