"""An embedding for workers of Ray, without torch: vectors of pixels, and a journal of what was embedded."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import Field
from PIL import Image

from llama_index_multimodal_rerank.embeddings.image_text_embedding import ImageTextEmbedding
from llama_index_multimodal_rerank.embeddings.local_model import ImageTextModel, LocalModelEmbedding

SIDE = 4
DIM = 3 * SIDE * SIDE


class PixelModel:
    """A picture's vector is itself, very small, moved by its text."""

    dim = DIM

    def __init__(self, journal: str, seconds: float, version: str) -> None:
        self.fingerprint = {"model": "pixels", "version": version}
        self._journal = Path(journal) if journal else None
        self._seconds = seconds

    def preprocess(self, image: Image.Image) -> np.ndarray:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return np.asarray(small, dtype=np.float32).ravel() / 255 + 0.01

    def encode(self, items: Sequence[Any], **options: Any) -> np.ndarray:
        vectors = [self._vector(*item) for item in items]
        if self._journal is not None:
            keys = [hashlib.sha256(vector.tobytes()).hexdigest()[:16] for vector in vectors]
            line = json.dumps({"process": os.getpid(), "began": time.time(), "pictures": keys}) + "\n"
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(line)
        time.sleep(self._seconds)
        return np.stack(vectors)

    def _vector(self, text: str, picture: np.ndarray | Callable[[], Image.Image]) -> np.ndarray:
        pixels = self.preprocess(picture()) if callable(picture) else picture
        shift = hashlib.sha256(text.encode()).digest()[0] / 255 if text else 0.0
        vector = np.roll(pixels, int(8 * shift)) + shift
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class PixelEmbedding(LocalModelEmbedding, ImageTextEmbedding):
    """Embeds by :class:`PixelModel`."""

    journal: str = Field(default="", description="File with a line for each batch; '' for none.")
    seconds: float = Field(default=0.0, description="What a batch takes at least.")
    version: str = Field(default="1", description="Of its vectors.")

    def _load(self) -> ImageTextModel:
        return PixelModel(self.journal, self.seconds, self.version)

    @property
    def embedded(self) -> list[str]:
        """What was embedded, by any process, doubles included."""
        return [key for line in self.lines() for key in line["pictures"]]

    @property
    def processes(self) -> list[int]:
        """The processes that embedded, each once, in the order of their first batches."""
        return [*dict.fromkeys(line["process"] for line in self.lines())]

    def lines(self) -> list[dict[str, Any]]:
        """The journal: the process, the time and the pictures of each batch."""
        path = Path(self.journal)
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def write_pictures(folder: Path, count: int, bad: int) -> list[Path]:
    """Draw small pictures, of which the last of each stretch is cut short; return those that are bad."""
    folder.mkdir(parents=True)
    every = count // bad if bad else count + 1
    cut = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
        path = folder / f"{number:05d}.png"
        image.save(path)
        if number % every == every - 1 and len(cut) < bad:
            path.write_bytes(path.read_bytes()[:200])
            cut.append(path)
    return cut
