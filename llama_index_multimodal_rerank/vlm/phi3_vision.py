"""Phi-3 Vision on this machine: free answers, label logits and constrained rankings."""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..demo.checkpoints import DEMO, checkpoint_folder
from ..images.sources import pixels_digest
from ..lazy import Lazy, LazyModel
from .control_tokens import ControlTokens
from .protocols import ImagePrompt, LabelRanking, RankRequest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..models.phi3_vision import Phi3VisionForConditionalGeneration, Phi3VisionProcessor
    from .decoding import PrefilledPrompt, Prompt
    from .permutation_constraint import ListTokens

DEFAULT_MODEL_NAME = "microsoft/Phi-3-vision-128k-instruct"
DEFAULT_NUM_CROPS = 16
DEFAULT_CAPTION_NUM_CROPS = 4
DEMO_NUM_CROPS = 1
"""The demo's model was trained on sheets of one tile."""

_CONTEXT = "<|assistant|>\n"
_END_OF_TURN = "<|end|>"
_FEATURES_KEPT = 8
"""Pictures whose features are kept, of 15 MB each with 16 crops in bfloat16."""


class _Loaded(NamedTuple):
    model: Phi3VisionForConditionalGeneration
    processor: Phi3VisionProcessor


class LocalPhi3Vision:
    """Phi-3 Vision, loaded on first use, once, and used by one thread at a time.

    Share one instance between rerankers to load it once. Copies are the same instance; pickles leave
    the weights behind and load them again.

    Args:
        model_name: name on the hub or local folder; Phi-3-vision-128k-instruct or Phi-3.5-vision-instruct.
            ``"demo"`` is a tiny model in this package that was trained on drawn products alone
            (``docs/demo.md``); for a folder called demo write ``"./demo"``.
        device: torch device, such as ``"cuda:0"``. Default: the best one there is.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``. Default: bfloat16 where the hardware
            computes in it, float32 elsewhere.
        num_crops: tiles of 336 pixels a sheet is cut into, at most. Default: 16, and 1 for the demo.
        caption_num_crops: the same for the picture of a question that is answered freely, which is how the
            query is captioned: one picture needs fewer than a sheet of ten. Default: 4, and no more than
            ``num_crops``.
        cache_folder: where hub files are kept.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub.
    """

    def __init__(
        self,
        model_name: str = DEFAULT_MODEL_NAME,
        *,
        device: str | None = None,
        dtype: str | None = None,
        num_crops: int | None = None,
        caption_num_crops: int | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self._model_name = model_name
        self._options: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "num_crops": num_crops,
            "caption_num_crops": caption_num_crops,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        self.device, self.dtype = device, dtype
        self.num_crops = num_crops or (DEMO_NUM_CROPS if model_name == DEMO else DEFAULT_NUM_CROPS)
        self.caption_num_crops = caption_num_crops or min(DEFAULT_CAPTION_NUM_CROPS, self.num_crops)
        self._hub: dict[str, Any] = {"cache_dir": cache_folder, "revision": revision or "main"}
        if local_files_only:
            self._hub["local_files_only"] = True
        self._loader: LazyModel[_Loaded] = LazyModel()
        self._control_tokens: Lazy[ControlTokens] = Lazy()
        self._lock = threading.Lock()
        self._features: OrderedDict[tuple[int, str], tuple[torch.Tensor, list[int]]] = OrderedDict()
        self._kept: tuple[tuple[RankRequest, ...], PrefilledPrompt] | None = None
        self._list_tokens: dict[tuple[int, str], ListTokens] = {}

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return partial(type(self), self._model_name, **self._options), ()

    def __copy__(self) -> LocalPhi3Vision:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalPhi3Vision:
        return self

    @property
    def model_name(self) -> str:
        """Name on the hub or local folder."""
        return self._model_name

    def load(self) -> _Loaded:
        """Load the model now, if it was not loaded before.

        Raises:
            OSError: the checkpoint is not there and cannot be fetched.
            ValueError: the device or dtype is not usable, or the checkpoint is damaged or that of another
                model; its missing, misshapen and non-finite tensors are listed.
        """
        return self._loader.get(self._load)

    def _load(self) -> _Loaded:
        from huggingface_hub.errors import HFValidationError

        from ..models.hardware import resolve_device, resolve_dtype
        from ..models.not_on_hub import describe_missing_model
        from ..models.phi3_vision import Phi3VisionProcessor
        from ..models.phi3_vision.loading import load_checkpoint

        device = resolve_device(self.device)
        dtype = resolve_dtype(self.dtype, device)
        place = str(checkpoint_folder("reranker")) if self._model_name == DEMO else self._model_name
        try:
            processor = Phi3VisionProcessor.from_pretrained(place, **self._hub)
            model = load_checkpoint(place, device=device, dtype=dtype, **self._hub)
        except (OSError, HFValidationError) as error:  # the latter for a folder that does not exist
            raise OSError(
                describe_missing_model(
                    repr(self._model_name),
                    error,
                    commands=[DEFAULT_MODEL_NAME],
                    folder_holds="a checkpoint of Phi-3 Vision",
                    cache_folder=self._hub["cache_dir"],
                )
            ) from error
        return _Loaded(model, processor)

    # -- the interface ------------------------------------------------------------------------

    def generate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> str:
        """Answer a prompt about pictures; see ``VisionLanguageModel``."""
        import torch

        loaded = self.load()
        with self._lock, torch.inference_mode():
            self._kept = None
            inputs = self._prepare(loaded, [ImagePrompt(tuple(images), prompt)], self.caption_num_crops)
            output = self._generate(loaded, inputs, max_new_tokens)
        return self._decode(loaded, output[0])

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has; see ``TokenCountingModel``."""
        return len(self.load().processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def label_logprobs(self, requests: Sequence[RankRequest]) -> list[list[float]]:
        """Return log-probabilities of each label to be written first; see ``LabelScoringModel``.

        One forward pass for the batch. Numbers that begin like others (1 and 10) take one further step
        per shared beginning, on the same cache.
        """
        import torch

        from .permutation_constraint import first_label_probabilities

        loaded = self.load()
        tokens = self._tokens(loaded, _num_labels(requests))
        with self._lock, torch.inference_mode():
            prefilled = self._read(loaded, requests, tokens)
            rows = [
                first_label_probabilities(tokens, partial(prefilled.peek, row=row))
                for row in range(len(requests))
            ]
            if all(request.asked_again for request in requests):
                self._kept = tuple(requests), prefilled
        smallest = torch.finfo(torch.float64).tiny
        return [torch.tensor(row, dtype=torch.float64).clamp_min(smallest).log().tolist() for row in rows]

    def rank_labels(
        self, requests: Sequence[RankRequest], *, max_new_tokens: int, order: Sequence[int] | None = None
    ) -> list[LabelRanking]:
        """Write complete rankings under the permutation constraint; see ``ConstrainedModel``."""
        import torch

        from .decoding import decode_ranking
        from .permutation_constraint import (
            REASON,
            PermutationConstraint,
            PermutationLogitsProcessor,
            read_list,
        )

        loaded = self.load()
        tokens = self._tokens(loaded, _num_labels(requests), REASON if max_new_tokens else "")
        constraint = PermutationConstraint(tokens, order)
        with self._lock, torch.inference_mode():
            prefilled = self._read(loaded, requests, tokens)
            length = prefilled.prompt.input_ids.shape[1] - len(tokens.opening)
            masking = PermutationLogitsProcessor(constraint, length)
            lists, unread = decode_ranking(prefilled, masking, tokens.opening, tokens.longest)
            reasons = [""] * len(requests)
            if max_new_tokens:
                prompt = prefilled.prompt.append(lists[:, -unread:])
                output = self._generate(loaded, prompt, max_new_tokens, cache=prefilled.cache)
                reasons = [self._decode(loaded, ids) for ids in output]
        return [
            LabelRanking(
                read_list(constraint, ids.tolist()).order,
                tuple(masking.label_probabilities(row, ids.tolist())),
                reason,
            )
            for row, (ids, reason) in enumerate(zip(lists, reasons, strict=True))
        ]

    # -- parts --------------------------------------------------------------------------------

    def _tokens(self, loaded: _Loaded, num_labels: int, ending: str = "") -> ListTokens:
        from .permutation_constraint import tokenize_list

        key = (num_labels, ending)
        if key not in self._list_tokens:
            self._list_tokens[key] = tokenize_list(
                loaded.processor.tokenizer, num_labels, context=_CONTEXT, ending=ending
            )
        return self._list_tokens[key]

    def _read(self, loaded: _Loaded, requests: Sequence[RankRequest], tokens: ListTokens) -> PrefilledPrompt:
        """Read requests up to the opening of the list, unless that was done in the last call."""
        import torch

        from .decoding import PrefilledPrompt

        kept, self._kept = self._kept, None
        if kept is not None and len(kept[0]) == len(requests) and all(map(operator.is_, kept[0], requests)):
            return kept[1]
        prompt = self._prepare(loaded, requests, self.num_crops).append(torch.tensor(tokens.opening))
        prefilled = PrefilledPrompt(loaded.model, prompt)
        if prefilled.logits.isnan().any():
            raise FloatingPointError(
                f"{self._model_name} computes numbers that are not finite in {loaded.model.dtype}; set dtype "
                "to 'bfloat16' or 'float32'"
            )
        return prefilled

    def _prepare(self, loaded: _Loaded, requests: Sequence[ImagePrompt], num_crops: int) -> Prompt:
        from .decoding import Prompt

        features: list[torch.Tensor] = []
        sizes: list[list[list[int]]] = []
        for request in requests:
            encoded = [self._encode(loaded, image, num_crops) for image in request.images]
            features += [each for each, _ in encoded]
            sizes.append([size for _, size in encoded])
        texts = [self._chat(loaded, request) for request in requests]
        inputs = loaded.processor(text=texts, image_sizes=sizes).to(loaded.model.device)
        return Prompt(inputs["input_ids"], inputs["attention_mask"], tuple(features))

    def _chat(self, loaded: _Loaded, request: ImagePrompt) -> str:
        tags = "".join(f"<|image_{number}|>\n" for number in range(1, len(request.images) + 1))
        words = self._control_tokens.get(lambda: ControlTokens(loaded.processor.tokenizer))
        return f"<|user|>\n{tags}{words.broken(request.prompt)}<|end|>\n{_CONTEXT}"

    def _encode(self, loaded: _Loaded, image: Image, num_crops: int) -> tuple[torch.Tensor, list[int]]:
        """Return a picture's features and padded size, kept for the next prompts about it."""
        key = num_crops, pixels_digest(image)
        if key not in self._features:
            pixels = loaded.processor.image_processor(image, num_crops=num_crops)
            features = loaded.model.get_image_features(pixels["pixel_values"], pixels["image_sizes"])
            self._features[key] = features[0], pixels["image_sizes"][0].tolist()
            while len(self._features) > _FEATURES_KEPT:
                self._features.popitem(last=False)
        self._features.move_to_end(key)
        return self._features[key]

    def _generate(self, loaded: _Loaded, inputs: Prompt, max_new_tokens: int, **options: Any) -> torch.Tensor:
        """Return the new tokens, (batch, new tokens), decoded greedily."""
        tokenizer = loaded.processor.tokenizer
        output: torch.Tensor = loaded.model.generate(
            inputs.input_ids,
            attention_mask=inputs.attention_mask,
            image_features=inputs.image_features or None,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            # The published configuration names only </s>, which the model does not write.
            eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(_END_OF_TURN)],
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
        return output[:, inputs.input_ids.shape[1] :]

    @staticmethod
    def _decode(loaded: _Loaded, ids: torch.Tensor) -> str:
        return str(loaded.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _num_labels(requests: Sequence[RankRequest]) -> int:
    counts = {request.num_labels for request in requests}
    if len(counts) != 1 or min(counts) < 1:
        raise ValueError(f"the requests of a batch must rank equally many labels, got {sorted(counts)}")
    return counts.pop()
