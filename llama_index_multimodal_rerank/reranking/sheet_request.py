"""What a model is asked about a window: its sheet, and the question."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..vlm.protocols import ConstrainedModel, JsonModel, RankRequest, VisionLanguageModel
from .candidates import Candidate, QueryContent
from .options import RerankOptions
from .prompts import describe_candidates, json_format, list_format, list_labels, query_variables
from .sheet import build_sheet

if TYPE_CHECKING:
    from PIL.Image import Image


def sheet_request(
    query: QueryContent,
    caption: str | None,
    members: Sequence[Candidate],
    *,
    answer_format: str,
    options: RerankOptions,
) -> RankRequest:
    """Draw the sheet of a window, and ask for its ranking.

    Args:
        query: what is looked for.
        caption: what the query picture shows, if it was described.
        members: the candidates; the first is labelled 1.
        answer_format: how to answer.
        options: how sheets are drawn, whether they are saved, and how the question is worded.
    """
    sheet = draw_sheet(query, members, options)
    prompt = options.rank_prompt.format(
        **query_variables(query.text, has_picture=query.picture is not None, caption=caption),
        num_candidates=str(len(members)),
        labels=list_labels(len(members)),
        candidate_texts=describe_candidates([member.words for member in members]),
        answer_format=answer_format,
    )
    return RankRequest((sheet,), prompt, len(members))


def draw_sheet(query: QueryContent, members: Sequence[Candidate], options: RerankOptions) -> Image:
    """Draw candidates beside the query, and save the sheet if all are to be saved.

    Args:
        query: what is looked for.
        members: the candidates; the first is labelled 1.
        options: how sheets are drawn, and whether they are saved.
    """
    sheet = build_sheet(
        [member.cell for member in members],
        query.picture,
        num_crops=options.num_crops,
        show_text=options.show_text,
    )
    if options.save_sheets is not None:
        _save(sheet.image, options.save_sheets)
    return sheet.image


def describe_answer(model: VisionLanguageModel, *, explain: bool) -> str:
    """Say how to answer, in the form that a model can be held to."""
    if isinstance(model, ConstrainedModel):
        return list_format(explain=explain, declared=False)
    if isinstance(model, JsonModel):
        return json_format(explain=explain)
    return list_format(explain=explain, declared=True)


def _save(image: Image, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}-{uuid.uuid4().hex[:6]}.png"
    image.save(folder / name)
