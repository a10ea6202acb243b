"""Phi-3 Vision for transformers 5, without remote code.

Importing this package registers it with transformers' Auto classes, so that

    import llama_index_multimodal_rerank.models.phi3_vision
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained("microsoft/Phi-3-vision-128k-instruct")
    model = AutoModelForImageTextToText.from_pretrained("microsoft/Phi-3-vision-128k-instruct")

works as for any model of the library. See docs/phi3_vision.md.
"""

from .configuration_phi3_vision import Phi3VisionConfig
from .image_processing_phi3_vision import Phi3VisionImageProcessor
from .modeling_phi3_vision import (
    Phi3VisionCausalLMOutputWithPast,
    Phi3VisionForConditionalGeneration,
    Phi3VisionModel,
    Phi3VisionPreTrainedModel,
)
from .processing_phi3_vision import Phi3VisionProcessor
from .registration import register

__all__ = [
    "Phi3VisionCausalLMOutputWithPast",
    "Phi3VisionConfig",
    "Phi3VisionForConditionalGeneration",
    "Phi3VisionImageProcessor",
    "Phi3VisionModel",
    "Phi3VisionPreTrainedModel",
    "Phi3VisionProcessor",
]

register()
