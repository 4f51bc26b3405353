"""Pictures with nothing but a name on them, in place of missing ones: to try a benchmark whose pictures are elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from spatial_lightning.data.corpora.pictures import PictureError, Pictures

NOTE = "pictures are placeholders: the figures say nothing about vision"
_SIDE = 112


class Placeholders:
    """Finds pictures as :class:`Pictures` does, and draws one where there is none.

    Args:
        pictures: looks first.
        folder: where drawn pictures are kept.
    """

    def __init__(self, pictures: Pictures, folder: Path) -> None:
        self.pictures, self.folder = pictures, folder
        self.drawn: set[str] = set()

    def __call__(self, given: Any) -> Path:
        """A file with the picture, or with its name."""
        try:
            return self.pictures(given)
        except PictureError as error:
            if error.kind != "image missing" or not isinstance(given, str | Path):
                raise
        return self._draw(str(given))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pictures, name)

    def _draw(self, name: str) -> Path:
        self.drawn.add(name)
        path = self.folder / f"{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.png"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            picture = Image.new("RGB", (_SIDE, _SIDE), "gray")
            ImageDraw.Draw(picture).multiline_text((4, 4), f"placeholder\n{name[-18:]}", fill="white")
            temporary = path.with_suffix(".part")
            picture.save(temporary, "PNG")
            temporary.replace(path)
        return path
