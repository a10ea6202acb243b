"""Items are taken apart, grouped and prefetched; order and bounds hold for any mixture."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama_index_multimodal_rerank.models.batching import BatchSizes, best_batch_sizes, plan_batches
from llama_index_multimodal_rerank.models.items import Entry, parse_items
from llama_index_multimodal_rerank.models.prefetch import Prefetcher, lag_by_one, prefetch_map

IMAGE = Image.new("RGB", (8, 8))


def test_every_kind_of_item() -> None:
    def load() -> Image.Image:
        return IMAGE

    items = ["text", IMAGE, load, ("edit", IMAGE), ("", load)]
    assert parse_items(items) == [
        Entry("text", None),
        Entry("", IMAGE),
        Entry("", load),
        Entry("edit", IMAGE),
        Entry("", load),
    ]
    assert parse_items(iter(["a", "b"])) == [Entry("a", None), Entry("b", None)]


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_empty_text_without_image(text: str) -> None:
    with pytest.raises(ValueError, match=r"items\[1\] is an empty text without an image"):
        parse_items(["fine", text])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, r"items\[1\] is a int; expected a text \(str\), a PIL image, .*, or a pair"),
        (None, r"items\[1\] is a NoneType"),
        (["text", IMAGE], r"items\[1\] is a list"),
        (b"bytes", r"items\[1\] is a bytes"),
        (("text", IMAGE, IMAGE), r"items\[1\] is a tuple"),
        (("text",), r"items\[1\] is a tuple"),
        ((IMAGE, "text"), r"items\[1\]\[0\] is a Image; expected the text"),
        ((None, IMAGE), r"items\[1\]\[0\] is a NoneType"),
        (("text", "image.png"), r"items\[1\]\[1\] is a str; expected a PIL image, .* returns one\.$"),
        (("text", None), r"items\[1\]\[1\] is a NoneType"),
    ],
)
def test_wrong_types_name_index_and_type(item: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        parse_items(["fine", item])


@pytest.mark.parametrize("items", ["a text", b"bytes", IMAGE, {"a": 1}, 5, None])
def test_a_single_item_is_not_a_list(items: Any) -> None:
    with pytest.raises(TypeError, match=rf"items is a {type(items).__name__}; expected a list"):
        parse_items(items)


def test_batches_by_kind_and_length() -> None:
    lengths, has_image = [5, 9, 2, 7, 2, 3], [False, False, True, False, True, True]
    batches = plan_batches(lengths, has_image, image_tokens=196, batch_size=2)
    assert batches == [[5, 2], [4], [1, 3], [0]]


def test_long_sequences_go_in_smaller_batches() -> None:
    # 4 * 512 tokens at a time: one of 8192, then two of 1024, then four of 512
    lengths = [512] * 4 + [1024] * 2 + [8192]
    batches = plan_batches(lengths, [False] * 7, image_tokens=196, batch_size=4)
    assert batches == [[6], [4, 5], [0, 1, 2, 3]]
    # an image counts with its tokens: 256 + 768 = 1024
    assert plan_batches([768] * 3, [True] * 3, image_tokens=256, batch_size=4) == [[0, 1], [2]]


def test_pictures_and_texts_have_batch_sizes_of_their_own() -> None:
    sizes = BatchSizes(images=1, texts=3)
    batches = plan_batches([2] * 6, [True, True, *[False] * 4], image_tokens=196, batch_size=sizes)
    assert batches == [[0], [1], [2, 3, 4], [5]]


def test_batch_sizes_follow_the_device() -> None:
    assert best_batch_sizes("cpu", threads=2) == BatchSizes(images=16, texts=64)
    assert best_batch_sizes("cpu", threads=64) == BatchSizes(images=128, texts=256)
    assert best_batch_sizes("cuda", threads=2) == BatchSizes(images=128, texts=256)


@given(
    st.lists(st.tuples(st.integers(2, 9000), st.booleans()), max_size=60),
    st.integers(1, 40),
    st.integers(1, 300),
)
def test_plan_holds_every_item_once_in_bounded_batches(
    items: list[tuple[int, bool]], batch_size: int, image_tokens: int
) -> None:
    lengths, has_image = [length for length, _ in items], [image for _, image in items]
    batches = plan_batches(lengths, has_image, image_tokens=image_tokens, batch_size=batch_size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(items)))
    for batch in batches:
        assert len({has_image[i] for i in batch}) == 1
        longest = max(lengths[i] for i in batch) + image_tokens * has_image[batch[0]]
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * longest <= batch_size * 512
    for kind in (True, False):  # padding is least: lengths never rise from batch to batch
        flat = [lengths[i] for batch in batches for i in batch if has_image[i] is kind]
        assert flat == sorted(flat, reverse=True)


@given(st.lists(st.integers()), st.integers(1, 4), st.integers(1, 9))
def test_map_ahead_keeps_order(items: list[int], workers: int, ahead: int) -> None:
    assert list(prefetch_map(lambda x: x + 1, items, workers=workers, ahead=ahead)) == [x + 1 for x in items]


def test_map_ahead_runs_in_threads_and_never_further_than_asked() -> None:
    started: list[int] = []
    threads: set[int] = set()

    def record(x: int) -> int:
        started.append(x)
        threads.add(threading.get_ident())
        return x

    with closing(prefetch_map(record, range(100), workers=2, ahead=5)) as results:
        for taken, result in enumerate(results, start=1):
            assert result == taken - 1
            assert len(started) <= taken + 5
    assert len(started) == 100
    assert threading.get_ident() not in threads


def test_map_ahead_raises_the_very_exception_at_its_turn() -> None:
    error = KeyError("broken")

    def fail_at_3(x: int) -> int:
        if x == 3:
            raise error
        return x

    results = prefetch_map(fail_at_3, range(9), workers=2, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError) as caught:
        next(results)
    assert caught.value is error


def test_map_ahead_stops_when_closed() -> None:
    started: list[int] = []
    second, gate = threading.Event(), threading.Event()

    def wait(x: int) -> int:
        started.append(x)
        if x:
            second.set()
            gate.wait(60)
        return x

    results = prefetch_map(wait, range(50), workers=1, ahead=20)
    assert next(results) == 0
    assert second.wait(60)
    threading.Timer(0.2, gate.set).start()  # while close() waits for the one under way
    results.close()
    assert started == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_results_are_taken_by_key_in_any_order_once() -> None:
    started: list[str] = []

    def upper(item: str) -> str:
        started.append(item)
        return item.upper()

    items = {7: "a", 8: "b", 9: "c", 10: "d", 11: "e"}
    with Prefetcher(upper, items, ahead=1, workers=1) as prefetched:
        assert prefetched.take(9).result() == "C"  # 7 and 8 are started with it
        assert prefetched.take(7).result() == "A"
        assert started == ["a", "b", "c"]
        assert prefetched.take(8).result() == "B"
        for key in (8, 12):
            with pytest.raises(KeyError):
                prefetched.take(key)
        assert [prefetched.take(key).result() for key in (11, 10)] == ["E", "D"]
    assert started == ["a", "b", "c", "d", "e"]


def test_threads_share_a_prefetcher() -> None:
    with (
        Prefetcher(lambda x: -x, {x: x for x in range(200)}, ahead=4) as prefetched,
        ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(lambda x: prefetched.take(x).result(), reversed(range(200))))
    assert found == [-x for x in reversed(range(200))]


def test_a_closed_prefetcher_cancels_what_has_not_begun() -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait(x: int) -> int:
        begun.set()
        gate.wait(60)
        return x

    prefetched = Prefetcher(wait, {x: x for x in range(3)}, ahead=3, workers=1)
    first, second = prefetched.take(0), prefetched.take(1)
    assert begun.wait(60)
    prefetched.close(wait=False)
    gate.set()
    assert first.result(60) == 0
    with pytest.raises(CancelledError):
        second.result(60)


def test_one_late_makes_the_next_before_it_gives_the_last() -> None:
    made = []

    def make():
        for number in range(3):
            made.append(number)
            yield number

    seen = [(number, list(made)) for number in lag_by_one(make())]
    assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]
    assert list(lag_by_one([])) == []
