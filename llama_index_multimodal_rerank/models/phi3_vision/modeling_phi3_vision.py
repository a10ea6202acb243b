"""Phi-3 Vision on transformers' own CLIP tower and Phi-3 decoder.

Source: model card, configuration and weight names of `microsoft/Phi-3-vision-128k-instruct`; Phi-3 technical
report, https://arxiv.org/abs/2404.14219. Module names equal the released weight names, so checkpoints load
and save in the released layout.
"""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import Cache, Phi3Model
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.phi3.modeling_phi3 import Phi3PreTrainedModel

from ..hd_geometry import num_image_tokens
from .cache_argument import CACHE_NAMES, cache_argument, output_cache, pop_cache
from .configuration_phi3_vision import Phi3VisionConfig
from .generation_phi3_vision import Phi3VisionGenerationMixin
from .image_embedding_phi3_vision import Phi3VisionImageEmbedding
from .placeholders import ImageFeatures, merge_image_features
from .positions import positions
from .rotary_phi3_vision import Phi3VisionRotaryEmbedding, reset_rotary_buffers


@dataclass
class Phi3VisionCausalLMOutputWithPast(CausalLMOutputWithPast):
    """Output of `Phi3VisionForConditionalGeneration`.

    Attributes:
        image_hidden_states: The image features that were used, one (tokens, hidden) per picture.
    """

    image_hidden_states: tuple[torch.Tensor, ...] | None = None


class Phi3VisionPreTrainedModel(Phi3PreTrainedModel):
    """What transformers needs to know to load, place and initialise the model."""

    config_class = Phi3VisionConfig
    config: Phi3VisionConfig
    input_modalities = ["image", "text"]  # noqa: RUF012 (transformers' own spelling)
    _skip_keys_device_placement = list(CACHE_NAMES)  # noqa: RUF012
    _no_split_modules = ["Phi3DecoderLayer", "Phi3VisionImageEmbedding"]  # noqa: RUF012
    # Names of the live reference model that no released checkpoint has, but that others may have saved.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"vision_embed_tokens\.wte\.",
        r"embeddings\.position_ids$",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        reset_rotary_buffers(module)


class Phi3VisionModel(Phi3VisionPreTrainedModel, Phi3Model):
    """The Phi-3 decoder with an image embedding beside its token embedding.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: Phi3VisionConfig) -> None:
        super().__init__(config)
        self.rotary_emb = Phi3VisionRotaryEmbedding(config)
        self.vision_embed_tokens = Phi3VisionImageEmbedding(config)
        self.post_init()

    def embed(
        self, input_ids: torch.Tensor, image_features: ImageFeatures | None = None, *, all_used: bool = True
    ) -> torch.Tensor:
        """Return the decoder's input for prompts with pictures.

        Args:
            input_ids: (batch, tokens), with -i where picture i stands.
            image_features: Features of the pictures, prompt by prompt.
            all_used: Whether every picture must appear in `input_ids`.

        Returns:
            (batch, tokens, hidden).

        Raises:
            ValueError: If pictures and ids do not fit each other.
        """
        if image_features is None:
            # One new token is never a placeholder, and asking would make the device wait at every decoding
            # step.
            if input_ids.shape[1] == 1 or torch.compiler.is_compiling():
                embeds: torch.Tensor = self.embed_tokens(input_ids)
                return embeds
            image_features = ()
        embeds = self.embed_tokens(input_ids.clamp(min=0))
        return merge_image_features(embeds, input_ids, image_features, all_used=all_used)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: ImageFeatures | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder.

        Args:
            input_ids: (batch, tokens), with -i where picture i stands. Either these or `inputs_embeds`.
            attention_mask: (batch, past + tokens), 0 at padding.
            position_ids: (batch, tokens). If left out they follow from `attention_mask`, so that padding on
                the left does not shift a row.
            past_key_values: Cache of earlier tokens, by the name it has up to transformers 5.23.
            inputs_embeds: (batch, tokens, hidden).
            image_features: Features of the pictures in `input_ids`, prompt by prompt.
            cache: Cache of earlier tokens, by the name it has from transformers 5.24 on.
            **kwargs: Passed to `Phi3Model.forward`.

        Returns:
            Output with `last_hidden_state` (batch, tokens, hidden) and the cache.

        Raises:
            ValueError: If pictures and ids do not fit each other, or two caches were given.
        """
        cache = pop_cache({"cache": cache, "past_key_values": past_key_values})
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            # Asked only where there are pictures: a static cache keeps its length on the device.
            cached = image_features and cache is not None and cache.get_seq_length() > 0
            inputs_embeds = self.embed(input_ids, image_features, all_used=not cached)
        elif image_features is not None:
            raise ValueError("image_features needs input_ids, which say where the pictures stand")
        assert inputs_embeds is not None  # noqa: S101 (for the type checker)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = positions(attention_mask)[:, -inputs_embeds.shape[1] :]
        outputs: BaseModelOutputWithPast = super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **cache_argument(cache),
            **kwargs,
        )
        return outputs


class Phi3VisionForConditionalGeneration(Phi3VisionPreTrainedModel, Phi3VisionGenerationMixin):
    """Phi-3 Vision with its language head: pictures and text in, text out.

    Args:
        config: The model's configuration.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: Phi3VisionConfig) -> None:
        super().__init__(config)
        self.model = Phi3VisionModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(  # type: ignore[no-untyped-def]
        cls,
        pretrained_model_name_or_path: str | PathLike[str] | None,
        *model_args: Any,
        use_safetensors: bool | None = True,
        **kwargs: Any,
    ):
        """Load weights in the released layout, from safetensors files only.

        Args:
            pretrained_model_name_or_path: Name on the hub or local folder.
            *model_args: See `PreTrainedModel.from_pretrained`.
            use_safetensors: Must not be False: pickled weights can run code when they are opened.
            **kwargs: Everything that `PreTrainedModel.from_pretrained` takes, such as `dtype`, `device_map`,
                `attn_implementation` and `quantization_config`.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: If `use_safetensors` is False.
        """
        if use_safetensors is False:
            raise ValueError(
                "use_safetensors=False asks for pickled weights, which can run code when they are opened; "
                "Phi-3 Vision is loaded from safetensors only"
            )
        return super().from_pretrained(
            pretrained_model_name_or_path, *model_args, use_safetensors=True, **kwargs
        )

    def get_image_features(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Encode pictures once, to be asked about any number of times.

        Args:
            pixel_values: (images, views, 3, 336, 336) from the processor.
            image_sizes: (images, 2), padded height and width in pixels, from the processor.

        Returns:
            One tensor (tokens, hidden) per picture, to be passed as `image_features`.

        Raises:
            ValueError: If the two arguments do not fit each other.
        """
        features: tuple[torch.Tensor, ...] = self.model.vision_embed_tokens(pixel_values, image_sizes)
        return features

    def resolve_image_features(
        self,
        pixel_values: torch.Tensor | None,
        image_sizes: torch.Tensor | None,
        image_features: ImageFeatures | None,
    ) -> tuple[torch.Tensor, ...] | None:
        """Return the pictures' features, from whichever of the arguments was given.

        Args:
            pixel_values: Pictures to encode now, with their `image_sizes`; or
            image_features: features that were computed before, in which case
            image_sizes: are checked against them, if given.

        Returns:
            One tensor (tokens, hidden) per picture, or None without pictures.

        Raises:
            ValueError: If the arguments do not fit each other.
        """
        if pixel_values is not None:
            if image_features is not None:
                raise ValueError("both pixel_values and image_features were given; give one of them")
            if image_sizes is None:
                raise ValueError("pixel_values was given without image_sizes; the processor returns both")
            return self.get_image_features(pixel_values, image_sizes)
        if image_features is None:
            if image_sizes is not None:
                raise ValueError(
                    "image_sizes was given without pixel_values or image_features; give one of them"
                )
            return None
        if image_sizes is not None:
            found = [len(features) for features in image_features]
            expected = [num_image_tokens(*size) for size in image_sizes.tolist()]
            if found != expected:
                raise ValueError(
                    f"image_features holds {found} vectors per picture, but pictures of image_sizes "
                    f"{image_sizes.tolist()} have {expected}; pass the sizes they were computed with"
                )
        return tuple(image_features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        image_features: ImageFeatures | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Phi3VisionCausalLMOutputWithPast | tuple[Any, ...]:
        """Return logits for the next tokens.

        Args:
            input_ids: (batch, tokens) from the processor, with -i where picture i of the row's prompt stands.
            pixel_values: (images, views, 3, 336, 336), the pictures of all prompts, prompt by prompt.
            image_sizes: (images, 2), padded height and width in pixels; goes with `pixel_values`.
            image_features: Result of `get_image_features`, in place of `pixel_values`. If `image_sizes` comes
                along, the two must fit.
            attention_mask: (batch, past + tokens), 0 at padding; pad on the left.
            position_ids: (batch, tokens); if left out they follow from `attention_mask`.
            past_key_values: Cache of earlier tokens, by the name it has up to transformers 5.23.
            inputs_embeds: (batch, tokens, hidden) in place of `input_ids`.
            labels: (batch, tokens); negative ids, which include placeholders, are left out of the loss.
            logits_to_keep: How many positions from the end to compute logits for (0: all), or their indices.
            cache: Cache of earlier tokens, by the name it has from transformers 5.24 on.
            **kwargs: Passed to the decoder, such as `use_cache` and `output_hidden_states`.

        Returns:
            Output with `logits` (batch, kept tokens, vocabulary) in the model's dtype, `loss` if `labels`
            were given, and `image_hidden_states`; a tuple if `return_dict=False`.

        Raises:
            ValueError: If pictures and ids do not fit each other, or two caches were given.
        """
        return_dict = kwargs.pop("return_dict", None)
        cache = pop_cache({"cache": cache, "past_key_values": past_key_values})
        image_features = self.resolve_image_features(pixel_values, image_sizes, image_features)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            **cache_argument(cache),
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state  # (batch, tokens, hidden)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden_states[:, kept])
        loss = None
        if labels is not None:
            labels = labels.masked_fill(labels < 0, -100)
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        output = Phi3VisionCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **cache_argument(output_cache(outputs)),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=image_features,
        )
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return output.to_tuple()
        return output
