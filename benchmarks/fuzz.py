"""Long fuzz runs by hand over what reads untrusted bytes and words.

    python benchmarks/fuzz.py --seconds 300

Four doors, a quarter of the time each: pictures (``images/``), answers of models (``reranking/``), the
serialisation of ``ImageText`` and ``ImageTextQuery``, and MagicLens' checkpoints. Inputs are seeded, so a
finding can be repeated: the report names target and number. Ends with status 1 on any finding: an exception
other than the documented one, a result that is none, an input that takes longer than two seconds.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import copy
import functools
import io
import json
import pickle
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from llama_index_multimodal_rerank import ImageLoadError, ImageText, ImageTextQuery, load_image
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.images.decoding import IMAGE_FORMATS, OPTIONAL_FORMATS, check_image
from llama_index_multimodal_rerank.reranking.ranking import ranking_from_answer

sys.path.append(str(Path(__file__).parent.parent))  # run as a script, too
from tests.support.mutated_bytes import mutated
from tests.support.mutated_checkpoints import CheckpointFuzzer

SLOW_SECONDS = 2.0
MAX_PIXELS = 4_000_000
ALL_FORMATS = (*IMAGE_FORMATS, *OPTIONAL_FORMATS)
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"]


def seeds() -> list[bytes]:
    """Small valid pictures of every format and of several modes."""
    rng = np.random.default_rng(0)
    base = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    found = []
    for image_format in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16"):
            for options in ({}, {"save_all": True, "append_images": [base.rotate(90)]}):
                buffer = io.BytesIO()
                try:
                    base.convert(mode).save(buffer, image_format, **options)
                except (OSError, ValueError, KeyError, RuntimeError):
                    continue
                found.append(buffer.getvalue())
    return found


SEEDS = seeds()


def fuzz_pictures(rng: Random) -> str:
    """Mutated pictures, as bytes, base64 or data URI, and noise."""
    if rng.random() < 0.9:
        data = mutated(rng, rng.choice(SEEDS), times=rng.randint(1, 6), others=SEEDS)
    else:
        data = rng.randbytes(rng.randint(0, 400))
    way = rng.randrange(4)
    source: bytes | str = data
    if way == 1:
        source = base64.b64encode(data).decode()
    elif way == 2:
        source = "data:image/*;base64," + base64.b64encode(data).decode()
    elif way == 3:
        source = "data:" + "".join(rng.choice([chr(byte), f"%{byte:02x}"]) for byte in data)
    try:
        if way == 0 and rng.random() < 0.3:
            check_image(data, name="fuzz", max_pixels=MAX_PIXELS, formats=ALL_FORMATS)
            return "checked"
        image = load_image(
            source, max_pixels=MAX_PIXELS, apply_exif_orientation=rng.random() < 0.5, formats=ALL_FORMATS
        )
    except ImageLoadError:
        return "refused"
    assert np.asarray(image.convert("RGB")).ndim == 3
    return "loaded"


PIECES = [
    "Ranking:",
    "ranking",
    " > ",
    "[1]",
    "[2]",
    "[0]",
    "[99]",
    "3",
    "-1",
    "1.5",
    ",",
    "\n",
    "```json\n",
    "```",
    '{"ranking": [',
    "]}",
    '"reason": "',
    '"',
    "<think>",
    "</think>",
    "Reason:",
    "1. [4]\n",
    "2. [2]\n",
    "{",
    "}",
    "[",
    "]",
    "of the 5 chairs",
    "≻",
    "→",
    "|",
    ";",
    "**",
    "# ",
    "null",
    "true",
    "1e999",
    "\\u0000",
    "\u202e",
    "٣",
    "NaN",
    "[[",
    "]]",
    "{" * 50,
    "[" * 200,
    "rank me first",
    "Ranking: [2] > [1]",
    " " * 300,
    "9" * 5000,
    "\ud800",
    "[THINK]",
    "[/THINK]",
    "<|channel|>final<|message|>",
    "<|channel|>analysis<|message|>",
    "<answer>",
    "</answer>",
    "[3] >",
    "\n> [4]",
    "[5]\n",
    "- [6]\n",
    " = ",
    " < ",
    "【2】",
    "&gt;",
    "Image 3",
    "| Rank | Image |\n|---|---|\n",
    "| 1 | 4 |\n",
    '{"number": 2}',
    "'",
    '\\"',
    '"ranking": "2 > 1"',
    "worst to best",
]


MILLION = 1_000_000


def fuzz_answers(rng: Random) -> str:
    """Answers glued from what lists are made of; one of two hundred has a million characters."""
    text = "".join(rng.choices(PIECES, k=rng.randint(0, 60)))
    if rng.random() < 0.005:
        few = rng.sample(PIECES, rng.randint(1, 4))
        while len(text) < MILLION:
            text += (rng.choice(few) * rng.choice([1, 30, 2000]))[:100_000]
    if rng.random() < 0.2:
        text = "".join(chr(rng.randrange(0x250)) for _ in range(rng.randint(0, 300))) + text
    n = rng.randint(1, 30)
    ranking = ranking_from_answer(text, n)
    assert sorted(ranking.order) == list(range(n))
    json.dumps(ranking.audit.to_dict())
    return "clean" if ranking.audit.clean else ranking.audit.action


def pickled(value: Any) -> Any:
    """A value through pickle and back."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 (made here)


def fuzz_serialisation(rng: Random) -> str:
    """Texts and pictures through pickle, copy, dictionaries and JSON."""
    ranges = [(0, 128), (0, 0xD800), (0xE000, 0x110000)]
    text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(0, 60)))
    if rng.random() < 0.2:
        text += f"\n[image_digest: sha256:{rng.randbytes(32).hex()}]"
    data = rng.randbytes(rng.randint(1, 200))
    carried = ImageText(text, data)
    with_digest = carried.with_digest()
    for kept in (pickled(with_digest), copy.copy(with_digest), copy.deepcopy(with_digest)):
        assert (str(kept), kept.text, kept.image) == (str(with_digest), text, data)
    assert carried.text == text
    assert not text or carried == text  # without words it leads to its picture by a reference
    query = (
        ImageTextQuery(text, image=data) if rng.random() < 0.5 else ImageTextQuery(text, image_path="a.png")
    )
    for again in (
        ImageTextQuery.from_dict(query.to_dict()),
        ImageTextQuery.from_json(query.to_json()),
        pickled(query),
        copy.deepcopy(query),
    ):
        assert again.query_str == text
        assert again.image_path == query.image_path
        if query.image is not None:
            assert ImageAccess().digest(again.image) == ImageAccess().digest(data)
    return "kept"


@functools.cache
def checkpoint_fuzzer() -> CheckpointFuzzer:
    """The maker and reader of damaged checkpoints, with a folder that is removed at the end."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return CheckpointFuzzer(Path(folder.name))


def fuzz_checkpoints(rng: Random) -> str:
    """Damaged checkpoints of MagicLens; those of PyTorch and safetensors are read by their own libraries."""
    return checkpoint_fuzzer().run(rng)


TARGETS: dict[str, Callable[[Random], str]] = {
    "pictures": fuzz_pictures,
    "answers": fuzz_answers,
    "serialisation": fuzz_serialisation,
    "checkpoints": fuzz_checkpoints,
}


def main() -> None:
    """Fuzz, report, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    findings = 0
    for name in options.targets:
        target = TARGETS[name]
        outcomes: Counter[str] = Counter()
        slowest = 0.0
        number = 0
        end = time.monotonic() + options.seconds / len(options.targets)
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                outcomes[target(Random(f"{options.seed} {name} {number}"))] += 1
            except Exception:
                findings += 1
                print(f"FINDING in {name}, number {number}:\n{traceback.format_exc(limit=-3)}")
                if findings > 20:
                    sys.exit(1)
            took = time.monotonic() - start
            slowest = max(slowest, took)
            if took > SLOW_SECONDS:
                findings += 1
                print(f"FINDING in {name}, number {number}: took {took:.1f} s")
            number += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name}: {number} executions, {dict(outcomes)}, slowest {slowest:.3f} s, peak RSS {peak:.0f} MiB"
        )
    print(f"findings: {findings}")
    sys.exit(findings > 0)


if __name__ == "__main__":
    main()
