"""Pictures of rows: found in whatever form they are given, and never opened where they are dangerous."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.rows import open_rows
from spatial_lightning.records import RecordError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with one picture in a sub-folder, and one picture beside the root."""
    (tmp_path / "root" / "sub").mkdir(parents=True)
    Image.new("RGB", (30, 20), (200, 10, 10)).save(tmp_path / "root" / "sub" / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    return tmp_path


@pytest.fixture
def find(folder: Path) -> Pictures:
    return Pictures(folder / "root", folder / "cache")


def test_names_and_paths_below_the_root_are_taken_as_they_are(folder: Path, find: Pictures) -> None:
    path = folder / "root" / "sub" / "a.png"
    for given in ("sub/a.png", "./sub/a.png", Path("sub/a.png"), str(path), path, {"path": "sub/a.png", "bytes": None}):
        assert find(given).samefile(path)
    assert find.size(path) == (20, 30)
    assert not (folder / "cache").exists()


def test_embedded_pictures_are_written_once_whatever_form_they_have(folder: Path, find: Pictures) -> None:
    data = (folder / "root" / "sub" / "a.png").read_bytes()
    text = base64.b64encode(data).decode()
    given: list[Any] = [data, bytearray(data), {"bytes": data, "path": "x"}, text, f"data:image/png;base64,{text}"]
    given += [{"bytes": text}, text[:40] + "\n" + text[40:]]
    assert {find(form).read_bytes() for form in given} == {data}
    assert len({find(form) for form in given}) == 1
    assert [path.suffix for path in (folder / "cache").rglob("*.*")] == [".png"]
    with Image.open(io.BytesIO(data)) as image:
        assert find.size(find(image)) == (20, 30)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
    assert find(base64.b64encode(buffer.getvalue()).decode()).suffix == ".jpg"


def test_pictures_in_archives_are_read_by_their_place(folder: Path) -> None:
    data = (folder / "root" / "sub" / "a.png").read_bytes()
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, content in (("rows.jsonl", b'{"image": "p/a.png"}\n'), ("p/a.png", data)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rows = open_rows(folder / "a.tar")
    find = Pictures(rows.root, folder / "cache", members=rows.members)
    assert find(rows.get(0)["image"]).read_bytes() == data


def noisy(path: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(path)


def test_dangerous_and_broken_pictures_are_refused_in_words(folder: Path, find: Pictures) -> None:
    root = folder / "root"
    (root / "zero.png").write_bytes(b"")
    (root / "text.png").write_text("not a picture")
    (root / "cut.png").write_bytes((root / "sub" / "a.png").read_bytes()[:20])
    noisy(root / "wide.png", (20_001, 1))
    noisy(root / "fits.png", (20_000, 1))
    noisy(root / "bomb.png", (16_000, 16_000))
    (root / "out.png").symlink_to(folder / "outside.png")
    (root / "in.png").symlink_to(root / "sub" / "a.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    cases: list[tuple[Any, str, str]] = [
        ("lost.png", "does not exist", "image missing"),
        ("sub/a.png/b.png", "does not exist", "image missing"),
        ("zero.png", "is empty (0 bytes)", "image empty"),
        (b"", "is empty (0 bytes)", "image empty"),
        ("text.png", "cannot be read", "image unreadable"),
        ("cut.png", "cannot be read", "image unreadable"),
        ("sub", "cannot be read", "image unreadable"),
        ("wide.png", "20001x1 pixels; the longest side allowed is 20000", "image too large"),
        ("bomb.png", "decompression bomb", "image unreadable"),
        ("../outside.png", "leads out of", "image outside its folder"),
        (str(folder / "outside.png"), "leads out of", "image outside its folder"),
        ("out.png", "leads out of", "image outside its folder"),
        ("/etc/passwd", "leads out of", "image outside its folder"),
        ("loop.png", "", "image missing"),
        ("x" * 5000, "name has 5000 characters", "image missing"),
        ("", "name is ''", "image name is empty"),
        ("a\0b", "name is", "image name is empty"),
        ("http://example.org/a.png", "allow_urls=true", "image is an address"),
        ("file:///etc/passwd", "addresses are not fetched", "image is an address"),
        ("data:image/png;base64,@@@@", "not valid base64", "image unreadable"),
        (b"some bytes", "cannot be read", "image unreadable"),
        (5, "given as int", "image given in an unknown form"),
        (None, "given as NoneType", "image given in an unknown form"),
        ({"url": "x"}, "needs bytes or path", "image given in an unknown form"),
    ]
    for given, words, kind in cases:
        with pytest.raises(RecordError) as caught:
            find(given)
        assert words in str(caught.value), given
        assert len(str(caught.value)) < 600
        assert getattr(caught.value, "kind", "") == kind, given
    assert find("fits.png") == root / "fits.png"
    assert find("in.png") == root / "in.png"


def test_a_root_that_is_itself_a_link_is_no_way_out(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "root")
    assert Pictures(folder / "link", folder / "cache")("sub/a.png") == folder / "link" / "sub" / "a.png"
    with pytest.raises(RecordError, match="leads out of"):
        Pictures(folder / "link", folder / "cache")("../outside.png")


def test_addresses_of_other_kinds_are_refused_even_where_some_are_allowed(folder: Path) -> None:
    find = Pictures(folder / "root", folder / "cache", allow_urls=True)
    with pytest.raises(RecordError, match="addresses are not fetched"):
        find("ftp://example.org/a.png")
    with pytest.raises(RecordError, match="cannot be fetched"):
        find("http://127.0.0.1:9/a.png")


def test_trusted_pictures_are_not_looked_at_again(folder: Path) -> None:
    trusting = Pictures(folder / "root", folder / "cache", check=False)
    assert trusting("lost.png") == folder / "root" / "lost.png"
