"""The questions put to the model, as LlamaIndex prompt templates."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.prompts import PromptTemplate

MAX_CANDIDATE_TEXT = 200
"""Characters of a candidate's text in the prompt."""

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
"""Variables: ``query`` (what is looked for, in sentences), ``query_str``, ``query_caption``,
``num_candidates``, ``labels`` (all of them, in brackets), ``candidate_texts`` (one line per candidate
that has a text, or empty) and ``answer_format``, without which answers cannot be read."""


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


def describe_candidates(texts: Sequence[str]) -> str:
    """List the texts that candidates have, under their numbers."""
    lines = [f"[{number}] {_shorten(text)}\n" for number, text in enumerate(texts, start=1) if text.strip()]
    return "Texts of the candidates:\n" + "".join(lines) if lines else ""


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CANDIDATE_TEXT else line[: MAX_CANDIDATE_TEXT - 1] + "…"


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
