"""Training pictures, drawn once into memory-mapped files.

    python -m training.pictures --output pictures --products 30000 --product-sizes 63 75 112 \
        --sources 4800 --source-sizes 63 112 224

Drawing takes longer than a training step, so both recipes read pictures from here. An interrupted run
continues where it stopped; a later one adds the sizes that are missing, or takes the first of the pictures.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, HELD_OUT, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.drawing.products import draw_product
from llama_index_multimodal_rerank.demo.drawing.sources import draw_source

from . import distractors

NONE = -100
"""Label of what a picture does not show; losses leave it out."""

TRAINING_SEEDS = 1_000_000
"""Pictures of the demo and of evaluations have seeds below, those of training have seeds from here on."""

_CHUNK = 64
_SEEN = tuple((kind, surface) for kind in KINDS for surface in SURFACES if (kind, surface) not in HELD_OUT)

Int64Array = npt.NDArray[np.int64]
Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Drawn:
    """Pictures with what they show.

    Attributes:
        labels: of products, the places in ``KINDS``, ``SURFACES`` and ``COLOURS``, (pictures, 3), -100 for
            none; of sources, the place in ``SURFACES``, (pictures, 1).
        pictures: by side in pixels, a memory map of RGB, (pictures, side, side, 3).
    """

    labels: Int64Array
    pictures: dict[int, Uint8Array]

    def __len__(self) -> int:
        return len(self.labels)


def draw_products(
    folder: Path, count: int, *, seed: int, sizes: Sequence[int], workers: int | None = None
) -> Drawn:
    """Draw products for training into a folder, or take them from there.

    Kind and surface are drawn uniformly from the pairs that are not held out, the colour from all. Picture
    ``i`` depends on ``seed`` and ``i`` alone.

    Args:
        folder: where the files are kept.
        count: how many pictures.
        seed: a number from 0.
        sizes: sides in pixels; each picture is drawn once and reduced to each of them.
        workers: processes that draw; None takes one per processor.

    Raises:
        ValueError: the folder holds fewer pictures, or those of another seed or other drawing code.
    """
    draws = [np.random.default_rng([seed, i]) for i in range(count)]
    pairs = [_SEEN[int(rng.integers(len(_SEEN)))] for rng in draws]
    labels = [
        (KINDS.index(kind), SURFACES.index(surface), int(rng.integers(len(COLOURS))))
        for (kind, surface), rng in zip(pairs, draws, strict=True)
    ]
    return _draw(folder, "products", _draw_product, labels, seed=seed, sizes=sizes, workers=workers)


def draw_sources(
    folder: Path, count: int, *, seed: int, sizes: Sequence[int], workers: int | None = None
) -> Drawn:
    """Draw what patterns come from, all surfaces in turn, into a folder, or take them from there.

    Arguments and errors as for :func:`draw_products`.
    """
    labels = [(i % len(SURFACES),) for i in range(count)]
    return _draw(folder, "sources", _draw_source, labels, seed=seed, sizes=sizes, workers=workers)


def draw_things(
    folder: Path, count: int, *, seed: int, sizes: Sequence[int], workers: int | None = None
) -> Drawn:
    """Draw surfaces on bodies of no kind; labelled as products are, with -100 for the kind.

    Arguments and errors as for :func:`draw_products`.
    """
    draws = [np.random.default_rng([seed, i]) for i in range(count)]
    labels = [(NONE, i % len(SURFACES), int(rng.integers(len(COLOURS)))) for i, rng in enumerate(draws)]
    return _draw(folder, "things", _draw_thing, labels, seed=seed, sizes=sizes, workers=workers)


def draw_nameless(
    folder: Path, count: int, *, seed: int, sizes: Sequence[int], workers: int | None = None
) -> Drawn:
    """Draw products in patterns without a name; labelled as products are, with -100 for the surface.

    Arguments and errors as for :func:`draw_products`.
    """
    draws = [np.random.default_rng([seed, i]) for i in range(count)]
    labels = [(i % len(KINDS), NONE, int(rng.integers(len(COLOURS)))) for i, rng in enumerate(draws)]
    return _draw(folder, "nameless", _draw_nameless, labels, seed=seed, sizes=sizes, workers=workers)


def _draw_thing(labels: Sequence[int], seed: int) -> Image.Image:
    return distractors.draw_thing(SURFACES[labels[1]], COLOURS[labels[2]], seed)


def _draw_nameless(labels: Sequence[int], seed: int) -> Image.Image:
    return distractors.draw_nameless(KINDS[labels[0]], COLOURS[labels[2]], seed)


def _draw_product(labels: Sequence[int], seed: int) -> Image.Image:
    kind, surface, colour = labels
    return draw_product(Look(KINDS[kind], SURFACES[surface], COLOURS[colour]), seed)


def _draw_source(labels: Sequence[int], seed: int) -> Image.Image:
    return draw_source(SURFACES[labels[0]], seed)


_Draw = Callable[[Sequence[int], int], Image.Image]


def _draw(
    folder: Path,
    name: str,
    draw: _Draw,
    rows: Sequence[tuple[int, ...]],
    *,
    seed: int,
    sizes: Sequence[int],
    workers: int | None,
) -> Drawn:
    if not 0 < len(rows) <= TRAINING_SEEDS or seed < 0 or not sizes:
        raise ValueError(
            f"{len(rows)} pictures of {len(sizes)} sizes with seed {seed}: expected 1 to {TRAINING_SEEDS} "
            f"pictures, at least one size, and a seed from 0."
        )
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.array(rows, dtype=np.int64)
    first_seed = TRAINING_SEEDS * (1 + seed)
    kept = _kept_labels(folder / f"{name}-labels.npy", labels)
    room = len(kept)
    starts = range(0, len(rows), _CHUNK)
    # One mark per chunk and size, set when the chunk is written.
    done = {
        size: _open_map(folder / f"{name}-{size}-done.npy", (math.ceil(room / _CHUNK),))
        for size in sorted(set(sizes))
    }
    pictures = {
        size: _open_map(folder / f"{name}-{size}.npy", (room, size, size, 3)) for size in sorted(done)
    }
    for size, marks in done.items():
        if marks[0]:
            (probe,) = _reduced(draw(labels[0].tolist(), first_seed), [size])
            # Rounding, which differs between processors, is no other drawing.
            if np.abs(probe.astype(int) - pictures[size][0]).mean() > 0.5:
                raise ValueError(
                    f"{folder} holds {name} of {size} pixels that are drawn differently now. Delete them, or "
                    f"name another folder."
                )
    jobs = {
        start: missing
        for chunk, start in enumerate(starts)
        if (missing := [size for size in done if not done[size][chunk]])
    }
    work = partial(_draw_chunk, folder, name, draw, kept, first_seed)
    with tqdm(total=len(rows), desc=f"Drawing {name}", unit="picture") as progress:
        progress.update(sum(len(labels[start : start + _CHUNK]) for start in starts if start not in jobs))
        for start in _run(work, jobs, workers or os.cpu_count() or 1):
            for size in jobs[start]:
                done[size][start // _CHUNK] = 1
            progress.update(len(labels[start : start + _CHUNK]))
    return Drawn(
        labels,
        {size: np.load(folder / f"{name}-{size}.npy", mmap_mode="r")[: len(rows)] for size in sorted(done)},
    )


def _run(work: Callable[[int, list[int]], int], jobs: dict[int, list[int]], workers: int):  # type: ignore[no-untyped-def]
    if workers == 1 or len(jobs) <= 1:
        yield from (work(start, sizes) for start, sizes in jobs.items())
        return
    # Spawned, because a process that has used torch cannot be forked safely.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(work, start, sizes) for start, sizes in jobs.items()]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_chunk(
    folder: Path,
    name: str,
    draw: _Draw,
    labels: Int64Array,
    first_seed: int,
    start: int,
    sizes: list[int],
) -> int:
    maps = [np.load(folder / f"{name}-{size}.npy", mmap_mode="r+") for size in sizes]
    for i in range(start, min(start + _CHUNK, len(labels))):
        for pictures, pixels in zip(
            maps, _reduced(draw(labels[i].tolist(), first_seed + i), sizes), strict=True
        ):
            pictures[i] = pixels
    for pictures in maps:
        pictures.flush()
    return start


def _reduced(picture: Image.Image, sizes: Sequence[int]) -> list[Uint8Array]:
    return [
        np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)
        for size in sizes
    ]


def _kept_labels(path: Path, labels: Int64Array) -> Int64Array:
    """Return the labels of all pictures that the files have room for; the first are ``labels``."""
    if not path.exists():
        np.save(path, labels)
    kept = np.load(path)
    if not np.array_equal(kept[: len(labels)], labels):
        raise ValueError(
            f"{path.parent} holds {len(kept)} pictures, not {len(labels)} or more, or of another seed. "
            f"Delete them, or name another folder."
        )
    return kept  # type: ignore[no-any-return]


def _open_map(path: Path, shape: tuple[int, ...]) -> Uint8Array:
    if path.exists():
        opened = np.load(path, mmap_mode="r+")
        if opened.shape == shape:
            return opened  # type: ignore[no-any-return]
        raise ValueError(f"{path} has the shape {opened.shape}, expected {shape}. Delete it.")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def main() -> None:
    """Draw the pictures of both recipes ahead."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--products", type=int, default=30_000)
    parser.add_argument("--product-sizes", type=int, nargs="+", default=[63, 75, 112])
    parser.add_argument("--sources", type=int, default=4_800)
    parser.add_argument("--source-sizes", type=int, nargs="+", default=[63, 112, 224])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per processor)")
    args = parser.parse_args()
    common = {"seed": args.seed, "workers": args.workers}
    draw_products(args.output, args.products, sizes=args.product_sizes, **common)
    draw_sources(args.output, args.sources, sizes=args.source_sizes, **common)


if __name__ == "__main__":
    main()
