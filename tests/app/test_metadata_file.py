"""A table of what is known of the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_multimodal_rerank.app.metadata_file import MetadataFileError, read_metadata_file

CSV = """\
file,title,price,sku,sold
a.png,"A mug, red",5,0012,true
sub/b.png,,4.5,,
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text(CSV, encoding=encoding)
    table = read_metadata_file(tmp_path / "t.csv")
    assert table.rows == {
        "a.png": {"title": "A mug, red", "price": 5, "sku": "0012", "sold": "true"},
        "sub/b.png": {"price": 4.5},
    }
    assert table.of(tmp_path / "sub" / "b.png", tmp_path) == {"price": 4.5}
    assert table.of(tmp_path / "c.png", tmp_path) == {}


def test_a_line_ends_where_csv_says_so(tmp_path: Path) -> None:
    titles = ["one\u2028two", "one\x0btwo", "one\x0ctwo", "one\x85two", "one\x1etwo"]
    lines = [f"{place}.png,{title},{place}" for place, title in enumerate(titles)]
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "t.csv").write_bytes(end.join(["file,title,price", *lines, ""]).encode())
        rows = read_metadata_file(tmp_path / "t.csv").rows
        assert rows == {f"{n}.png": {"title": title, "price": n} for n, title in enumerate(titles)}


def test_json_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"file": "./a.png", "tags": ["x"], "sold": true}\n\n')
    assert read_metadata_file(tmp_path / "t.jsonl").rows == {"a.png": {"tags": ["x"], "sold": True}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"name,price\na.png,3\n", "line 2: each line needs 'file'.*there are: name, price"),
        ("t.csv", b"file;price\na.png;3\n", "line 2: each line needs 'file'.*there are: file;price"),
        ("t.csv", b"file,price\n", "has no line with a picture"),
        ("t.csv", b"", "has no line with a picture"),
        ("t.jsonl", b"\n", "has no line with a picture"),
        ("t.csv", b"file\n/srv/a.png\n", "line 2: '/srv/a.png' is no path from the folder on"),
        (
            "t.jsonl",
            b'{"file": "x/../../a.png"}\n',
            r"line 1: 'x/\.\./\.\./a.png' is no path from the folder",
        ),
        ("t.csv", b"file,price\na.png,3,4\n", "line 2: there are more cells than names"),
        ("t.csv", b"file\na.png\na.png\n", "line 3: 'a.png' is there already"),
        ("t.csv", b'file\n"a.png\n', "line 1: unexpected end of data"),
        ("t.csv", b"file\n\xff\n", "is not in UTF-8"),
        ("t.jsonl", b'{"file": "a.png"}\n[1]\n', "line 2: a JSON object is expected"),
        ("t.jsonl", b"{\n", "line 1: no JSON"),
        ("t.jsonl", b'{"file": 3}\n', "line 1: each line needs 'file'"),
        ("t.txt", b"", "must end in .csv or .jsonl"),
    ],
)
def test_what_is_no_such_table_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MetadataFileError, match=said):
        read_metadata_file(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_metadata_file(tmp_path / "t.csv")
