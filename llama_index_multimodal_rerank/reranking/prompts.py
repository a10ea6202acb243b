"""The questions put to the model, as LlamaIndex prompt templates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

DEFAULT_CAPTION_PROMPT = PromptTemplate("Describe what this picture shows in one short sentence.")

DEFAULT_RANK_PROMPT = PromptTemplate(
    "The picture shows {num_candidates} candidates of a search in numbered cells.\n"
    "{query}\n"
    "{candidate_texts}"
    "Rank all {num_candidates} candidates, from the one that fits the query best to the one that fits it "
    "least. Name each number exactly once; grey cells have no picture and come last.\n"
    "{answer_format}\n"
    "The candidates are {labels}."
)
"""Variables: those of :data:`RANK_VARIABLES`."""

DEFAULT_REASON_PROMPT = PromptTemplate(
    "The picture shows the best result of a search, in the cell with the number 1.\n"
    "{query}\n"
    "{candidate_texts}"
    "Say in one sentence why [1] fits best."
)
"""Variables: those of :data:`REASON_VARIABLES`."""

RANK_VARIABLES = {
    "query": "what is looked for, in sentences",
    "query_str": "the query's words",
    "query_caption": "what the query picture shows, or nothing",
    "num_candidates": "how many there are",
    "labels": "all of them, in brackets",
    "candidate_texts": "a line for each candidate that has a text, or nothing",
    "answer_format": "how to answer; answers in other forms may not be found",
}
"""Variables of ``rank_prompt``, of which ``answer_format`` must be used."""

REASON_VARIABLES = {
    "query": "what is looked for, in sentences",
    "query_str": "the query's words",
    "query_caption": "what the query picture shows, or nothing",
    "candidate_texts": "a line with the text of the best, or nothing",
}
"""Variables of ``reason_prompt``."""


def check_rank_prompt(prompt: BasePromptTemplate) -> None:
    """Make sure that a template for the ranking can be filled in, and its answers be read.

    Raises:
        ValueError: it has variables that nothing stands for, does not say how to answer, or cannot be
            formatted.
    """
    _check_variables("rank_prompt", prompt, RANK_VARIABLES)
    answer_format = list_format(explain=True, declared=True)
    text = _filled(
        "rank_prompt", prompt, {**dict.fromkeys(RANK_VARIABLES, "1"), "answer_format": answer_format}
    )
    if answer_format not in text:
        raise ValueError(
            "rank_prompt must contain {answer_format}, which says how to answer: answers in other forms are "
            f"not read. It is {_quoted(prompt)}"
        )


def check_reason_prompt(prompt: BasePromptTemplate) -> None:
    """Make sure that a template for a closer look can be filled in.

    Raises:
        ValueError: it has variables that nothing stands for, or cannot be formatted.
    """
    _check_variables("reason_prompt", prompt, REASON_VARIABLES)
    _filled("reason_prompt", prompt, dict.fromkeys(REASON_VARIABLES, "1"))


def check_caption_prompt(prompt: BasePromptTemplate) -> None:
    """Make sure that a template for the caption needs nothing filled in.

    Raises:
        ValueError: it has variables.
    """
    _check_variables("caption_prompt", prompt, {})


PROMPTS: dict[str, Callable[[BasePromptTemplate], None]] = {
    "rank_prompt": check_rank_prompt,
    "caption_prompt": check_caption_prompt,
    "reason_prompt": check_reason_prompt,
}
"""Fields of the reranker that hold prompts, and what makes sure that they can be used."""


def _check_variables(name: str, prompt: BasePromptTemplate, known: Collection[str]) -> None:
    mappings = prompt.template_var_mappings or {}
    given = {*known, *prompt.kwargs, *(prompt.function_mappings or {})}
    unknown = sorted(set(prompt.template_vars) - {mappings.get(variable, variable) for variable in given})
    if unknown:
        allowed = ", ".join(f"{{{variable}}}" for variable in known) or "none"
        raise ValueError(
            f"{name} has the variables {', '.join(f'{{{variable}}}' for variable in unknown)}, which nothing "
            f"stands for; there are {allowed}. It is {_quoted(prompt)}"
        )


def _filled(name: str, prompt: BasePromptTemplate, values: Mapping[str, Any]) -> str:
    try:
        return prompt.format(**values)
    except Exception as error:  # from functions in the template
        raise ValueError(f"{name} cannot be formatted: {type(error).__name__}: {error}") from error


def _quoted(prompt: BasePromptTemplate) -> str:
    text = prompt.get_template()
    return repr(text if len(text) <= 200 else f"{text[:199]}…")


def list_labels(num_labels: int) -> str:
    """Name the labels 1..num_labels."""
    return " ".join(f"[{label}]" for label in range(1, num_labels + 1))


def describe_query(text: str, *, has_picture: bool, caption: str | None) -> str:
    """Say what is looked for, in sentences."""
    if not has_picture:
        return f'The query is: "{text}"'
    picture = "the picture in the red frame marked QUERY"
    if caption:
        picture += f" ({caption.rstrip('.')})"
    if not text:
        return f"The query is {picture}: find candidates that show the same."
    return (
        f'The query is {picture} together with the words: "{text}". A good candidate does what the words say '
        "about the query picture."
    )


def query_variables(text: str, *, has_picture: bool, caption: str | None) -> dict[str, Any]:
    """Return the variables of a question that tell of the query, filled in."""
    return {
        "query": describe_query(text, has_picture=has_picture, caption=caption),
        "query_str": text,
        "query_caption": caption or "",
    }


def describe_candidates(texts: Sequence[str]) -> str:
    """List the texts that candidates have, under their numbers."""
    lines = [
        f"[{number}] {' '.join(text.split())}\n" for number, text in enumerate(texts, start=1) if text.strip()
    ]
    return "Texts of the candidates:\n" + "".join(lines) if lines else ""


def list_format(*, explain: bool, declared: bool) -> str:
    """Say how to answer in text.

    Args:
        explain: ask for a reason.
        declared: the list must be declared by the word ``Ranking:``, as nothing else tells it from prose.
    """
    lines = "Answer with one line, the numbers in brackets, best first: "
    lines += f"{'Ranking: ' if declared else ''}[best] > [second] > … > [last]"
    if explain:
        lines += '\nThen write "Reason:" and one sentence that says why the best is the best.'
    return lines


def first_label_format() -> str:
    """Say how to answer so that the first token names the best."""
    return "Answer with one line, the numbers only, best first: best > second > … > last"


def order_reason_prompt(prompt: str, order: Sequence[int]) -> str:
    """Ask for the reason of an order that is known.

    Args:
        prompt: the question that asked for the order.
        order: labels from 0, best first.
    """
    ranking = " > ".join(f"[{label + 1}]" for label in order)
    return (
        f"{prompt}\nThe ranking is {ranking}. Do not write it again: write one sentence that says why "
        f"[{order[0] + 1}] is the best."
    )


def json_format(*, explain: bool) -> str:
    """Say how to answer in JSON."""
    reason = ', "reason": "one sentence that says why the best is the best"' if explain else ""
    return f'Answer with JSON only: {{"ranking": [numbers, best first]{reason}}}'


def ranking_schema(num_labels: int, *, explain: bool) -> dict[str, object]:
    """Return the JSON schema of an answer that ranks the labels 1..num_labels."""
    properties: dict[str, object] = {
        "ranking": {
            "type": "array",
            "description": "All numbers, best first, each exactly once.",
            "items": {"type": "integer", "enum": list(range(1, num_labels + 1))},
            "minItems": num_labels,
            "maxItems": num_labels,
        }
    }
    if explain:
        properties["reason"] = {"type": "string"}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
