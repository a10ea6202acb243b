"""Models that look at pictures and answer in text, behind one small interface."""

from .errors import ModelCallError
from .protocols import Answer, ImagePrompt, LabelRanking, RankRequest, VisionLanguageModel

__all__ = ["Answer", "ImagePrompt", "LabelRanking", "ModelCallError", "RankRequest", "VisionLanguageModel"]
