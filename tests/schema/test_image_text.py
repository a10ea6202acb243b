"""ImageText: a string for everyone else, a picture for us."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama_index_multimodal_rerank.images.sources import ImageNotFoundError
from llama_index_multimodal_rerank.schema.image_text import ImageText, has_lost_image, recover_image


def digest_of(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_an_ordinary_string(pictures: list[Path]) -> None:
    text = ImageText("a mug with this", image=pictures[0])
    assert text == "a mug with this"
    assert hash(text) == hash("a mug with this")
    assert json.dumps({"q": text}) == '{"q": "a mug with this"}'
    assert f"{text}!" == "a mug with this!"
    assert text.image == pictures[0]


def test_a_digest_is_unique_to_text_and_picture(pictures: list[Path]) -> None:
    values = {
        str(ImageText(text, image).with_digest())
        for text in ("", "a mug", "a case")
        for image in (pictures[0], pictures[1], None)
    }
    assert len(values) == 9
    with_digest = ImageText("a mug", pictures[0]).with_digest()
    assert with_digest == f"a mug\n[image_digest: {digest_of(pictures[0])}]"
    assert (with_digest.text, with_digest.image) == ("a mug", pictures[0])
    assert with_digest.with_digest() is with_digest


def test_tag_follows_the_bytes_not_the_path(pictures: list[Path]) -> None:
    before = str(ImageText("", pictures[0]).with_digest())
    pictures[0].write_bytes(pictures[1].read_bytes())
    after = str(ImageText("", pictures[0]).with_digest())
    assert before != after
    assert after == str(ImageText("", pictures[1]).with_digest())


def test_nothing_is_read_before_it_must(tmp_path: Path) -> None:
    text = ImageText("later", tmp_path / "missing.png")
    with pytest.raises(ImageNotFoundError):
        text.with_digest()


def test_streams_are_kept_as_bytes(pictures: list[Path]) -> None:
    stream = BytesIO(pictures[0].read_bytes())
    text = ImageText("", stream)
    stream.read()
    stream.close()
    assert text.image == pictures[0].read_bytes()


@given(st.text(), st.one_of(st.none(), st.text(min_size=1), st.binary(min_size=1)))
def test_copies_and_pickles_keep_text_and_picture(text: str, image: str | bytes | None) -> None:
    original = ImageText(text, image, digest="sha256:" + "0" * 64).with_digest()
    for twin in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):
        assert type(twin) is ImageText
        assert (str(twin), twin.text, twin.image) == (str(original), text, image)


def test_repr_names_the_picture_briefly() -> None:
    assert repr(ImageText("a", "b.png")) == "ImageText('a', image='b.png')"
    assert repr(ImageText("a", b"12345")) == "ImageText('a', image=<5 bytes>)"
    assert repr(ImageText("a")) == "ImageText('a')"
    assert len(repr(ImageText("a", "x" * 10_000))) < 200


def test_lost_picture(pictures: list[Path]) -> None:
    with_digest = ImageText("a", pictures[0]).with_digest()
    assert not has_lost_image(with_digest)
    assert has_lost_image(str.__str__(with_digest)[:])  # the same characters as a plain string
    assert not has_lost_image("an ordinary text about image_digest")
    assert has_lost_image(f"image_digest: {digest_of(pictures[0])}\n\ntext")


def test_pil_images_are_told_apart() -> None:
    red, blue = (ImageText("", Image.new("RGB", (4, 4), colour)).with_digest() for colour in ("red", "blue"))
    assert str(red) != str(blue)


# -- where LlamaIndex keeps only characters --------------------------------------------------


@pytest.mark.parametrize("text", ["a mug", ""])
def test_str_carries_the_picture_and_so_does_a_copy_of_its_characters(text: str) -> None:
    original = ImageText(text, "leopard.jpg")
    for carried in (str(original), recover_image(", ".join([str(original)]) + "\n")):
        assert isinstance(carried, ImageText)
        assert (carried.text, carried.image) == (text, "leopard.jpg")
    assert str(original) == str(original) != ""


def test_a_picture_alone_is_not_an_empty_string() -> None:
    assert len(ImageText("", "leopard.jpg")) > 0
    assert ImageText("") == ""
    assert ImageText(ImageText("", "leopard.jpg")).text == ""


def test_a_picture_that_is_gone_is_an_error_and_so_are_two() -> None:
    characters = ", ".join([str(ImageText("a mug", "leopard.jpg"))])
    with pytest.raises(ValueError, match=r"picture of this query is gone.*ImageTextQuery"):
        recover_image(characters)
    first, second = ImageText("", "a.png"), ImageText("", "b.png")
    with pytest.raises(ValueError, match="one picture: got references to 2"):
        recover_image(f"{first}, {second}")


def test_what_looks_like_a_reference_is_text() -> None:
    text = "ticket [#0123456789abcdef0123456789abcdef]"
    assert recover_image(text) is text


def test_copies_of_a_picture_alone_outlive_it() -> None:
    original = ImageText("", b"picture")
    twins = [pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)]
    del original
    for twin in twins:
        recovered = recover_image(f"{twin}!")
        assert isinstance(recovered, ImageText)
        assert (recovered.text, recovered.image) == ("!", b"picture")


@pytest.mark.parametrize("text", ["", "a mug", "  \n a mug", "a mug\n[text]", ImageText("a mug")])
def test_a_known_digest_gives_the_same_in_one_step(text: str) -> None:
    digest = "sha256:" + "0" * 64
    plainly = ImageText(text, "mug.png", digest=digest).with_digest()
    at_once = ImageText.of_known_digest(text, "mug.png", digest)
    for each in (plainly, at_once):
        assert each.with_digest() is each
        assert (each.text, each.image, each.expected_digest) == (str.__str__(text), "mug.png", digest)
    assert str.__str__(at_once) == str.__str__(plainly)
    assert pickle.loads(pickle.dumps(at_once)) == plainly
    assert has_lost_image(str.__str__(at_once))  # of a text that exists


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_references_of_a_forked_process_are_none_of_its_parents() -> None:
    script = """
import os
from llama_index_multimodal_rerank.schema.references import new_reference
new_reference()  # many numbers are drawn at a time
read, write = os.pipe()
if not os.fork():
    os.write(write, "".join(new_reference() for _ in range(10)).encode())
    os._exit(0)
theirs = os.read(read, 10000).decode()
ours = [new_reference() for _ in range(10)]
assert len(set(ours)) == 10 and theirs.count("[#") == 10
assert not any(reference in theirs for reference in ours)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
