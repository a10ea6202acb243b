"""docs/upstream.md lists what we override or read inside other packages: files and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import llama_index_multimodal_rerank

PACKAGE = Path(llama_index_multimodal_rerank.__file__).parent
REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "upstream.md"


def rows() -> list[list[str]]:
    lines = re.findall(r"^\| (?!what \|)(?!---)(.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split(" | ") for line in lines]


def test_every_row_names_a_file_and_a_test_that_exist() -> None:
    assert len(rows()) > 12
    for row in rows():
        assert len(row) == 4, row
        places, tests = (re.findall(r"`([\w/]+\.py)`", row[column]) for column in (1, 3))
        assert places, row
        assert tests, row
        for place in places:
            assert (PACKAGE / place).is_file(), place
        for test in tests:
            assert (REPOSITORY / test).is_file(), test
