"""All that the reranking algorithm can be set to, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_index.core.prompts import BasePromptTemplate

from .ranking import OnBadAnswer

StrategyName = Literal["first_token", "listwise"]

Explain = bool | Literal["closer_look"]
"""Whether there is a reason, and how it is asked for."""


@dataclass(frozen=True)
class RerankOptions:
    """Settings of one query: what is set anew meanwhile is for the next one.

    Attributes are those of ``Phi3VisionRerank``; ``stride``, ``num_crops`` and
    ``explain`` are never None here.
    """

    strategy: StrategyName
    window: int
    stride: int
    permutations: int
    seed: int
    caption: bool
    explain: Explain
    show_text: bool
    num_crops: int
    max_new_tokens: int
    max_query_tokens: int
    max_text_tokens: int
    on_bad_answer: OnBadAnswer
    rank_prompt: BasePromptTemplate
    caption_prompt: BasePromptTemplate
    reason_prompt: BasePromptTemplate
    save_sheets: Path | None
