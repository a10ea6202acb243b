"""Decoder steps over keys and values in fixed memory, so that on a GPU each step is one captured graph.

A step of the decoder takes a GPU about 5 ms, most of it reading the weights; launching it from python takes
35 ms on a slow core. A graph is launched at once. Steps have few sizes: a run of forced tokens is filled up
to the next one, with tokens that are written behind it, seen by none of its own, and written over later.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from ..models.cuda_graphs import Capture, CapturedFunctions, CudaCapture
from ..models.phi3_vision.cache_argument import cache_argument
from ..models.phi3_vision.static_cache import StaticPromptCache

if TYPE_CHECKING:
    from transformers import DynamicCache

    from ..models.phi3_vision import Phi3VisionForConditionalGeneration
    from .prompt_batch import Prompt

logger = logging.getLogger(__name__)

RUNS = (1, 8, 64)
"""Tokens of a step: one that was chosen, a separator with a label, a whole list that is known. Reading the
weights takes longer than so much arithmetic. Longer runs are launched plainly."""

SLOTS = 512
"""Prompts get multiples of so many slots, so that prompts of similar lengths share their graphs."""

MOST_GRAPHS = 16
"""Graphs of steps that are kept, over all batch sizes and numbers of slots."""

MEMORY_SHARE = 8
"""One part in so many of the device's memory is the most that is held for keys and values."""

LEAST_TOKENS = 4096
"""Tokens that memory is held for, at least: it grows seldom, since all graphs are captured anew then."""


class StaticDecoder:
    """Reads prompts into fixed memory, one batch at a time.

    All batches share one piece of memory: it belongs to the one that was read last, and grows up to a limit.

    Args:
        model: the model, on one device.
        capture: captures steps. Default: :class:`CudaCapture`.
        most_bytes: the most memory to hold. Default: an eighth of the device's.
    """

    def __init__(
        self,
        model: Phi3VisionForConditionalGeneration,
        *,
        capture: Capture | None = None,
        most_bytes: int | None = None,
    ) -> None:
        config = model.config
        self.model = model
        self.graphs = CapturedFunctions(
            CudaCapture(model.device) if capture is None else capture, most=MOST_GRAPHS
        )
        self._layers: int = config.num_hidden_layers
        self._heads: int = config.num_key_value_heads or config.num_attention_heads
        width: int | None = getattr(config, "head_dim", None)
        self._width = width or config.hidden_size // config.num_attention_heads
        if most_bytes is None:
            most_bytes = torch.cuda.get_device_properties(model.device).total_memory // MEMORY_SHARE
        self._most_tokens = most_bytes // (2 * self._layers * self._token * model.dtype.itemsize)
        self._longest: int = config.original_max_position_embeddings
        self._memory: torch.Tensor | None = None  # (2 * layers, tokens * heads * width)
        self._reads = 0  # what is in memory belongs to the last of them

    @staticmethod
    def supports(model: Phi3VisionForConditionalGeneration) -> bool:
        """Tell whether a model is on a GPU, and its attention takes the masks of the steps."""
        config = model.config
        return (
            model.device.type == "cuda"
            and config._attn_implementation == "sdpa"
            and config.sliding_window is None
        )

    @property
    def _token(self) -> int:
        return self._heads * self._width

    @property
    def held_bytes(self) -> int:
        """Memory that is held for keys and values."""
        return 0 if self._memory is None else self._memory.nbytes

    def read(self, prompt: Prompt, room: int) -> tuple[torch.Tensor, StaticPrompt] | None:
        """Read prompts.

        Args:
            prompt: the prompts.
            room: tokens that are going to follow.

        Returns:
            Logits of the next token (batch, vocabulary), and what was read; None if it takes too much memory,
            or may become so long that the rotary factors change.
        """
        batch, length = prompt.input_ids.shape
        if length + room > self._longest:
            return None
        slots = -(-(length + room) // SLOTS) * SLOTS
        memory = self._allocate(batch * slots)
        if memory is None:
            return None
        shape = (batch, self._heads, slots, self._width)
        keys_values = memory[:, : batch * slots * self._token].unflatten(1, shape).unbind()
        cache = StaticPromptCache(keys_values[: self._layers], keys_values[self._layers :])
        cache.read_prompt(length)
        self._reads += 1
        output = self.model(
            **prompt.model_inputs(self.model.device),
            use_cache=True,
            logits_to_keep=1,
            **cache_argument(cache),
        )
        padding = length - prompt.attention_mask.sum(dim=1)
        return output.logits[:, -1], StaticPrompt(
            self, cache, padding, length, min(slots, self._longest), number=self._reads
        )

    def _allocate(self, tokens: int) -> torch.Tensor | None:
        if tokens > self._most_tokens:
            return None
        if self._memory is None or self._memory.shape[1] < tokens * self._token:
            tokens = min(-(-tokens // LEAST_TOKENS) * LEAST_TOKENS, self._most_tokens)
            self._memory = None  # first, so that both are never held
            self._reads += 1
            self.graphs.clear()
            try:
                self._memory = torch.empty(
                    2 * self._layers, tokens * self._token, dtype=self.model.dtype, device=self.model.device
                )
            except torch.OutOfMemoryError as error:
                logger.warning("There is no memory for keys and values that stay (%s).", error)
                self._most_tokens = 0
        return self._memory

    def step(self, number: int, cache: StaticPromptCache, plan: torch.Tensor, tokens: int) -> torch.Tensor:
        """Run the decoder on a few more tokens.

        Args:
            number: of the read that filled the cache.
            cache: its keys and values.
            plan: (batch, tokens + 3), on the host: token ids; padding of the row; slots filled so far; tokens
                of the run before it was filled up.
            tokens: tokens of the run, filled up.

        Returns:
            Logits of what follows the run, (batch, vocabulary), in memory of their own.

        Raises:
            RuntimeError: another prompt was read since.
        """
        if number != self._reads:
            raise RuntimeError("keys and values of this prompt made room for those of another")

        def run(plan: torch.Tensor) -> torch.Tensor:
            return self._run(plan, cache, tokens)

        graph = None
        if tokens in RUNS:
            graph = self.graphs.get((len(plan), cache.slots, tokens), run, plan)
        if graph is None:
            return run(plan.to(self.model.device))
        graph.inputs.copy_(plan)
        graph.replay()
        return graph.outputs.clone()  # the next replay writes over it

    def _run(self, plan: torch.Tensor, cache: StaticPromptCache, tokens: int) -> torch.Tensor:
        """Do what is captured: nothing waits for the device, and all that changes comes with the plan."""
        ids, (padding, filled, real) = plan[:, :tokens], plan[:, tokens:, None].unbind(1)
        place = torch.arange(tokens, device=plan.device)
        # Filled up tokens repeat the last position: a higher one could change the row's rotary factors.
        positions = filled - padding + torch.minimum(place, real - 1)  # (batch, tokens)
        columns = torch.arange(cache.slots, device=plan.device)
        last = (filled + place)[:, :, None]  # (batch, tokens, 1): what each may see, itself included
        mask = (columns >= padding[:, :, None]) & (columns <= last)  # (batch, tokens, slots)
        cache.read_more(filled[0] + place)
        output = self.model(
            inputs_embeds=self.model.model.embed_tokens(ids),
            attention_mask=mask[:, None],
            position_ids=positions,
            use_cache=True,
            logits_to_keep=real[0] - 1,
            **cache_argument(cache),
        )
        cache.read_more(None)
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class StaticPrompt:
    """What a :class:`StaticDecoder` has read.

    Args:
        decoder: the decoder.
        cache: the keys and values.
        padding: (batch,), how many columns of each row are padding, on the left.
        length: columns that were read.
        most: columns there may be.
        number: of this read.
    """

    def __init__(
        self,
        decoder: StaticDecoder,
        cache: StaticPromptCache,
        padding: torch.Tensor,
        length: int,
        most: int,
        *,
        number: int,
    ) -> None:
        self._decoder, self._cache, self._padding = decoder, cache, padding
        self._length, self._most = length, most
        self._number = number

    def has_room(self, tokens: int) -> bool:
        """Tell whether so many tokens can be read."""
        return self._length + tokens <= self._most

    def read(self, ids: torch.Tensor, *, keep: bool) -> torch.Tensor:
        """Read more tokens.

        Args:
            ids: (batch, tokens), on the host.
            keep: whether what is read next follows them.

        Returns:
            Logits of what follows, (batch, vocabulary).
        """
        batch, real = ids.shape
        tokens = next((run for run in RUNS if run >= real and self._length + run <= self._cache.slots), real)
        plan = torch.zeros(batch, tokens + 3, dtype=torch.long)
        plan[:, :real] = ids
        plan[:, tokens] = self._padding
        plan[:, tokens + 1] = self._length
        plan[:, tokens + 2] = real
        logits = self._decoder.step(self._number, self._cache, plan, tokens)
        self._length += real * keep
        return logits

    def as_dynamic(self) -> DynamicCache:
        """Return what was read in memory that grows."""
        return self._cache.as_dynamic(self._length)
