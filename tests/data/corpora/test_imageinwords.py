"""Side-by-side judgements decide which of two descriptions is preferred; ties and missing texts give no pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reading import encode, read, read_row, write_picture

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import ImageInWords
from spatial_lightning.data.corpora.imageinwords import ASPECTS
from spatial_lightning.records import RecordError

METRICS = list(ASPECTS.values())


def reader(**options: Any) -> ImageInWords:
    return ImageInWords(path="unused", **options)


def judged(*judgements: str) -> dict[str, str]:
    row = {"DOCCI": "A cube.", "IIW": "A red cube on a table.", "image": "a"}
    return row | dict(zip(METRICS, judgements, strict=True))


IIW, DOCCI, TIE = "IIW is marginally better", "DOCCI is substantially better", "Neutral"


@pytest.mark.parametrize(
    ("judgements", "chosen"),
    [
        ((IIW, IIW, IIW, DOCCI, DOCCI), "A red cube on a table."),
        ((DOCCI, TIE, TIE, TIE, TIE), "A cube."),
        ((IIW, DOCCI, TIE, TIE, TIE), None),
        ((TIE,) * 5, None),
    ],
)
def test_the_vote_of_five_decides(judgements: tuple[str, ...], chosen: str | None, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    pairs = read_row(reader(), judged(*judgements), tmp_path)
    assert [pair.chosen.text for pair in pairs] == ([] if chosen is None else [chosen])
    assert all(pair.question.text == "Describe this image." and pair.images[0].name == "a.jpg" for pair in pairs)


@pytest.mark.parametrize(("place", "aspect"), list(enumerate(ASPECTS)))
def test_one_aspect_can_decide(place: int, aspect: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    judgements = [DOCCI] * 5
    judgements[place] = IIW
    (pair,) = read_row(reader(aspect=aspect), judged(*judgements), tmp_path)
    assert (pair.chosen.text, pair.rejected.text) == ("A red cube on a table.", "A cube.")


def count(rows: list[dict[str, Any]], aspect: str, key: str | None) -> int:
    """Judgements that are not neutral, counted without the reader."""
    found = [row if key is None else row.get(key) for row in rows]
    return sum(row is not None and row[ASPECTS[aspect]] != "Neutral" for row in found)


@pytest.mark.parametrize(
    ("folder", "key", "image", "pairs"),
    [("DOCCI_Test", None, "image", 97), ("IIW-400", "iiw-human-sxs-iiw-p5b", "image/key", 98)],
)
def test_published_judgements_load_and_encode(
    folder: str, key: str | None, image: str, pairs: int, shared_data: Path, tiny: Backbone, tmp_path: Path
) -> None:
    path = shared_data / "imageinwords" / folder / "data.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        write_picture(tmp_path / "pictures" / f"{row[image]}.jpg")
    for aspect in ASPECTS:
        records = read(ImageInWords(path=str(path), images=str(tmp_path / "pictures"), aspect=aspect), tmp_path)
        assert len(records) == count(rows, aspect, key)
    records = read(ImageInWords(path=str(path), images=str(tmp_path / "pictures")), tmp_path)
    assert len(records) == pairs
    texts = {row[image]: {row["IIW"], row.get("DOCCI", row.get("IIW-P5B"))} for row in rows}
    for record in records:
        assert {record.chosen.text, record.rejected.text} == texts[record.images[0].stem]
    for record in records[:20]:
        assert encode(Encoder(tiny.processor), record).branches == 2


def test_descriptions_that_nobody_compared_give_no_pair(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "imageinwords" / "LocNar_Eval" / "data.jsonl"
    assert read(ImageInWords(path=str(path)), tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({METRICS[0]: "GPT-4V is marginally better"}, "'GPT-4V is marginally better'; allowed: DOCCI is marginally"),
        ({METRICS[0]: "better"}, "Comprehensiveness is 'better'; allowed"),
        ({METRICS[0]: 3}, "Comprehensiveness must be text, got int"),
        ({METRICS[4]: None}, "key 'metrics/Human Like' is missing"),
        ({"IIW": ""}, "IIW is empty"),
        ({"GPT-4V": "A cone."}, "has the descriptions DOCCI, IIW, GPT-4V; a judgement needs exactly two"),
        ({"image": None}, "names no picture; allowed: image or image/key"),
        ({"image": "lost"}, "lost.jpg does not exist"),
        ({"iiw-human-sxs-iiw": "IIW"}, "must be an object with the judgements, got str"),
    ],
)
def test_bad_rows_say_what_is_wrong(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    with pytest.raises(RecordError, match=message):
        read_row(reader(), judged(IIW, IIW, IIW, IIW, IIW) | change, tmp_path)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(RecordError, match="aspect is 'beauty'; allowed: vote, comprehensiveness"):
        reader(aspect="beauty")
