"""Prompts and pictures to model inputs.

Source: model card and processor of `microsoft/Phi-3-vision-128k-instruct`.
"""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin
from transformers.utils.generic import to_py_obj

from ..hd_geometry import num_image_tokens
from .chat_template import CHAT_TEMPLATE
from .image_processing_phi3_vision import Phi3VisionImageProcessor, as_pictures
from .image_tags import check_tags, image_tag, split_at_tags

logger = logging.getLogger(__name__)

Picture = Image.Image | str
Pictures = Picture | Sequence[Picture]
Sizes = torch.Tensor | Sequence[Sequence[int]]


class Phi3VisionProcessor(ProcessorMixin):
    """Tokenizer and image processor in one.

    Args:
        image_processor: The image processor.
        tokenizer: The tokenizer, of the class `PreTrainedTokenizerFast`. `LlamaTokenizer`, which the
            published `tokenizer_config.json` names, gives other ids on transformers 5.
        chat_template: Jinja template for `apply_chat_template`; by default the published chat format,
            extended to transformers' list contents.

    Raises:
        TypeError: If the tokenizer is of a class that gives other ids.
    """

    def __init__(
        self,
        image_processor: Phi3VisionImageProcessor,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None = None,
    ) -> None:
        # Subclasses rebuild the normaliser from code and so ignore the one in tokenizer.json.
        if type(tokenizer) is not PreTrainedTokenizerFast:
            raise TypeError(
                f"the tokenizer is a {type(tokenizer).__name__}, which would give other ids than the model "
                "was trained on; load it with transformers.PreTrainedTokenizerFast.from_pretrained(...)"
            )
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], *args: Any, **kwargs: Any
    ) -> list[Any]:
        """Load the parts with the classes that are right for them, whatever classes the files name."""
        image_processor = Phi3VisionImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        for name in Phi3VisionImageProcessor.valid_kwargs.__annotations__:
            kwargs.pop(name, None)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return [image_processor, tokenizer]

    def __call__(
        self,
        text: str | Sequence[str],
        images: Pictures | Sequence[Pictures | None] | None = None,
        *,
        image_sizes: Sizes | Sequence[Sizes | None] | None = None,
        num_crops: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
        videos: None = None,
        audio: None = None,
    ) -> BatchFeature:
        """Prepare one prompt, or a batch of prompts, for the model.

        A prompt with n pictures holds the tags `<|image_1|>` to `<|image_n|>`, each once, in any order; tag i
        stands for the i-th picture. Without pictures tags are plain text.

        Args:
            text: A prompt, or several, in the chat format (see `apply_chat_template`).
            images: Pictures of the prompt, as Pillow pictures, or strings with a path, URL or base64. For
                several prompts a list with one entry per prompt: a picture, a list of pictures, or None.
            image_sizes: In place of `images`, for pictures whose features were already computed: their
                `image_sizes` from an earlier call, (pictures, 2), or one such entry per prompt. Gives ids
                only.
            num_crops: Greatest number of tiles per picture in this call.
            padding: True or `"longest"`, `"max_length"`, or False. Always on the left, as generation needs
                it.
            max_length: Length in tokens for `padding="max_length"`.
            pad_to_multiple_of: Pad to a multiple of this many tokens.
            return_tensors: `"pt"`, `"np"`, or None for lists.
            videos: Not supported.
            audio: Not supported.

        Returns:
            `input_ids`, int64 (prompts, tokens), with -i once per feature vector of picture i;
            `attention_mask` of the same shape; with `images` also `pixel_values`, float32 (pictures,
            num_crops + 1, 3, 336, 336), and with pictures at all `image_sizes`, int64 (pictures, 2), prompt
            by prompt.

        Raises:
            TypeError: If text or pictures are of another type.
            ValueError: If the tags of a prompt do not name its pictures exactly once, or a picture is too
                thin.
        """
        if videos is not None or audio is not None:
            raise ValueError("Phi-3 Vision takes text and pictures; videos and audio are not supported")
        if images is not None and image_sizes is not None:
            raise ValueError("both images and image_sizes were given; give one of them")
        prompts = [text] if isinstance(text, str) else list(text)
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise TypeError(f"text must be a string or a list of strings, got {type(prompt).__name__}")
        if not prompts:
            raise ValueError("text is an empty list; give at least one prompt")

        data: dict[str, Any] = {}
        if image_sizes is not None:
            sizes_by_prompt = _sizes_by_prompt(image_sizes, text)
            flat = [size for sizes in sizes_by_prompt for size in sizes]
            data = {"image_sizes": torch.tensor(flat)} if flat else {}
        else:
            pictures_by_prompt = _pictures_by_prompt(images, text)
            sizes_by_prompt = [[] for _ in prompts]
            pictures = [picture for own in pictures_by_prompt for picture in own]
            # Tags are cheap to check and pictures dear to process.
            for prompt, own in zip(prompts, pictures_by_prompt, strict=True):
                if own:
                    check_tags(split_at_tags(prompt)[1], len(own))
            if pictures:
                processed = self.image_processor(pictures, num_crops=num_crops)
                data = {name: processed[name] for name in ("pixel_values", "image_sizes")}
                sizes = iter(processed["image_sizes"].tolist())
                sizes_by_prompt = [[next(sizes) for _ in own] for own in pictures_by_prompt]

        ids = [self._tokenize(prompt, sizes) for prompt, sizes in zip(prompts, sizes_by_prompt, strict=True)]
        padded = self.tokenizer.pad(
            {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]},
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side="left",
            verbose=False,
        )
        return BatchFeature({**padded, **data}, tensor_type=return_tensors)

    def _tokenize(self, prompt: str, sizes: Sequence[Sequence[int]]) -> list[int]:
        """Return the ids of one prompt with pictures of these padded sizes (height, width)."""
        pieces, numbers = split_at_tags(prompt)
        if not sizes:
            if numbers:
                logger.warning(
                    "the prompt contains %s but no picture was given for it; the tag is read as plain text",
                    image_tag(numbers[0]),
                )
            return list(self.tokenizer(prompt)["input_ids"])
        check_tags(numbers, len(sizes))
        # Each piece is tokenized by itself, so that a <s> follows every picture: so the model was trained.
        ids: list[int] = list(self.tokenizer(pieces[0])["input_ids"])
        for number, piece in zip(numbers, pieces[1:], strict=True):
            ids += [-number] * num_image_tokens(*sizes[number - 1])
            ids += self.tokenizer(piece)["input_ids"]
        return ids

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Decode ids as the tokenizer does; the negative ids of pictures are read as `<unk>`.

        Args:
            token_ids: One sequence of ids, or several.
            *args: See `PreTrainedTokenizerFast.decode`.
            **kwargs: See `PreTrainedTokenizerFast.decode`.

        Returns:
            The text, or a list of texts.
        """
        return self.tokenizer.decode(_without_placeholders(token_ids), *args, **kwargs)

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Decode several sequences of ids; the negative ids of pictures are read as `<unk>`.

        Args:
            sequences: (batch, tokens), as a tensor, an array or lists.
            *args: See `PreTrainedTokenizerFast.batch_decode`.
            **kwargs: See `PreTrainedTokenizerFast.batch_decode`.

        Returns:
            One text per sequence.
        """
        texts: list[str] = self.tokenizer.batch_decode(_without_placeholders(sequences), *args, **kwargs)
        return texts

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Decode what `generate` returned.

        Args:
            generated_outputs: (batch, tokens).
            skip_special_tokens: Whether to leave out special tokens.
            **kwargs: See `PreTrainedTokenizerFast.batch_decode`.

        Returns:
            One text per sequence.
        """
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)


def _without_placeholders(token_ids: Any) -> Any:
    """Return ids as plain lists with negative ids set to 0."""
    if isinstance(token_ids, list | tuple):
        return [_without_placeholders(entry) for entry in token_ids]
    if isinstance(token_ids, int):
        return max(token_ids, 0)
    return _without_placeholders(to_py_obj(token_ids))


def _entries_by_prompt(name: str, entries: Any, text: str | Sequence[str]) -> list[Any]:
    """Return one entry per prompt of a batch."""
    if not isinstance(entries, Sequence) or len(entries) != len(text):
        got = f"{len(entries)} entries" if isinstance(entries, Sequence) else type(entries).__name__
        raise ValueError(
            f"text is a list of {len(text)} prompts, so {name} must be a list with one entry per prompt "
            f"(None where a prompt has no picture, a list where it has several); got {got}"
        )
    return list(entries)


def _pictures_by_prompt(images: Any, text: str | Sequence[str]) -> list[list[Image.Image]]:
    """Return the pictures of every prompt."""
    if images is None:
        return [[]] if isinstance(text, str) else [[] for _ in text]
    if isinstance(text, str):
        # transformers' chat functions nest the pictures of a single prompt.
        nested = isinstance(images, Sequence) and len(images) == 1 and isinstance(images[0], list | tuple)
        entries = list(images) if nested else [images]
    else:
        entries = _entries_by_prompt("images", images, text)
    return [[] if _is_empty(entry) else as_pictures(entry) for entry in entries]


def _is_empty(entry: Any) -> bool:
    return entry is None or (isinstance(entry, list | tuple) and not entry)


def _sizes_by_prompt(image_sizes: Any, text: str | Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return the padded (height, width) of every prompt's pictures."""
    entries = [image_sizes] if isinstance(text, str) else _entries_by_prompt("image_sizes", image_sizes, text)
    return [
        [] if entry is None else [(int(height), int(width)) for height, width in entry] for entry in entries
    ]
