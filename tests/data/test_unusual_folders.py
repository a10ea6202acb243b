"""What folders hold besides good pictures under usual names: each is loaded or named, none is passed over."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features
from support.drawing import draw_picture, encoded

from llama_index_multimodal_rerank import ImageLoadError, load_image, load_image_nodes
from llama_index_multimodal_rerank.data.folders import IMAGE_SUFFIXES, ImageNodeList
from llama_index_multimodal_rerank.images.decoding import IMAGE_FORMATS
from llama_index_multimodal_rerank.images.heif import is_heif
from llama_index_multimodal_rerank.images.sources import begins_as_picture

FTYP_HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(64)
FTYP_MOV = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(64)
FTYP_MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(64)


def png(seed: int = 1) -> bytes:
    return encoded(draw_picture(seed))


def names(nodes: ImageNodeList) -> list[str]:
    return [node.metadata["file_name"] for node in nodes]


def reasons(nodes: ImageNodeList) -> dict[str, str]:
    return {Path(path).name: reason for path, reason in nodes.skipped}


# -- told by content --------------------------------------------------------------------------


def test_what_decodes_is_loaded_whatever_its_name(tmp_path: Path) -> None:
    picture = draw_picture(1)
    grey = picture.convert("L")
    files = {
        **{f"a{ending}": encoded(picture, "JPEG") for ending in (".jfif", ".pjpeg", ".pjp", ".JFIF")},
        "b.mpo": encoded(picture, "MPO", save_all=True, append_images=[draw_picture(2)]),
        "c.apng": encoded(picture, save_all=True, append_images=[draw_picture(2)]),
        "d.pgm": encoded(grey, "PPM"),
        "d.pbm": encoded(grey.convert("1"), "PPM"),
        "d.pnm": encoded(picture, "PPM"),
        "no ending": png(),
        "wrong.txt": encoded(picture, "WEBP"),
        "download.jpg?width=300": encoded(picture, "GIF"),
        "scan.000": encoded(picture, "TIFF"),
        "bitmap": encoded(picture, "BMP"),
        "photo.jpg.orig": encoded(picture, "JPEG"),
    }
    if features.check("avif"):
        files["e.avifs"] = encoded(picture, "AVIF", save_all=True, append_images=[draw_picture(2)])
        files["e"] = encoded(picture, "AVIF")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    nodes = load_image_nodes(tmp_path)
    assert names(nodes) == sorted(files)
    assert nodes.skipped == []


def test_jpeg_2000_is_loaded_or_named(tmp_path: Path) -> None:
    data = encoded(draw_picture(1), "JPEG2000")
    for name in ("a.j2k", "a.jpx", "a.jpf", "a"):
        (tmp_path / name).write_bytes(data)
    nodes = load_image_nodes(tmp_path, on_error="skip")
    assert sorted([*names(nodes), *reasons(nodes)]) == ["a", "a.j2k", "a.jpf", "a.jpx"]
    assert bool(nodes) == ("JPEG2000" in IMAGE_FORMATS)
    assert all("format" in reason for reason in reasons(nodes).values())


def test_every_ending_of_the_formats_says_picture() -> None:
    by_pillow = {
        ending for ending, format_ in Image.registered_extensions().items() if format_ in IMAGE_FORMATS
    }
    assert by_pillow - IMAGE_SUFFIXES == set()


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (FTYP_HEIC, True),
        (FTYP_MOV, False),
        (FTYP_MP4, False),
        (b"P6\n64 48\n255\n", True),
        (b"P5\n# made by hand\n1 1\n255\n\0", True),
        (b"P4 is a pentium", False),
        (b"Py3 needs this", False),
        (b"PP1", False),
        (b"BMW and others are cars, and BM ", False),
        (b"RIFF\x24\0\0\0WAVEfmt ", False),
        (b"II is a number", False),
        (b"", False),
    ],
)
def test_first_bytes(start: bytes, expected: bool) -> None:
    assert begins_as_picture(start[:32]) is expected


# -- no pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_what_is_no_picture_is_listed_and_stops_nothing(
    tmp_path: Path, on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    others = {
        "README.txt": b"P5 are pictures, this is none",
        "IMG_0001.MOV": FTYP_MOV,
        "IMG_0001.AAE": b"<?xml version='1.0'?>",
        "photo.png.json": b"{}",
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "empty": b"",
    }
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "photo.png").write_bytes(png())
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    asked: list[str] = []

    def metadata(path: Path) -> dict[str, str]:
        asked.append(path.name)
        return {}

    with caplog.at_level(logging.WARNING):
        nodes = load_image_nodes(tmp_path, on_error=on_error, metadata=metadata)
    assert names(nodes) == asked == ["photo.png"]
    assert list(reasons(nodes)) == sorted(others)
    assert {reason[:13] for reason in reasons(nodes).values()} == {"not a picture"}
    assert caplog.text == ""


def test_a_film_larger_than_any_picture_is_no_error(tmp_path: Path) -> None:
    with (tmp_path / "film.mov").open("wb") as file:
        file.write(FTYP_MOV)
        file.truncate(200 * 1024 * 1024)  # sparse
    assert reasons(load_image_nodes(tmp_path))["film.mov"].startswith("not a picture")


@pytest.mark.parametrize("name", ["broken.jfif", "broken", "broken.txt"])
def test_a_broken_picture_is_an_error_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(png()[:200])
    with pytest.raises(ImageLoadError, match="damaged or cut short"):
        load_image_nodes(tmp_path)
    assert "damaged or cut short" in reasons(load_image_nodes(tmp_path, on_error="skip"))[name]


def test_files_given_one_by_one_all_count_as_pictures(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("hello")
    for source in (tmp_path / "README.txt", [tmp_path / "README.txt"]):
        with pytest.raises(ImageLoadError, match="not a picture in a known format"):
            load_image_nodes(source)


# -- HEIC -------------------------------------------------------------------------------------


def test_heic_is_named_where_it_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "IMG_0001.HEIC").write_bytes(FTYP_HEIC)
    (tmp_path / "IMG_0002").write_bytes(FTYP_HEIC.replace(b"ftypheic", b"ftypmif1"))
    nodes = load_image_nodes(tmp_path, on_error="skip")
    assert list(reasons(nodes)) == ["IMG_0001.HEIC", "IMG_0002"]
    assert all("needs pillow-heif" in reason for reason in reasons(nodes).values())
    with pytest.raises(ImageLoadError, match="needs pillow-heif: pip install pillow-heif"):
        load_image_nodes(tmp_path)
    with pytest.raises(ImageLoadError, match="needs pillow-heif"):
        load_image(FTYP_HEIC)


def test_heic_is_read_with_pillow_heif(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()  # which can write it, too
    picture = draw_picture(1)
    data = encoded(picture, "HEIF", quality=95)
    (tmp_path / "IMG_0001.HEIC").write_bytes(data)
    (tmp_path / "IMG_0002").write_bytes(data.replace(b"ftypheic", b"ftypmif1"))
    (tmp_path / "IMG_0003.HEIC").write_bytes(data[: len(data) // 2])
    nodes = load_image_nodes(tmp_path, on_error="skip")
    assert names(nodes) == ["IMG_0001.HEIC", "IMG_0002"]
    assert nodes[0].metadata["file_type"] in ("image/heic", "image/heif")
    assert (nodes[0].metadata["image_width"], nodes[0].metadata["image_height"]) == (64, 48)
    assert "damaged or cut short" in reasons(nodes)["IMG_0003.HEIC"]
    read = load_image(tmp_path / "IMG_0001.HEIC").convert("RGB").resize((1, 1), Image.Resampling.BOX)
    mean = picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert read.getpixel((0, 0)) == pytest.approx(mean, abs=6)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_not_taken_for_its_relative() -> None:
    data = encoded(draw_picture(1), "AVIF")
    assert load_image(data.replace(b"ftypavif", b"ftypmif1")).size == (64, 48)
    assert not is_heif(data)


# -- hidden -----------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for folder in (".Trash-1000/files", ".thumbnails", "a/.ipynb_checkpoints", "a/.hidden/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.png").write_bytes(png())
    (tmp_path / "a" / "._x.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "a" / "x.png").write_bytes(png())
    for glob in (None, "*.png", "**/*.png", "a/*.png"):
        nodes = load_image_nodes(tmp_path, glob=glob)
        assert [node.image_path for node in nodes] == [str(tmp_path / "a" / "x.png")], glob
        assert nodes.skipped == [], glob
    assert len(load_image_nodes(tmp_path, glob=".thumbnails/*.png")) == 1
    assert len(load_image_nodes(tmp_path / "a" / ".hidden")) == 1  # asked for by name


def test_globs(tmp_path: Path) -> None:
    for name in ("1.png", "2024/2.png", "2024/may/3.png", "2023/may/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())

    def found(glob: str, recursive: bool) -> str:
        return "".join(name[0] for name in names(load_image_nodes(tmp_path, glob=glob, recursive=recursive)))

    assert found("*.png", True) == "1423"  # sorted by path
    assert found("*.png", False) == "1"
    assert found("2024/*", True) == "2"
    assert found("2024/*", False) == "2"
    assert found("2024/**/*.png", False) == "23"
    assert found("may/*", True) == "43"
    assert found("may/*", False) == ""
    assert found("**", True) == "1423"
    assert found("[12].p?g", True) == "12"
    for bad in ("", "/etc/*", "../*.png", "a/../../*"):
        with pytest.raises(ValueError, match="glob must be a pattern below the folder"):
            load_image_nodes(tmp_path, glob=bad)


# -- what cannot be read ----------------------------------------------------------------------


@pytest.fixture
def unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A subfolder that cannot be listed, by whatever user the tests run."""
    folder = tmp_path / "m" / "private"
    folder.mkdir(parents=True)
    scan = os.scandir

    def scandir(path: Any = ".") -> Any:
        if os.fspath(path) == str(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (tmp_path / "m" / "a.png").write_bytes(png())
    return folder


@pytest.mark.parametrize("glob", [None, "*.png"])
def test_folders_that_cannot_be_listed_are_named(
    unreadable: Path, tmp_path: Path, glob: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = load_image_nodes(tmp_path, on_error="skip", glob=glob)
    assert names(nodes) == ["a.png"]
    assert nodes.skipped == [(str(unreadable), "the folder cannot be listed (Permission denied)")]
    assert "private" in caplog.text
    with pytest.raises(ImageLoadError, match=r"private': the folder cannot be listed"):
        load_image_nodes(tmp_path, glob=glob)
    assert len(load_image_nodes(tmp_path / "m", recursive=False)) == 1  # not looked into
    assert load_image_nodes(unreadable, on_error="skip").skipped == nodes.skipped


def as_nobody(act: Callable[[], str]) -> str:
    """Return what ``act`` says in a child process that has no more rights than anybody."""
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            said = act()
        except BaseException as error:
            said = f"raised {error!r}"
        os.write(start, said.encode())
        os._exit(0)
    os.close(start)
    with os.fdopen(end, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_links_into_unreadable_folders() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own are private
        Path(place).chmod(0o755)
        private, album = Path(place, "private"), Path(place, "album")
        private.mkdir()
        album.mkdir()
        (private / "secret.png").write_bytes(png())
        (album / "a.png").write_bytes(png())
        (album / "link.png").symlink_to(private / "secret.png")
        (album / "link").symlink_to(private / "folder")
        assert len(load_image_nodes(album, on_error="skip")) == 2  # and all that is imported late is there
        private.chmod(0)
        try:
            said = as_nobody(lambda: repr(load_image_nodes(album, on_error="skip").skipped))
            assert said.count("Permission denied") == 2, said
            said = as_nobody(lambda: repr(load_image_nodes(album)))
            assert said.startswith("raised ImageLoadError"), said
            said = as_nobody(lambda: repr(load_image_nodes(private / "secret.png", on_error="skip").skipped))
            assert "Permission denied" in said, said
        finally:
            private.chmod(0o755)


def test_links_in_circles(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(png())
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    nodes = load_image_nodes(tmp_path, on_error="skip")
    assert names(nodes) == ["a.png"]
    assert list(reasons(nodes)) == ["self", "up"]
    assert "leads to itself" in reasons(nodes)["self"]
    assert reasons(nodes)["up"] == "a link to a folder, which is not followed"
    assert len(load_image_nodes(tmp_path / "sub")) == 1  # a link to a folder is no error
    assert len(load_image_nodes(tmp_path / "sub" / "up" / "sub")) == 1  # asked for by name


def test_a_path_longer_than_the_system_takes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=here)
            inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    (tmp_path / "a.png").write_bytes(png())
    nodes = load_image_nodes(tmp_path, on_error="skip")
    assert names(nodes) == ["a.png"]
    ((_, reason),) = nodes.skipped
    assert reason == "the folder cannot be listed (File name too long)"


@pytest.mark.skipif(sys.platform == "darwin", reason="file names there are always UTF-8")
@pytest.mark.parametrize("raw", [b"caf\xe9.png", b"caf\xe9", b"d\xe9/a.png"])
def test_names_that_are_not_utf_8(tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / os.fsdecode(raw)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png())
    (tmp_path / "b.png").write_bytes(png(2))
    for source in (tmp_path, [tmp_path / "b.png", str(path)]):
        nodes = load_image_nodes(source, on_error="skip")
        assert names(nodes) == ["b.png"]
        assert nodes.skipped == [(str(path), "its name is not UTF-8; rename it")]
        assert Path(nodes.skipped[0].path).exists()
        with pytest.raises(ImageLoadError, match=r"\\udce9.*not UTF-8") as raised:
            load_image_nodes(source)
        str(raised.value).encode()
    caplog.text.encode()  # log lines can be written


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_file_that_vanishes_after_it_was_listed(pictures: list[Path], on_error: Any) -> None:
    def metadata(path: Path) -> dict[str, int]:
        if path == pictures[2]:
            path.unlink()
        if path == pictures[4]:
            path.unlink()
            return {}  # and only the picture is missed
        return {"size": path.stat().st_size}

    if on_error == "raise":
        with pytest.raises(ImageLoadError, match=r"picture-[24].png.*no such file"):
            load_image_nodes(pictures[0].parent, metadata=metadata)
    else:
        nodes = load_image_nodes(pictures[0].parent, metadata=metadata, on_error=on_error)
        assert len(nodes) == 4
        assert nodes.skipped == [(str(pictures[2]), "no such file"), (str(pictures[4]), "no such file")]


def test_errors_of_the_callers_functions_are_the_callers(pictures: list[Path]) -> None:
    def metadata(path: Path) -> dict[str, str]:
        return {"sidecar": path.with_suffix(".json").read_text()}

    with pytest.raises(FileNotFoundError, match=r"\.json"):
        load_image_nodes(pictures[0].parent, metadata=metadata, on_error="skip")


# -- what is said -----------------------------------------------------------------------------


def test_an_empty_result_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".hidden.png").write_bytes(png())
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    assert load_image_nodes(tmp_path) == []
    assert "No picture was found. 2 files and folders were looked at" in caplog.text
    caplog.clear()
    assert load_image_nodes([]) == []
    assert "0 files" in caplog.text
    caplog.clear()
    (tmp_path / "c.png").write_bytes(png())
    load_image_nodes(tmp_path)
    assert caplog.text == ""


def test_names_cannot_forge_lines_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a\nWARNING root: all is well\x1b[2K.png").write_bytes(b"x")
    (tmp_path / "b\r\x85\u2028.txt").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        nodes = load_image_nodes(tmp_path, on_error="skip")
    assert len(nodes.skipped) == 2
    lines = caplog.text.rstrip("\n")
    assert len(lines.splitlines()) == 3
    assert all(letter.isprintable() for letter in lines.replace("\n", ""))


def test_a_user_without_a_home_folder_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_image_nodes("~no-such-user-here/photos")
    with pytest.raises(ImageLoadError, match="no such file"):
        load_image_nodes(["~no-such-user-here/a.png"])
    assert load_image_nodes(["a\0.png"], on_error="skip").skipped[0].reason
    with pytest.raises(ImageLoadError, match="null"):
        load_image_nodes("a\0.png")
