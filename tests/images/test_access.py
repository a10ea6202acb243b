"""access.py: one value says what may be read, and one visit of a file is enough."""

from __future__ import annotations

import base64
import builtins
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_picture, encoded

from llama_index_multimodal_rerank import ImageLoadError, image_node
from llama_index_multimodal_rerank.images.access import DEFAULT_ACCESS, ImageAccess


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that Python opens, as they come."""
    names: list[str] = []

    def noting(function: Any) -> Any:
        def call(file: Any, *args: Any, **kwargs: Any) -> Any:
            names.append(str(file))
            return function(file, *args, **kwargs)

        return call

    monkeypatch.setattr(builtins, "open", noting(builtins.open))
    monkeypatch.setattr(io, "open", noting(io.open))
    monkeypatch.setattr(os, "open", noting(os.open))
    return names


def visits(opened: list[str], path: Path) -> int:
    return sum(Path(name).name == path.name for name in opened)


def test_check_finds_everything_in_one_visit(pictures: list[Path], opened: list[str]) -> None:
    data, info, digest = ImageAccess().check(pictures[0])
    assert visits(opened, pictures[0]) == 1
    assert data == pictures[0].read_bytes()
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert info == (64, 48, "image/png")


def test_making_a_node_visits_its_file_once(pictures: list[Path], opened: list[str]) -> None:
    image_node(pictures[0], data_root=pictures[0].parent)
    assert visits(opened, pictures[0]) == 1


def test_read_gives_the_bytes_as_they_are_and_those_of_pillow_images_as_png() -> None:
    data = encoded(draw_picture(1), "JPEG")
    assert ImageAccess().read(data) == data
    assert ImageAccess().read(base64.b64encode(data).decode()) == data
    png = ImageAccess().read(draw_picture(1))
    assert png.startswith(b"\x89PNG")
    assert ImageAccess().load(png).tobytes() == draw_picture(1).tobytes()


@pytest.mark.parametrize("method", ["read", "load", "check", "digest"])
def test_every_method_keeps_to_folder_and_limit(pictures: list[Path], tmp_path: Path, method: str) -> None:
    for access in (ImageAccess(data_root=tmp_path / "elsewhere"), ImageAccess(max_bytes=10)):
        with pytest.raises(ImageLoadError, match=r"outside of data_root=|more than the limit of 10"):
            getattr(access, method)(pictures[0])
        getattr(DEFAULT_ACCESS, method)(pictures[0])


@pytest.mark.parametrize("method", ["load", "check"])
def test_pixels_are_limited(pictures: list[Path], method: str) -> None:
    for source in (pictures[0], draw_picture(0)):
        with pytest.raises(ImageLoadError, match="64 x 48 = 3072 pixels, more than the limit of 3071"):
            getattr(ImageAccess(max_pixels=64 * 48 - 1), method)(source)
        getattr(ImageAccess(max_pixels=64 * 48), method)(source)


@pytest.mark.parametrize("method", ["read", "load", "check"])
def test_urls_are_fetched_only_where_allowed(method: str) -> None:
    with pytest.raises(ImageLoadError, match="unless allow_urls=True"):
        getattr(ImageAccess(), method)("https://127.0.0.1:9/a.png")
    with pytest.raises(ImageLoadError, match="not a public address"):
        getattr(ImageAccess(allow_urls=True), method)("https://127.0.0.1:9/a.png")


def test_the_digest_of_a_url_covers_its_address_and_fetches_nothing() -> None:
    url = "https://127.0.0.1:9/a.png"
    assert ImageAccess().digest(url) == "sha256:" + hashlib.sha256(url.encode()).hexdigest()


def test_a_changed_file_is_refused(pictures: list[Path]) -> None:
    access = ImageAccess()
    digest = access.digest(pictures[0])
    assert access.load(pictures[0], expected_digest=digest).size == (64, 48)
    pictures[0].write_bytes(pictures[1].read_bytes())
    with pytest.raises(ImageLoadError, match="changed since its node was made"):
        access.load(pictures[0], expected_digest=digest)


def test_it_is_a_value() -> None:
    hosts = ["pictures.example"]
    access = ImageAccess(allow_urls=hosts, data_root="photos")
    assert access == ImageAccess(allow_urls=("pictures.example",), data_root="photos")
    assert len({access, ImageAccess(hosts, "photos"), ImageAccess()}) == 2
    hosts.append("elsewhere.example")
    assert access.allow_urls == ("pictures.example",)
    with pytest.raises(AttributeError):
        access.data_root = None  # type: ignore[misc]
