"""The audit of a reranking in sentences, from the audits that the ranking itself writes."""

from __future__ import annotations

import pytest

from llama_index_multimodal_rerank.app.audit_words import audit_in_words
from llama_index_multimodal_rerank.reranking.ranking import (
    Audit,
    ranking_from_answer,
    retrieval_order,
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("[3] > [1] > [2]", "The model's answer named each of the 3 pictures once."),
        (
            "[3] > [1]",
            "The answer left out number 2. What was missing follows in the order of retrieval.",
        ),
        (
            "[3] > [3] > [7]",
            "The answer left out numbers 1, 2; named number 3 more than once; named number 7, which no "
            "picture has. What was missing follows in the order of retrieval.",
        ),
        ("I cannot see.", "The answer named no picture. So the order is that of the retrieval."),
    ],
)
def test_an_answer(answer: str, words: str) -> None:
    assert audit_in_words(ranking_from_answer(answer, 3).audit.to_dict()) == words


@pytest.mark.parametrize(
    ("audit", "words"),
    [
        (
            Audit(9, source="constraint", listed=9),
            "The model could write nothing but a whole list: each of the 9 pictures once.",
        ),
        (
            Audit(9, source="first_token", listed=9),
            "The 9 pictures are in the order of how likely the model was to name each first.",
        ),
        (
            retrieval_order(9, error="timed out.\nafter 3 s", attempts=2).audit,
            "There is no answer: timed out.\\nafter 3 s. It was asked twice. So the order is that of the "
            "retrieval.",
        ),
        (
            Audit(2, missing=(1, 2), refusal="I must not", action="retrieval_order"),
            "The model did not want to answer: “I must not”. The answer named no picture. So the "
            "order is that of the retrieval.",
        ),
        (
            Audit(3, source="first_token", listed=3, reason_error="served-model gave no answer.\nHTTP 500"),
            "The 3 pictures are in the order of how likely the model was to name each first. The call for a "
            "reason failed: served-model gave no answer.\\nHTTP 500.",
        ),
        (Audit(0, source="none"), "There was nothing to rank, so no model was asked."),
        (
            Audit(3, listed=3, refused=("two",), conflicting_lists=2, missing=(2,), action="repaired"),
            "The answer left out number 2; has an entry that is no number; has 2 lists that contradict "
            "each other. What was missing follows in the order of retrieval.",
        ),
    ],
)
def test_other_sources(audit: Audit, words: str) -> None:
    assert audit_in_words(audit.to_dict()) == words


def test_several_sheets_cut_texts_and_cost() -> None:
    bad = ranking_from_answer("[3] > [1]", 3).audit.to_dict()
    words = audit_in_words(
        {
            "answers": 5,
            "clean": 3,
            "not_clean": [bad, bad],
            "query_shortened": True,
            "texts_shortened": 1,
            "cost": {"calls": 7, "retries": 2},
        }
    )
    assert words == (
        "5 sheets were ranked, 3 of them without a fault. The answer left out number 2. What was missing "
        "follows in the order of retrieval. The words of the query were too long for the prompt and were "
        "cut. The texts of 1 picture were too long for the prompt and were cut. The model was asked 7 times, "
        "and twice again after failures."
    )


def test_a_long_list_of_numbers_is_shortened() -> None:
    words = audit_in_words(Audit(25, missing=tuple(range(3, 15)), action="repaired").to_dict())
    assert words.startswith("The answer left out numbers 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more.")
