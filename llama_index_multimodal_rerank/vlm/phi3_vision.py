"""Phi-3 Vision on this machine: free answers, label logits and constrained rankings."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..demo.checkpoints import DEMO
from ..lazy import Lazy, LazyModel
from .phi3_loading import DEFAULT_MODEL_NAME, LoadedPhi3Vision, load_phi3_vision
from .phi3_prefilled import PrefilledPhi3Requests
from .protocols import ImagePrompt, LabelRanking, RankRequest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from .decoding import PrefilledPrompt, Prompt
    from .permutation_constraint import ListTokens
    from .phi3_prompts import Phi3Prompts

DEFAULT_NUM_CROPS = 16
DEFAULT_CAPTION_NUM_CROPS = 4
DEMO_NUM_CROPS = 1
"""The demo's model was trained on sheets of one tile."""

_END_OF_TURN = "<|end|>"


class LocalPhi3Vision:
    """Phi-3 Vision, loaded on first use, once, and used by one thread at a time.

    Share one instance between rerankers to load it once. Copies are the same instance; pickles leave
    the weights behind and load them again.

    Example:
        >>> from llama_index_multimodal_rerank import LocalPhi3Vision, Phi3VisionRerank
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> vlm = LocalPhi3Vision("demo", device="cpu", dtype="float32")
        >>> mug = draw_query_picture(Look("mug", "leopard", "yellow"), seed=1)
        >>> question = "Describe what this picture shows in one short sentence."
        >>> vlm.generate([mug], question, max_new_tokens=30)
        'a yellow mug with leopard print.'

        Two rerankers, and the weights once:

        >>> quick = Phi3VisionRerank(model=vlm, strategy="first_token", explain=False)
        >>> thorough = Phi3VisionRerank(model=vlm, permutations=4)

    Args:
        model_name: name on the hub or local folder; Phi-3-vision-128k-instruct or Phi-3.5-vision-instruct.
            ``"demo"`` is a tiny model in this package that was trained on drawn products alone
            (``docs/demo.md``); for a folder called demo write ``"./demo"``.
        device: torch device, such as ``"cuda:0"``. Default: the best one there is.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``. Default: bfloat16 where the hardware
            computes in it, float32 elsewhere.
        num_crops: tiles of 336 pixels a sheet is cut into, at most; 1 or more. Default: 16, and 1 for the
            demo.
        caption_num_crops: the same for the picture of a question that is answered freely, which is how the
            query is captioned: one picture needs fewer than a sheet of ten. Default: 4, and no more than
            ``num_crops``.
        cache_folder: where hub files are kept.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub.

    Raises:
        ValueError: at construction, a number of tiles is below 1; at first use, the checkpoint, ``device`` or
            ``dtype`` cannot be used; from all that rank, the requests of a batch rank different numbers of
            labels.
        OSError: at first use, the checkpoint is not there and cannot be fetched.
        FloatingPointError: from all that rank, the model's numbers are not finite in ``dtype``.

    Sources:
        Model cards ``microsoft/Phi-3-vision-128k-instruct`` and ``microsoft/Phi-3.5-vision-instruct``.
        ``label_logprobs``: "FIRST: Faster Improved Listwise Reranking with Single Token Decoding",
        arXiv:2406.15657.
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
        for name, tiles in (("num_crops", num_crops), ("caption_num_crops", caption_num_crops)):
            if tiles is not None and tiles < 1:
                raise ValueError(f"{name} must be 1 or more tiles, or None for the default, got {tiles}")
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
        self._loader: LazyModel[LoadedPhi3Vision] = LazyModel()
        self._prompts: Lazy[Phi3Prompts] = Lazy()
        self._lock = threading.Lock()
        self._last: weakref.ref[PrefilledPhi3Requests] | None = None

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

    def load(self) -> LoadedPhi3Vision:
        """Load the model now, if it was not loaded before.

        Raises:
            OSError: the checkpoint is not there and cannot be fetched.
            ValueError: the device or dtype is not usable, or the checkpoint is damaged or that of another
                model; its missing, misshapen and non-finite tensors are listed.
        """
        return self._loader.get(self._load)

    def _load(self) -> LoadedPhi3Vision:
        return load_phi3_vision(self._model_name, device=self.device, dtype=self.dtype, hub=self._hub)

    # -- the interface ------------------------------------------------------------------------

    def generate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> str:
        """Answer a prompt about pictures; see ``VisionLanguageModel``."""
        import torch

        prompts = self._load_prompts()
        with self._lock, torch.inference_mode():
            self._free_last()
            inputs = prompts.prepare([ImagePrompt(tuple(images), prompt)], self.caption_num_crops)
            (ids,) = self._generate(inputs, max_new_tokens)
        return self._decode(ids)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has; see ``TokenCountingModel``."""
        return len(self.load().processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def label_logprobs(self, requests: Sequence[RankRequest]) -> list[list[float]]:
        """Return log-probabilities of each label to be written first; see ``LabelScoringModel``.

        One forward pass for the batch. Numbers that begin like others (1 and 10) take one further step
        per shared beginning, on the same cache.
        """
        return self.prefill_requests(requests).label_logprobs

    def prefill_requests(self, requests: Sequence[RankRequest]) -> PrefilledPhi3Requests:
        """As ``label_logprobs``, and keep what was read until the next call; see ``PrefillingModel``."""
        import torch

        from .permutation_logits import first_label_probabilities

        prompts = self._load_prompts()
        tokens = prompts.list_tokens(_num_labels(requests))
        with self._lock, torch.inference_mode():
            prefilled = self._prefill(requests, tokens)
            rows = [
                first_label_probabilities(tokens, partial(prefilled.peek, row=row))
                for row in range(len(requests))
            ]
            smallest = torch.finfo(torch.float64).tiny
            logprobs = [
                torch.tensor(row, dtype=torch.float64).clamp_min(smallest).log().tolist() for row in rows
            ]
            handle = PrefilledPhi3Requests(logprobs, prefilled, partial(self._rank, tuple(requests)))
            self._last = weakref.ref(handle)
        return handle

    def rank_labels(
        self, requests: Sequence[RankRequest], *, max_new_tokens: int, order: Sequence[int] | None = None
    ) -> list[LabelRanking]:
        """Write complete rankings under the permutation constraint; see ``ConstrainedModel``."""
        return self._rank(requests, None, max_new_tokens=max_new_tokens, order=order)

    # -- parts --------------------------------------------------------------------------------

    def _rank(
        self,
        requests: Sequence[RankRequest],
        handle: PrefilledPhi3Requests | None,
        *,
        max_new_tokens: int,
        order: Sequence[int] | None,
    ) -> list[LabelRanking]:
        import torch

        from .decoding import decode_ranking
        from .permutation_constraint import REASON, PermutationConstraint, read_list
        from .permutation_logits import PermutationLogitsProcessor

        prompts = self._load_prompts()
        tokens = prompts.list_tokens(_num_labels(requests), REASON if max_new_tokens else "")
        constraint = PermutationConstraint(tokens, order)
        with self._lock, torch.inference_mode():
            prefilled = None if handle is None else handle.take()
            if prefilled is None:
                prefilled = self._prefill(requests, tokens)
            length = prefilled.prompt.input_ids.shape[1] - len(tokens.opening)
            masking = PermutationLogitsProcessor(constraint, length)
            lists, unread = decode_ranking(prefilled, masking, tokens.opening, tokens.longest)
            reasons = [""] * len(requests)
            if max_new_tokens:
                prompt = prefilled.prompt.append(lists[:, -unread:])
                output = self._generate(prompt, max_new_tokens, cache=prefilled.cache)
                reasons = [self._decode(ids) for ids in output]
        return [
            LabelRanking(
                read_list(constraint, ids.tolist()).order,
                tuple(masking.label_probabilities(row, ids.tolist())),
                reason,
            )
            for row, (ids, reason) in enumerate(zip(lists, reasons, strict=True))
        ]

    def _load_prompts(self) -> Phi3Prompts:
        loaded = self.load()

        def make() -> Phi3Prompts:
            from .phi3_prompts import Phi3Prompts

            return Phi3Prompts(*loaded)

        return self._prompts.get(make)

    def _prefill(self, requests: Sequence[RankRequest], tokens: ListTokens) -> PrefilledPrompt:
        """Read requests up to the opening of the list."""
        import torch

        from .decoding import PrefilledPrompt

        self._free_last()
        model = self.load().model
        prompt = self._load_prompts().prepare(requests, self.num_crops).append(torch.tensor(tokens.opening))
        prefilled = PrefilledPrompt(model, prompt)
        if prefilled.logits.isnan().any():
            raise FloatingPointError(
                f"{self._model_name} computes numbers that are not finite in {model.dtype}; set dtype "
                "to 'bfloat16' or 'float32'"
            )
        return prefilled

    def _free_last(self) -> None:
        """Free what a handle keeps, before more is read: that of many threads would not fit a device."""
        last = None if self._last is None else self._last()
        if last is not None:
            last.take()
        self._last = None

    def _generate(self, inputs: Prompt, max_new_tokens: int, **options: Any) -> torch.Tensor:
        """Return the new tokens, (batch, new tokens), decoded greedily."""
        model, processor = self.load()
        tokenizer = processor.tokenizer
        output: torch.Tensor = model.generate(
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

    def _decode(self, ids: torch.Tensor) -> str:
        return str(self.load().processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _num_labels(requests: Sequence[RankRequest]) -> int:
    counts = {request.num_labels for request in requests}
    if len(counts) != 1 or min(counts) < 1:
        raise ValueError(f"the requests of a batch must rank equally many labels, got {sorted(counts)}")
    return counts.pop()
