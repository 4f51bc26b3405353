"""Rows of published benchmarks one by one: What'sUp's groups, and rows that cannot be read or scored."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench_rows import A as RELATIONS
from bench_rows import (
    blink_row,
    controlled,
    cv_bench_row,
    document,
    emb_spatial_row,
    encoded,
    omni3d_row,
    parquet,
    png,
    q_spatial_row,
    three_dsr_rows,
    tsv,
)
from question_samples import convert, write_pictures

from spatial_lightning.data.corpora import (
    VSR,
    Blink,
    ChoiceTable,
    CorpusReader,
    CVBench,
    EmbSpatial,
    HiddenAnswerError,
    Omni3DBench,
    QSpatial,
    ThreeDSRBench,
    WhatsUp,
)
from spatial_lightning.data.corpora.store import open_store
from spatial_lightning.records import RecordError

# ---------------------------------------------------------------------- What'sUp


def many(count: int) -> list[dict[str, Any]]:
    return [
        row for number in range(count) for row in controlled(f"mug{number}", "plate", RELATIONS, "controlled_images")
    ]


def test_the_true_caption_is_in_every_place_and_order_does_not_depend_on_the_file(tmp_path: Path) -> None:
    rows = many(100)
    write_pictures(tmp_path, [row["image_path"] for row in rows])
    places: Counter[int] = Counter()
    for row in rows:
        question = convert(WhatsUp(path="x"), row, tmp_path).questions[0]
        places[question.options.index(question.answer)] += 1
        first, *others = row["caption_options"]
        again = convert(WhatsUp(path="x"), row | {"caption_options": [first, *reversed(others)]}, tmp_path)
        assert again.questions[0].options == question.options
    # 400 draws from four places: 100 each, standard deviation 8.7.
    assert sorted(places) == [0, 1, 2, 3]
    assert all(60 <= count <= 140 for count in places.values())


def test_four_pictures_are_a_set_of_two_pairs(tmp_path: Path) -> None:
    rows = many(3)
    write_pictures(tmp_path, [row["image_path"] for row in rows])
    tags = [convert(WhatsUp(path="x"), row, tmp_path).questions[0].tags for row in rows]
    assert Counter(tag["set"] for tag in tags) == {f"mug{number}_plate": 4 for number in range(3)}
    assert set(Counter(tag["pair"] for tag in tags).values()) == {2}


def test_rows_of_another_length_are_bad_rows_of_their_own(tmp_path: Path) -> None:
    path = document(tmp_path / "coco_qa_one_obj.json", [[139, "A", "B"], [139, "A"], {"image": 1}])
    good, short, _ = WhatsUp(path=path).rows().scan()
    assert good.row == {"image_id": 139, "correct": "A", "wrong": "B"}
    assert short.row is None
    assert short.error == "a row must have 3 values (image_id, correct, wrong), got 2"


# ---------------------------------------------------------------------- rows that cannot be used

WHATS_UP = many(1)[0]
THREE_DSR = three_dsr_rows()[0]
TABLE = {"index": "7", "image": "", "question": "Which?", "A": "left", "B": "right", "answer": "A"}


@pytest.mark.parametrize(
    ("reader", "row", "renamed", "to"),
    [
        (WhatsUp(path="x"), WHATS_UP, "caption_options", "captions_options"),
        (ThreeDSRBench(path="x"), THREE_DSR, "answer", "answers"),
        (ThreeDSRBench(path="x"), THREE_DSR, "qid", "q_id"),
        (ThreeDSRBench(path="x"), THREE_DSR, "image", "images"),
        (ChoiceTable(path="x"), TABLE, "question", "questions"),
        (ChoiceTable(path="x"), TABLE, "answer", "Answer"),
        (CVBench(path="x"), cv_bench_row(), "source", "source_dataset"),
        (CVBench(path="x"), cv_bench_row(), "choices", "choice"),
        (Blink(path="x"), blink_row(), "image_1", "image1"),
        (QSpatial(path="x"), q_spatial_row(), "answer_unit", "answer_units"),
        (EmbSpatial(path="x"), emb_spatial_row(), "answer_options", "options"),
        (Omni3DBench(path="x"), omni3d_row(), "answer_type", "answer_types"),
        (VSR(path="x"), {"image": "1.jpg", "label": 1, "relation": "inside", "captions": "."}, "", "captions"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CorpusReader) else None,
)
def test_missing_columns_are_named_with_those_there_and_the_closest(
    tmp_path: Path, reader: CorpusReader[Any], row: dict[str, Any], renamed: str, to: str
) -> None:
    row = {to if key == renamed else key: value for key, value in row.items()}
    if isinstance(reader, ThreeDSRBench) and renamed == "qid":
        row.pop("index")
    wanted = renamed or "caption"
    with pytest.raises(RecordError) as caught:
        convert(reader, row, write_pictures(tmp_path, ["data/controlled_images/mug0_left_of_plate.jpeg", "1.png"]))
    said = str(caught.value)
    assert f"key {wanted!r} is missing; the row has {', '.join(row)}" in said
    assert said.endswith(f"; the closest name is {to!r}")


@pytest.mark.parametrize(
    ("reader", "row", "problem"),
    [
        (ThreeDSRBench(path="x"), THREE_DSR | {"answer": "C"}, "answer is 'C'; allowed: A to B"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"answer": "dogs"}, "answer is 'dogs'; allowed: A to B"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"qid": "VIN6MS3J-flop"}, "qid is 'VIN6MS3J-flop'; allowed: 8 characters"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"A": ""}, "options are given under B; allowed: two or more from A on"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"B": "", "C": "x"}, "options are given under A, C"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"A": "", "B": "nan"}, "no options under A, B"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"image": ""}, "picture name is ''"),
        (ThreeDSRBench(path="x"), THREE_DSR | {"image": "", "image_url": "https://x.org/1.jpg"}, "addresses are not fetched"),
        (CVBench(path="x"), cv_bench_row(answer="(E)"), "answer is '(E)'; allowed: A to D"),
        (CVBench(path="x"), cv_bench_row(choices=["3"]), "a choice needs two options or more"),
        (CVBench(path="x"), cv_bench_row(image={"bytes": b"", "path": None}), "picture is empty (0 bytes)"),
        (CVBench(path="x"), cv_bench_row(image={"bytes": png()[:40], "path": None}), "cannot be read"),
        (Blink(path="x"), blink_row(answer="(C)"), "answer is '(C)'; allowed: A to B"),
        (Blink(path="x"), blink_row(image_1=None), "key 'image_1' is missing"),
        (EmbSpatial(path="x"), emb_spatial_row(answer=4), "answer is '4'; allowed: 0 to 3"),
        (EmbSpatial(path="x"), emb_spatial_row(answer=-1), "answer is '-1'; allowed: 0 to 3"),
        (EmbSpatial(path="x"), emb_spatial_row(answer="B"), "answer is 'B'; allowed: 0 to 3"),
        (EmbSpatial(path="x"), emb_spatial_row(image=""), "picture name is ''"),
        (QSpatial(path="x"), q_spatial_row(image_path="1.png", answer_unit="parsec"), "'parsec' is not a known length"),
        (QSpatial(path="x"), q_spatial_row(image_path="1.png", answer_value=0), "must be a length above 0"),
        (QSpatial(path="x"), q_spatial_row(image_path="1.png", answer_value="wide"), "answer is 'wide' centimeter"),
        (Omni3DBench(path="x"), omni3d_row(answer_type="bool"), "answer_type is 'bool'; allowed: int, float, str"),
        (Omni3DBench(path="x"), omni3d_row(answer_type="float"), "answer is 'yes'; answer_type float needs a number"),
        (WhatsUp(path="x"), WHATS_UP | {"image_path": "mug_near_plate.jpeg"}, "picture is called 'mug_near_plate'"),
        (WhatsUp(path="x"), WHATS_UP | {"caption_options": ["a", "b", "b", "c"]}, "captions repeat"),
        (ChoiceTable(path="x"), TABLE | {"image": encoded()[:90]}, "picture is not valid base64"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_say_why(
    tmp_path: Path, reader: CorpusReader[Any], row: dict[str, Any], problem: str
) -> None:
    write_pictures(tmp_path, ["1.png"])
    with pytest.raises(RecordError) as caught:
        convert(reader, row, tmp_path)
    assert problem in str(caught.value)
    assert not isinstance(caught.value, HiddenAnswerError)


@pytest.mark.parametrize(
    ("reader", "row"),
    [
        (Blink(path="x"), blink_row(answer="hidden")),
        (Blink(path="x"), blink_row(answer=None)),
        (ThreeDSRBench(path="x"), THREE_DSR | {"answer": ""}),
        (ChoiceTable(path="x"), TABLE | {"answer": "nan"}),
        (EmbSpatial(path="x"), emb_spatial_row(answer=float("nan"))),
    ],
)
def test_hidden_answers_are_told_apart(tmp_path: Path, reader: CorpusReader[Any], row: dict[str, Any]) -> None:
    with pytest.raises(HiddenAnswerError, match="not published, so that the question cannot be scored"):
        convert(reader, row, tmp_path)


def test_hidden_answers_and_repeated_ids_are_counted_in_words(tmp_path: Path) -> None:
    rows = [blink_row(idx=f"val_{n}", answer="(A)" if n < 2 else "hidden") for n in range(5)]
    path = parquet(tmp_path / "rows.parquet", [*rows, blink_row(idx="val_1", answer="(A)")])
    store = open_store(Blink(path=path), tmp_path / "cache", max_bad_fraction=0.9, group=False)
    assert len(store) == 1 + 1
    assert store.bad.reasons == {"answer not published": 3, "duplicate id": 1}
    with pytest.raises(RecordError, match="is not published, so that the question cannot be scored"):
        open_store(Blink(path=path), tmp_path / "other", max_bad_fraction=0.0, group=False)


def test_a_table_of_several_pictures_and_of_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["1.png", "2.png"])
    named = {key: value for key, value in TABLE.items() if key != "image"}
    path = tsv(tmp_path / "rows.tsv", [named | {"image_path": "['1.png', '2.png']", "category": "views"}])
    (at,) = ChoiceTable(path=path).rows().scan()
    assert at.row is not None
    record = convert(ChoiceTable(path=path), at.row, tmp_path)
    assert record.images == (tmp_path / "1.png", tmp_path / "2.png")
    assert (record.id, record.questions[0].kind, record.questions[0].answer) == ("7", "views", "left")


@pytest.mark.parametrize("form", ["object", "one line", "array", "lines"])
def test_omni3d_rows_are_found_in_every_form_of_the_file(tmp_path: Path, form: str) -> None:
    rows = [omni3d_row(question=f"How many? {n}", image="a.png") for n in range(3)]
    document = {
        "object": json.dumps({"questions": rows}, indent=1),
        "one line": json.dumps({"questions": rows}),
        "array": json.dumps(rows),
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
    }
    path = tmp_path / ("rows.jsonl" if form == "lines" else "annotations.json")
    path.write_text(document[form])
    found = [at.row for at in Omni3DBench(path=str(path)).rows().scan()]
    assert [row and row["question"] for row in found] == ["How many? 0", "How many? 1", "How many? 2"]
