"""What was right and wrong with the answers of a reranking, in sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..logs import one_line

_SHOWN = 200

_CLEAN = {
    "constraint": "The model could write nothing but a whole list: each of the {n} pictures once.",
    "first_token": "The {n} pictures are in the order of how likely the model was to name each first.",
    "answer": "The model's answer named each of the {n} pictures once.",
    "none": "There was nothing to rank, so no model was asked.",
}
_ACTIONS = {
    "repaired": "What was missing follows in the order of retrieval.",
    "retrieval_order": "So the order is that of the retrieval.",
}


def audit_in_words(audit: Mapping[str, Any]) -> str:
    """Return ``metadata["rerank_audit"]`` as one or more sentences.

    Args:
        audit: of one answer, or the summary of several; see ``docs/reranking.md``.
    """
    sentences = _several(audit) if "answers" in audit else [_one(audit)]
    if lost := audit.get("reason_error"):
        sentences.append(f"The call for a reason failed: {_short(lost)}.")
    if audit.get("query_shortened"):
        sentences.append("The words of the query were too long for the prompt and were cut.")
    if cut := audit.get("texts_shortened"):
        sentences.append(f"The texts of {_count(cut, 'picture')} were too long for the prompt and were cut.")
    if isinstance(cost := audit.get("cost"), Mapping) and (calls := cost.get("calls")):
        retries = cost.get("retries")
        again = f", and {_times(retries)} again after failures" if retries else ""
        sentences.append(f"The model was asked {_times(calls)}{again}.")
    return " ".join(sentences)


def _several(audit: Mapping[str, Any]) -> list[str]:
    answers, bad = int(audit["answers"]), list(audit.get("not_clean") or ())
    sentences = [f"{_count(answers, 'sheet')} were ranked, {answers - len(bad)} of them without a fault."]
    return [*sentences, *dict.fromkeys(_one(each) for each in bad)]


def _one(audit: Mapping[str, Any]) -> str:
    n = audit.get("expected", 0)
    if error := audit.get("error"):
        sentences = [f"There is no answer: {_short(error)}."]
    elif faults := _faults(audit):
        sentences = [f"The answer {'; '.join(faults)}."]
    else:
        return _CLEAN.get(str(audit.get("source")), _CLEAN["answer"]).format(n=n)
    if refusal := audit.get("refusal"):
        sentences.insert(0, f"The model did not want to answer: “{_short(refusal)}”.")
    if (attempts := int(audit.get("attempts") or 1)) > 1:
        sentences.append(f"It was asked {_times(attempts)}.")
    if action := _ACTIONS.get(str(audit.get("action"))):
        sentences.append(action)
    return " ".join(sentences)


def _faults(audit: Mapping[str, Any]) -> list[str]:
    """Return what an answer did wrong, each to stand after "The answer"."""
    faults = []
    if missing := audit.get("missing"):
        everything = len(missing) == audit.get("expected")
        faults.append("named no picture" if everything else f"left out {_numbers(missing)}")
    if duplicates := audit.get("duplicates"):
        faults.append(f"named {_numbers(dict.fromkeys(duplicates))} more than once")
    if strange := audit.get("out_of_range"):
        faults.append(f"named {_numbers(strange)}, which no picture has")
    if refused := audit.get("refused"):
        one = len(refused) == 1
        faults.append(
            "has an entry that is no number" if one else f"has {len(refused)} entries that are no numbers"
        )
    if lists := audit.get("conflicting_lists"):
        faults.append(f"has {lists} lists that contradict each other")
    return faults


def _numbers(labels: Any) -> str:
    shown = [str(label) for label in labels]
    more = f" and {len(shown) - 9} more" if len(shown) > 9 else ""
    return f"number{'s' if len(shown) > 1 else ''} {', '.join(shown[:9])}{more}"


def _count(count: int, one: str) -> str:
    return f"{count} {one if count == 1 else f'{one}s'}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _short(text: object) -> str:
    return one_line(str(text), _SHOWN).rstrip(".")
