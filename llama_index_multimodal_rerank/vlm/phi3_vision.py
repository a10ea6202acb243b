"""Phi-3 Vision on this machine: free answers, label logits and constrained rankings."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..demo.checkpoints import DEMO
from ..lazy import Lazy, LazyModel
from .phi3_loading import DEFAULT_MODEL_NAME, LoadedPhi3Vision, load_phi3_vision
from .phi3_prefilled import PrefilledPhi3Requests
from .protocols import ImagePrompt, LabelRanking, RankRequest

if TYPE_CHECKING:
    from PIL.Image import Image

    from .decoding import PrefilledPrompt
    from .phi3_engine import Phi3Engine

DEFAULT_NUM_CROPS = 16
DEFAULT_CAPTION_NUM_CROPS = 4
DEMO_NUM_CROPS = 1
"""The demo's model was trained on sheets of one tile."""


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
        caption_num_crops: the same for a picture that is no sheet, which is how the query is captioned: one
            picture needs fewer than a sheet of ten. Default: 4, and no more than ``num_crops``.
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
        self._engine: Lazy[Phi3Engine] = Lazy()
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

    @property
    def looks_closer(self) -> bool:
        """Whether it was taught to explain by closer looks, as the demo's model was."""
        return self._model_name == DEMO

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
        (answer,) = self.generate_batch([ImagePrompt(tuple(images), prompt)], max_new_tokens=max_new_tokens)
        return answer

    def generate_batch(self, prompts: Sequence[ImagePrompt], *, max_new_tokens: int) -> list[str]:
        """Answer prompts in one batch; see ``BatchGeneratingModel``. A ``RankRequest`` shows a sheet."""
        sheets = any(isinstance(prompt, RankRequest) for prompt in prompts)
        num_crops = self.num_crops if sheets else self.caption_num_crops
        with self._at_work() as engine:
            self._free_last()
            return engine.answer(prompts, num_crops=num_crops, max_new_tokens=max_new_tokens)

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
        with self._at_work() as engine:
            prefilled = self._read(engine, requests, None)
            logprobs = engine.score(prefilled, requests)
            handle = PrefilledPhi3Requests(logprobs, prefilled, partial(self._rank, tuple(requests)))
            self._last = weakref.ref(handle)
        return handle

    def rank_labels(
        self, requests: Sequence[RankRequest], *, max_new_tokens: int, order: Sequence[int] | None = None
    ) -> list[LabelRanking]:
        """Write complete rankings under the permutation constraint; see ``ConstrainedModel``."""
        return self._rank(requests, None, max_new_tokens=max_new_tokens, orders=[order] * len(requests))

    def rank_prefilled(
        self, prefilled: PrefilledPhi3Requests, orders: Sequence[Sequence[int]], *, max_new_tokens: int
    ) -> list[LabelRanking]:
        """Write rankings of requests that were read; see ``BatchPrefillingModel``."""
        return prefilled.rank_each(orders, max_new_tokens=max_new_tokens)

    # -- parts --------------------------------------------------------------------------------

    @contextmanager
    def _at_work(self) -> Iterator[Phi3Engine]:
        """Load the model, and have it alone."""
        import torch

        loaded = self.load()

        def make() -> Phi3Engine:
            from .phi3_engine import Phi3Engine

            return Phi3Engine(self._model_name, loaded)

        engine = self._engine.get(make)
        with self._lock, torch.inference_mode():
            yield engine

    def _rank(
        self,
        requests: Sequence[RankRequest],
        handle: PrefilledPhi3Requests | None,
        *,
        max_new_tokens: int,
        orders: Sequence[Sequence[int] | None],
    ) -> list[LabelRanking]:
        with self._at_work() as engine:
            prefilled = None if handle is None else handle.take()
            if prefilled is None:
                prefilled = self._read(engine, requests, max_new_tokens)
            return engine.rank(prefilled, requests, orders, max_new_tokens=max_new_tokens)

    def _read(
        self, engine: Phi3Engine, requests: Sequence[RankRequest], max_new_tokens: int | None
    ) -> PrefilledPrompt:
        self._free_last()
        return engine.read(requests, num_crops=self.num_crops, max_new_tokens=max_new_tokens)

    def _free_last(self) -> None:
        """Free what a handle keeps, before more is read: that of many threads would not fit a device."""
        last = None if self._last is None else self._last()
        if last is not None:
            last.take()
        self._last = None
