"""folders.py: folders with good and bad files."""

from __future__ import annotations

import doctest
import logging
import os
import shutil
from pathlib import Path

import pytest
from support.drawing import bomb, draw_picture

from llama_index_multimodal_rerank import ImageLoadError, load_image_nodes
from llama_index_multimodal_rerank.data import folders
from llama_index_multimodal_rerank.images.sources import ImageNotFoundError


def test_folder_is_searched_recursively_in_sorted_order(pictures: list[Path]) -> None:
    root = pictures[0].parent
    (root / "sub").mkdir()
    shutil.copy(pictures[0], root / "sub" / "deep.JPG")
    (root / "notes.txt").write_text("x")
    (root / "._hidden.png").write_bytes(b"x")
    nodes = load_image_nodes(root)
    names = [node.metadata["file_name"] for node in nodes]
    assert names == [f"picture-{i}.png" for i in range(6)] + ["deep.JPG"]
    assert [Path(path).name for path, _ in nodes.skipped] == ["notes.txt"]
    assert len(load_image_nodes(root, recursive=False)) == 6
    assert len(load_image_nodes(root, glob="picture-[12].*")) == 2


def test_files_keep_their_order_and_doubles_come_once(pictures: list[Path]) -> None:
    nodes = load_image_nodes([pictures[3], str(pictures[1]), pictures[3]])
    assert [node.image_path for node in nodes] == [str(pictures[3]), str(pictures[1])]
    assert len(load_image_nodes(pictures[2])) == 1


def test_metadata_and_text_of_each_file(pictures: list[Path]) -> None:
    nodes = load_image_nodes(
        pictures[:2], metadata=lambda path: {"stem": path.stem}, text=lambda path: f"caption of {path.name}"
    )
    assert [node.metadata["stem"] for node in nodes] == ["picture-0", "picture-1"]
    assert nodes[1].text == "caption of picture-1.png"
    assert load_image_nodes(pictures[0], metadata={"k": 1})[0].metadata["k"] == 1


def test_the_example_runs() -> None:
    found = doctest.testmod(folders)
    assert found.attempted >= 9
    assert found.failed == 0


def test_missing_folder_and_bad_option(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_image_nodes(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'raise' or 'skip', got 'ignore'"):
        load_image_nodes(tmp_path, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ImageNotFoundError):
        load_image_nodes([tmp_path / "nowhere.png"])


def make_bad_files(folder: Path) -> dict[str, str]:
    """Write 20 files that are no pictures; return name -> part of the reason."""
    good = folder / "good-000.png"
    bad: dict[str, str] = {}
    for i in range(4):
        (folder / f"bad-truncated-{i}.png").write_bytes(good.read_bytes()[: 200 + i])
        bad[f"bad-truncated-{i}.png"] = "damaged or cut short"
        (folder / f"bad-empty-{i}.jpg").touch()
        bad[f"bad-empty-{i}.jpg"] = "0 bytes"
        (folder / f"bad-text-{i}.png").write_text("hello" * (i + 1))
        bad[f"bad-text-{i}.png"] = "not a picture in a known format"
        (folder / f"bad-bomb-{i}.png").write_bytes(bomb(100_000, 1_000 + i))
        bad[f"bad-bomb-{i}.png"] = "more than the limit"
    for i in range(2):
        (folder / f"bad-link-{i}.png").symlink_to(folder / "nowhere.png")
        bad[f"bad-link-{i}.png"] = "no such file"
        os.mkfifo(folder / f"bad-pipe-{i}.png")
        bad[f"bad-pipe-{i}.png"] = "not a regular file"
    return bad


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_200_good_and_20_bad_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(200):
        draw_picture(i, (32, 24)).save(tmp_path / f"good-{i:03}.png")
    bad = make_bad_files(tmp_path)
    assert len(bad) == 20
    with caplog.at_level(logging.WARNING):
        nodes = load_image_nodes(tmp_path, on_error="skip")
    assert [node.metadata["file_name"] for node in nodes] == [f"good-{i:03}.png" for i in range(200)]
    reasons = {Path(path).name: reason for path, reason in nodes.skipped}
    assert reasons.keys() == bad.keys()
    for name, part in bad.items():
        assert part in reasons[name], name
        assert name in caplog.text
    with pytest.raises(ImageLoadError, match="bad-"):
        load_image_nodes(tmp_path)
