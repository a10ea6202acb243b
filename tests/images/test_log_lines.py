"""File names, ids and file contents that others chose cannot forge a line of a log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from llama_index.core.schema import ImageNode, NodeWithScore
from support.drawing import draw_picture

from llama_index_multimodal_rerank import ImageLoadError, load_image, load_image_nodes
from llama_index_multimodal_rerank.images.sources import describe_source
from llama_index_multimodal_rerank.logs import escape_control
from llama_index_multimodal_rerank.reranking.candidates import Candidate, Candidates

FORGED = "a\nINFO:root:all is well\r\x1b[2K\x85\u2028\u202e\udcff.png"
LINE_ENDS = ("\n", "\r", "\x1b", "\x85", "\u2028", "\u202e", "\udcff", "\0")


def read_candidates(nodes: list[NodeWithScore]) -> list[Candidate]:
    return Candidates(nodes).show(range(len(nodes)), str)


def is_one_line(text: str) -> bool:
    return text.isprintable() and not any(end in text for end in LINE_ENDS)


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    path = tmp_path / FORGED
    path.write_bytes(b"not a picture")
    return path


def test_skipped_files(forged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_picture(0).save(tmp_path / "good.png")
    nodes = load_image_nodes(tmp_path, on_error="skip")
    assert [skipped.path for skipped in nodes.skipped] == [str(forged)]  # data, not text
    assert len(caplog.messages) == 1
    assert is_one_line(caplog.messages[0])
    assert r"a\nINFO:root:all is well\r\x1b" in caplog.messages[0]


def test_candidates_that_cannot_be_read(forged: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    node = ImageNode(id_=FORGED, image_path=str(forged))
    (candidate,) = read_candidates([NodeWithScore(node=node, score=1.0)])
    assert candidate.problem is not None
    assert len(caplog.messages) == 1
    assert is_one_line(caplog.messages[0])


def test_errors_quote_names_and_contents_in_one_line(forged: Path, tmp_path: Path) -> None:
    for source in (forged, str(forged), tmp_path / ("missing " + FORGED), f"{tmp_path}\0{FORGED}"):
        with pytest.raises(ImageLoadError) as raised:
            load_image(source)
        assert is_one_line(str(raised.value))
        assert is_one_line(describe_source(source))
    with pytest.raises(ImageLoadError) as raised:
        load_image(b"P6 \x1b[2Kxxxxxxxxxxx\x85 1 255\n")  # quoted by the decoder
    assert is_one_line(str(raised.value))
    error = ImageLoadError("a.png", "the server says\nINFO:root:all is well")
    assert str(error) == r"cannot read the picture a.png: the server says\nINFO:root:all is well"


def test_what_prints_stays_as_it_is() -> None:
    assert escape_control("Füße 漢字 \U0001f600 \\n") == "Füße 漢字 \U0001f600 \\n"
