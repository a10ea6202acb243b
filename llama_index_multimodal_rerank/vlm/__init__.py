"""Models that look at pictures and answer in text, behind one small interface."""

from .calls import ModelCallError
from .protocols import LabelRanking, RankRequest, VisionLanguageModel

__all__ = ["LabelRanking", "ModelCallError", "RankRequest", "VisionLanguageModel"]
