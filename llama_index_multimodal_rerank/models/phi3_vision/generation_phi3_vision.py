"""`generate` for prompts with pictures."""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache
from transformers.generation.utils import GenerationMixin

from .cache_argument import cache_argument, pop_cache
from .placeholders import ImageFeatures, images_per_prompt, split_by_prompt
from .positions import all_positions


class Phi3VisionGenerationMixin(GenerationMixin):
    """transformers' generation, taught three things.

    Pictures are encoded once per call, whatever the number of beams. The negative ids of pictures are kept
    from logits processors, stopping criteria, streamers and the returned sequences, all of which expect ids
    of the vocabulary: there they read 0 (`<unk>`), as in the published code. And when a sequence outgrows
    `original_max_position_embeddings`, where the rotary factors change, its cache is built anew instead of
    mixing keys of two rotations.
    """

    if TYPE_CHECKING:
        config: Any

        def resolve_image_features(  # noqa: D102 (see the model class)
            self,
            pixel_values: torch.Tensor | None,
            image_sizes: torch.Tensor | None,
            image_features: ImageFeatures | None,
        ) -> tuple[torch.Tensor, ...] | None: ...

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        image_features: ImageFeatures | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate as `GenerationMixin.generate` does, for prompts with or without pictures.

        Args:
            inputs: Prompt ids (batch, tokens), left-padded; `input_ids=` is the same.
            pixel_values: (images, views, 3, 336, 336) from the processor.
            image_sizes: (images, 2) from the processor.
            image_features: Result of `get_image_features`, in place of `pixel_values`. If `image_sizes` comes
                along, the two must fit.
            **kwargs: Everything that `GenerationMixin.generate` takes; a cache as `cache` or as
                `past_key_values`.

        Returns:
            What `GenerationMixin.generate` returns. Sequences begin with the prompt, pictures read as id 0.

        Raises:
            ValueError: If pictures and prompt do not fit each other, or two caches were given.
        """
        if (cache := pop_cache(kwargs)) is not None:
            kwargs |= cache_argument(cache)
        input_ids = kwargs.pop("input_ids", None)
        if inputs is not None:
            if input_ids is not None:
                raise ValueError("both inputs and input_ids were given; give one of them")
            input_ids = inputs
        has_placeholders = input_ids is not None and input_ids.numel() > 0 and bool((input_ids < 0).any())
        image_features = self.resolve_image_features(pixel_values, image_sizes, image_features)
        if image_features is not None or has_placeholders:
            if input_ids is None:
                raise ValueError(
                    "pictures were given without input_ids; merge them into inputs_embeds, or give ids"
                )
            config = kwargs.get("generation_config") or self.generation_config
            if kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None)):
                raise ValueError("prefill_chunk_size is not supported with pictures; leave it at None")
            image_features = image_features or ()
            split_by_prompt(image_features, images_per_prompt(input_ids))
            kwargs.update(prompt_ids=input_ids, image_features=image_features)
            input_ids = input_ids.clamp(min=0)
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        return super().generate(**kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        prompt_ids: torch.Tensor | None = None,
        image_features: ImageFeatures | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of the next forward call; see `GenerationMixin`.

        Args:
            input_ids: (batch, tokens) so far, pictures read as 0.
            past_key_values: Cache of an earlier part of them, by the name it has up to transformers 5.23.
            attention_mask: (batch, tokens).
            inputs_embeds: (batch, tokens, hidden) of the prompt, where generation started from embeddings.
            position_ids: (batch, tokens).
            prompt_ids: The prompt with its negative ids, the first columns of `input_ids`.
            image_features: Features of the prompt's pictures.
            cache: Cache of an earlier part of them, by the name it has from transformers 5.24 on.
            **kwargs: Passed on.
        """
        cache = pop_cache({"cache": cache, "past_key_values": past_key_values})
        past_length = 0 if cache is None else int(cache.get_seq_length())
        # A prompt that came as embeddings cannot be run again from its ids; its keys keep their rotation.
        if inputs_embeds is None and self.outgrows_rotation(input_ids.shape[1], past_length, attention_mask):
            past_length = 0
            if cache is not None and cache.is_compileable:
                cache.reset()
            else:
                cache = None
            # Whatever tells transformers to look at the newest token only; the name differs between releases.
            if "next_sequence_length" in kwargs:
                kwargs["next_sequence_length"] = None
            if position_ids is not None and position_ids.shape[-1] < input_ids.shape[1]:
                # Between transformers 5.1 and 5.3 only the newest token's position is kept.
                position_ids = all_positions(input_ids, attention_mask)
            if kwargs.get("cache_position") is not None:
                kwargs["cache_position"] = torch.arange(input_ids.shape[1], device=input_ids.device)
        if prompt_ids is not None and past_length < prompt_ids.shape[1]:
            input_ids = torch.cat([prompt_ids, input_ids[:, prompt_ids.shape[1] :]], dim=1)
            kwargs["image_features"] = _features_beyond(past_length, prompt_ids, image_features or ())
        model_inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            **cache_argument(cache),
            **kwargs,
        )
        return model_inputs

    def outgrows_rotation(self, length: int, past_length: int, attention_mask: torch.Tensor | None) -> bool:
        """Say whether a row's cached keys have short factors while its next token needs the long ones."""
        original: int = self.config.original_max_position_embeddings
        if past_length == 0 or length <= original:
            return False
        if attention_mask is None:
            return past_length <= original
        # Columns of padding do not count as positions.
        before, now = attention_mask[:, :past_length].sum(dim=1), attention_mask.sum(dim=1)
        return bool(((before <= original) & (now > original)).any())

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Repeat every prompt `expand_size` times, and the references to its pictures with it."""
        image_features = model_kwargs.pop("image_features", None)
        if image_features is not None and expand_size > 1:
            by_prompt = split_by_prompt(image_features, images_per_prompt(model_kwargs["prompt_ids"]))
            image_features = tuple(one for own in by_prompt for _ in range(expand_size) for one in own)
        expanded: tuple[torch.Tensor, dict[str, Any]] = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size,
            is_encoder_decoder,
            input_ids,  # type: ignore[arg-type]
            **model_kwargs,
        )
        if image_features is not None:
            expanded[1]["image_features"] = image_features
        return expanded


def _features_beyond(
    past_length: int, prompt_ids: torch.Tensor, image_features: ImageFeatures
) -> tuple[torch.Tensor, ...] | None:
    """Return the features that the uncached part of the prompts refers to, or None if it refers to none."""
    needed = images_per_prompt(prompt_ids[:, past_length:])
    if not any(needed):
        return None
    by_prompt = split_by_prompt(image_features, images_per_prompt(prompt_ids))
    return tuple(one for own, count in zip(by_prompt, needed, strict=True) for one in own[:count])
