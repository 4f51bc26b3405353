"""Pictures of published rows as files: named, embedded or in an archive, and safe to open."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import urllib.request
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from PIL import Image

from spatial_lightning.records import RecordError

Size = tuple[int, int]

_ENCODED = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0A")
"""How JPEG, PNG, GIF, WebP, BMP and TIFF begin in base64."""
_SHORTEST = 64
_LONGEST = 1024
"""Characters of a name; base64 of a kind that is not known above must not end up in an error message."""
_REMEMBERED = 4096
_MAX_DOWNLOAD = 256 * 2**20
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)


class PictureError(RecordError):
    """A picture that cannot be used.

    Attributes:
        kind: groups errors that differ in the name of the picture only.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@final
class Pictures:
    """Turns what a row says about a picture into a file that was looked at.

    Args:
        root: folder that names are relative to; nothing outside it is opened.
        cache: folder for pictures that come inside rows; each content is written once.
        allow_urls: fetch pictures from http and https addresses.
        max_side: longest side in pixels that is accepted.
        members: pictures in archives by name (:attr:`Rows.members`).
        check: look at each picture; False trusts what an earlier pass has seen.
    """

    def __init__(
        self,
        root: str | Path,
        cache: str | Path,
        *,
        allow_urls: bool = False,
        max_side: int = 20_000,
        members: Mapping[str, Mapping[str, Any]] | None = None,
        check: bool = True,
    ) -> None:
        self.root, self.cache = Path(root), Path(cache)
        self.allow_urls, self.max_side, self.members, self.check = allow_urls, max_side, members or {}, check
        self._inside = self.root.resolve()
        self._sizes: OrderedDict[Path, Size] = OrderedDict()

    def __call__(self, given: Any) -> Path:
        """A file with the picture.

        Args:
            given: a name relative to the root, an absolute path below it, bytes, ``{"bytes": ..., "path": ...}``, base64 with
                or without ``data:`` prefix, a PIL image, a place in an archive, or an address.

        Raises:
            RecordError: missing, empty, no picture, too large, outside the root, or an address that is not allowed.
        """
        path = self._find(given)
        if self.check:
            self.size(path)
        return path

    def size(self, path: Path) -> Size:
        """Height and width in pixels of a picture, from the head of its file; the last few thousand are remembered.

        Raises:
            RecordError: as for the picture itself.
        """
        known = self._sizes.get(path)
        if known is None:
            known = self._sizes[path] = self._look(path)
            if len(self._sizes) > _REMEMBERED:
                self._sizes.popitem(last=False)
        return known

    def _find(self, given: Any) -> Path:
        match given:
            case bytes() | bytearray() | memoryview():
                return self._embedded(bytes(given))
            case Image.Image():
                buffer = io.BytesIO()
                given.save(buffer, "PNG")
                return self._embedded(buffer.getvalue())
            case Path():
                return self._named(str(given))
            case str():
                return self._text(given)
            case Mapping():
                return self._entry(given)
            case _:
                raise PictureError(
                    f"picture is given as {type(given).__name__}; allowed: a name, bytes, base64, a dict with bytes or path",
                    "image given in an unknown form",
                )

    def _text(self, given: str) -> Path:
        if given.startswith("data:"):
            return self._embedded(_decode(given.partition(",")[2]))
        if given.startswith(_ENCODED) and len(given) >= _SHORTEST:
            return self._embedded(_decode(given))
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", given):
            return self._fetched(given)
        return self._named(given)

    def _entry(self, given: Mapping[str, Any]) -> Path:
        if "tar" in given:
            with Path(given["tar"]).open("rb") as file:
                file.seek(given["offset"])
                return self._embedded(file.read(given["size"]))
        if given.get("bytes") is not None:
            return self._find(given["bytes"])
        if isinstance(given.get("path"), str):
            return self._text(given["path"])
        raise PictureError(
            f"picture has the keys {', '.join(map(str, given)) or 'none'}; it needs bytes or path",
            "image given in an unknown form",
        )

    def _named(self, name: str) -> Path:
        if not name.strip() or "\0" in name:
            raise PictureError(f"picture name is {name!r}", "image name is empty")
        if len(name) > _LONGEST:
            raise PictureError(f"picture name has {len(name)} characters: {name[:60]!r}...", "image missing")
        known = self.members.get(name.removeprefix("./"))
        if known is not None:
            return self._entry(known)
        path = self.root / name
        if self.check:
            try:
                inside = path.resolve().is_relative_to(self._inside)
            except (OSError, RuntimeError) as error:
                raise PictureError(f"image {name[:200]!r} cannot be found: {error}", "image missing") from error
            if not inside:
                raise PictureError(
                    f"image {name} leads out of {self.root}: pictures must lie below it; set images to a folder that "
                    "holds them all",
                    "image outside its folder",
                )
        return path

    def _embedded(self, data: bytes) -> Path:
        if not data:
            raise PictureError("picture is empty (0 bytes)", "image empty")
        stem = hashlib.blake2b(data, digest_size=16).hexdigest()
        path = self.cache / stem[:2] / f"{stem}{_suffix(data)}"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
            temporary.write_bytes(data)
            temporary.replace(path)
        return path

    def _fetched(self, url: str) -> Path:
        if not self.allow_urls or not url.startswith(("http://", "https://")):
            raise PictureError(
                f"picture is the address {url}: addresses are not fetched; download it, or allow_urls=true for http and https",
                "image is an address",
            )
        known = self.cache / "urls" / hashlib.blake2b(url.encode(), digest_size=16).hexdigest()
        if not known.is_file():
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    data = answer.read(_MAX_DOWNLOAD + 1)
            except OSError as error:
                raise PictureError(f"picture {url} cannot be fetched: {error}", "image not fetched") from error
            if len(data) > _MAX_DOWNLOAD:
                raise PictureError(f"picture {url} has more than {_MAX_DOWNLOAD} bytes", "image not fetched")
            path = self._embedded(data)
            known.parent.mkdir(parents=True, exist_ok=True)
            temporary = known.with_name(f"{known.name}.{os.getpid()}.part")
            temporary.write_text(str(path.relative_to(self.cache)))
            temporary.replace(known)
        return self.cache / known.read_text()

    def _look(self, path: Path) -> Size:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                if path.stat().st_size == 0:
                    raise PictureError(f"image {path} is empty (0 bytes)", "image empty")
                with Image.open(path) as image:
                    height, width = image.height, image.width
        except PictureError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PictureError(f"image {path} does not exist", "image missing") from error
        except _UNREADABLE as error:
            raise PictureError(f"image {path} cannot be read: {error}", "image unreadable") from error
        if max(height, width) > self.max_side:
            raise PictureError(
                f"image {path} is {width}x{height} pixels; the longest side allowed is {self.max_side}",
                "image too large",
            )
        return height, width


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError(f"picture is not valid base64: {error}", "image unreadable") from error


def _suffix(data: bytes) -> str:
    starts = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp"}
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in starts.items() if data.startswith(start)), ".img")
