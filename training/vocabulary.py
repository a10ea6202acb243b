"""The demo embedder's tokenizer: whole words of the demo's language, characters for all others."""

from __future__ import annotations

import string
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES
from llama_index_multimodal_rerank.demo.queries import KIND_WORDS, SOURCES, SURFACE_WORDS, all_wordings

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Words that people put around a wish. Beside the characters they stand for whatever else is typed: training
# scatters them over the queries, so that the model learns to look past what it does not know.
FILLERS = [
    "a",
    "about",
    "actually",
    "again",
    "all",
    "also",
    "am",
    "an",
    "and",
    "another",
    "any",
    "anything",
    "are",
    "around",
    "as",
    "at",
    "be",
    "beautiful",
    "best",
    "buy",
    "by",
    "can",
    "cheap",
    "cool",
    "could",
    "cute",
    "do",
    "does",
    "else",
    "everything",
    "fancy",
    "favourite",
    "find",
    "for",
    "friend",
    "from",
    "get",
    "gift",
    "give",
    "good",
    "got",
    "great",
    "has",
    "have",
    "hello",
    "help",
    "hey",
    "hi",
    "how",
    "i",
    "if",
    "is",
    "it",
    "its",
    "just",
    "kind",
    "kindly",
    "know",
    "large",
    "let",
    "like",
    "little",
    "look",
    "looking",
    "made",
    "make",
    "may",
    "maybe",
    "me",
    "mine",
    "modern",
    "much",
    "my",
    "need",
    "new",
    "nice",
    "of",
    "old",
    "one",
    "or",
    "order",
    "other",
    "our",
    "pick",
    "please",
    "pretty",
    "product",
    "really",
    "search",
    "see",
    "sell",
    "shop",
    "similar",
    "small",
    "some",
    "someone",
    "something",
    "sort",
    "stuff",
    "stylish",
    "such",
    "take",
    "than",
    "thank",
    "thanks",
    "there",
    "these",
    "they",
    "thing",
    "things",
    "think",
    "those",
    "to",
    "today",
    "try",
    "us",
    "very",
    "want",
    "we",
    "what",
    "where",
    "which",
    "will",
    "wish",
    "would",
    "yes",
    "you",
    "your",
]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer in the manner of BERT's; the same at every call.

    Its vocabulary is made, not learnt: the words of the query wordings, of kinds, surfaces and colours,
    fillers, and every printable ASCII character, at the start of a word and inside. Padding has id 0.
    """
    words = sorted({*_words(all_wordings()), *content_words(), *FILLERS})
    characters = [char for char in string.printable if not char.isspace() and not char.isupper()]
    inside = [f"##{char}" for char in characters if char.isalnum()]  # words are split at punctuation
    vocabulary = dict.fromkeys([*SPECIAL, *characters, *inside, *words])
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")  # noqa: S106
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(piece, SPECIAL.index(piece)) for piece in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )


def content_words() -> set[str]:
    """Return the words that say what is wanted, as the tokenizer splits them."""
    texts = [*KINDS, *SURFACES, *COLOURS, *SOURCES.values()]
    for words in (*KIND_WORDS.values(), *SURFACE_WORDS.values()):
        texts += words
    return _words(texts)


def filler_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids of pieces that say nothing about a wish: fillers and characters."""
    said = content_words() | {"same", "this", "that", *_words(all_wordings())} - set(FILLERS)
    return sorted(
        index for piece, index in tokenizer.get_vocab().items() if piece not in said and piece not in SPECIAL
    )


def _words(texts: Iterable[str]) -> set[str]:
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    # the slots of wordings, {kind} and the like, are no words
    slotless = (text.lower().format_map(_Blank()) if "{" in text else text.lower() for text in texts)
    return {word for text in slotless for word, _ in split(text)}


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""
