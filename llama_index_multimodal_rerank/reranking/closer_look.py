"""``explain="closer_look"``: the reason is asked for apart, on a sheet of the query and the best alone.

A reason that follows a list is about small pictures, and may be about another than the first. Alone, a
picture is as large as a sheet can show it, and no other can be meant.
"""

from __future__ import annotations

from ..vlm.calls import Generate, ModelCalls, ask
from ..vlm.protocols import RankRequest
from .answer_drafts import written_reason
from .candidates import Candidate, QueryContent
from .options import RerankOptions
from .prompts import describe_candidates, query_variables
from .sheet_request import draw_sheet


def closer_look(
    query: QueryContent, caption: str | None, best: Candidate, options: RerankOptions
) -> ModelCalls[str | None]:
    """Ask why the best is the best; None if the model says nothing.

    Args:
        query: what is looked for.
        caption: what the query picture shows, if it was described.
        best: the first of the list; labelled 1.
        options: how sheets are drawn, whether they are saved, and how the question is worded.

    Raises:
        ModelCallError: the model gave no answer.
    """
    sheet = draw_sheet(query, [best], options)
    prompt = options.reason_prompt.format(
        **query_variables(query.text, has_picture=query.picture is not None, caption=caption),
        candidate_texts=describe_candidates([best.words]),
    )
    (text,) = yield from ask(Generate((RankRequest((sheet,), prompt, 1),), options.max_new_tokens))
    return written_reason(text)
