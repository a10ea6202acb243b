"""Texts of any length, cut to so many tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..vlm.protocols import TokenCountingModel, VisionLanguageModel

_LONGEST_TOKEN = 32
"""Characters a token stands for, at most; no more than this many times the limit is looked at."""
_LONGEST_WORD = 30


@dataclass(frozen=True)
class Shortener:
    """Cuts texts to a number of tokens.

    Attributes:
        count: how many tokens a text has.
    """

    count: Callable[[str], int]

    @classmethod
    def of(cls, model: VisionLanguageModel) -> Shortener:
        """Count as a model does, or where it does not say, as ``Settings.tokenizer`` of LlamaIndex does."""
        if isinstance(model, TokenCountingModel):
            return cls(model.count_tokens)
        from llama_index.core.utils import get_tokenizer

        tokenize = get_tokenizer()
        return cls(lambda text: len(tokenize(text)))

    def cut(self, text: str, limit: int) -> str:
        """Return the beginning of a text that has ``limit`` tokens, the last of which is ``…``; or all of it.

        Blanks and line breaks in a text that is cut become single blanks.
        """
        if len(text.encode("utf-8", "replace")) <= limit:  # a token stands for a byte at least
            return text
        if len(text) <= limit * _LONGEST_TOKEN and self.count(text) <= limit:
            return text
        whole = " ".join(text.split(maxsplit=limit))  # a word has a token at least
        words = whole[: limit * _LONGEST_TOKEN]
        if words == whole and self.count(words) <= limit:
            return words  # only blanks were too many
        shortest, longest = 0, len(words)
        while shortest < longest:
            middle = (shortest + longest + 1) // 2
            if self.count(f"{words[:middle]}…") <= limit:
                shortest = middle
            else:
                longest = middle - 1
        end = shortest
        if not words[end : end + 1].isspace():
            end = words.rfind(" ", max(0, end - _LONGEST_WORD), end)
        return f"{words[: end if end > 0 else shortest].rstrip()}…"
