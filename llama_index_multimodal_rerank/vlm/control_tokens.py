"""Words of users and documents in a prompt are words, whatever token they are spelled like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ControlTokens:
    """The tokens of a tokenizer that stand for something else than their letters.

    These are all that were added to its vocabulary, whether it calls them special or not: ``</s>`` of
    Phi-3 is not special to its tokenizer, and ends the text for the model. Tags of pictures, ``<|image_1|>``,
    are no tokens, and are read by the processor.

    Args:
        tokenizer: the tokenizer of the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        names = {str(token) for token in tokenizer.get_added_vocab()}
        breakable = sorted((name for name in names if len(name) > 1 and not name.isspace()), key=len)
        self._pattern = re.compile("|".join(["<(?=[|])", *map(re.escape, reversed(breakable))]))

    def broken(self, text: str) -> str:
        """Return a text with a blank after the first character of what is spelled like a control token."""
        while True:
            spaced = self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
            if spaced == text or self._pattern.search(spaced) is None:
                return spaced
            text = spaced
