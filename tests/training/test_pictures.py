"""Training pictures: drawn once, the same however they came about, never of held-out looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, HELD_OUT, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.drawing.products import draw_product
from training import pictures
from training.distractors import draw_thing
from training.pictures import draw_nameless, draw_products, draw_sources, draw_things


def test_pictures_show_what_their_labels_say(tmp_path: Path) -> None:
    drawn = draw_products(tmp_path, 3, seed=0, sizes=[20, 30], workers=1)
    for i, (kind, surface, colour) in enumerate(drawn.labels):
        picture = draw_product(Look(KINDS[kind], SURFACES[surface], COLOURS[colour]), 1_000_000 + i)
        for size in (20, 30):
            expected = picture.resize((size, size), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(drawn.pictures[size][i], np.asarray(expected))


def test_no_held_out_look_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pictures, "draw_product", lambda *_: Image.new("RGB", (4, 4)))
    drawn = draw_products(tmp_path, 5000, seed=1, sizes=[4], workers=1)
    pairs = {(KINDS[kind], SURFACES[surface]) for kind, surface, _ in drawn.labels}
    assert len(HELD_OUT) == 30
    assert len(pairs) == 130
    assert not pairs & HELD_OUT
    assert set(drawn.labels[:, 2]) == set(range(10))


def test_sources_take_all_surfaces_in_turn(tmp_path: Path) -> None:
    drawn = draw_sources(tmp_path, 18, seed=0, sizes=[8], workers=1)
    assert drawn.labels.tolist() == [[i % 16] for i in range(18)]


def test_distractors_are_drawn_in_turn_and_labelled_with_what_they_show(tmp_path: Path) -> None:
    things = draw_things(tmp_path, 17, seed=0, sizes=[20], workers=1)
    nameless = draw_nameless(tmp_path, 11, seed=0, sizes=[20], workers=1)
    assert things.labels[:, :2].tolist() == [[-100, i % 16] for i in range(17)]
    assert nameless.labels[:, :2].tolist() == [[i % 10, -100] for i in range(11)]
    thing = draw_thing(SURFACES[3], COLOURS[things.labels[3, 2]], 1_000_003)
    np.testing.assert_array_equal(
        things.pictures[20][3], np.asarray(thing.resize((20, 20), Image.Resampling.LANCZOS))
    )
    assert len({picture.tobytes() for picture in (*things.pictures[20], *nameless.pictures[20])}) == 28


def test_a_thing_is_covered_with_its_surface() -> None:
    """Dots have an ink beside the ground; a plain surface has nothing but the ground."""
    spread = {
        surface: np.mean(
            [
                np.asarray(draw_thing(surface, "blue", seed))[84:140, 84:140].std(axis=(0, 1)).mean()
                for seed in range(8)
            ]
        )
        for surface in ("plain", "dots")
    }
    assert spread["dots"] > 2 * spread["plain"]


def test_interrupted_drawing_continues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = draw_sources(tmp_path / "whole", 70, seed=0, sizes=[8], workers=1)
    calls = []

    def draw_or_stop(surface: str, seed: int) -> Image.Image:
        calls.append(seed)
        if len(calls) == 66:
            raise KeyboardInterrupt
        return pictures_of(surface, seed)

    pictures_of = pictures.draw_source
    monkeypatch.setattr(pictures, "draw_source", draw_or_stop)
    with pytest.raises(KeyboardInterrupt):
        draw_sources(tmp_path / "parts", 70, seed=0, sizes=[8], workers=1)
    again = draw_sources(tmp_path / "parts", 70, seed=0, sizes=[8], workers=1)
    np.testing.assert_array_equal(again.pictures[8], whole.pictures[8])
    assert len(calls) == 66 + 1 + 6  # one to see that the code draws the same, and the second chunk


def test_processes_draw_the_same(tmp_path: Path) -> None:
    one = draw_sources(tmp_path / "one", 70, seed=3, sizes=[8], workers=1)
    two = draw_sources(tmp_path / "two", 70, seed=3, sizes=[8], workers=2)
    np.testing.assert_array_equal(one.pictures[8], two.pictures[8])


def test_more_pictures_serve_for_fewer(tmp_path: Path) -> None:
    few = draw_sources(tmp_path, 3, seed=0, sizes=[8], workers=1)
    with pytest.raises(ValueError, match="holds 3 pictures, not 5 or more"):
        draw_sources(tmp_path, 5, seed=0, sizes=[8], workers=1)
    first = draw_sources(tmp_path / "more", 5, seed=0, sizes=[8], workers=1)
    again = draw_sources(tmp_path / "more", 3, seed=0, sizes=[8], workers=1)
    assert len(again) == len(again.pictures[8]) == 3
    np.testing.assert_array_equal(again.pictures[8], few.pictures[8])
    np.testing.assert_array_equal(again.pictures[8], first.pictures[8][:3])


def test_pictures_of_another_seed_are_not_taken(tmp_path: Path) -> None:
    draw_sources(tmp_path, 3, seed=0, sizes=[8], workers=1)
    with pytest.raises(ValueError, match="drawn differently now"):
        draw_sources(tmp_path, 3, seed=1, sizes=[8], workers=1)
