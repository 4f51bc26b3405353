"""Files of published benchmarks in miniature: every shape in which they are published, one for each yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench_rows import (
    A,
    B,
    Expected,
    Row,
    Sample,
    blink_row,
    controlled,
    cv_bench_row,
    document,
    emb_spatial_row,
    embedded,
    encoded,
    omni3d_row,
    parquet,
    q_spatial_row,
    three_dsr_rows,
    tsv,
)
from question_samples import write_lines, write_pictures


def whatsup(letter: str) -> Callable[[Path], Sample]:
    words, name = (A, "controlled_images") if letter == "a" else (B, "controlled_clevr")
    axis = {"on": "on_under", "under": "on_under", "in-front_of": "front_behind", "behind": "front_behind"}

    def make(folder: Path) -> Sample:
        rows = controlled("beer-bottle", "armchair", words, name) + controlled("mug", "plate", words, name)
        write_pictures(folder, [row["image_path"] for row in rows])
        (folder / "data").mkdir(exist_ok=True)
        expected = []
        for row, kind in zip(rows, [*words, *words], strict=True):
            together = "beer-bottle_armchair" if "mug" not in row["image_path"] else "mug_plate"
            tags = {"set": together, "pair": f"{together}/{axis.get(kind, 'left_right')}"}
            captions = row["caption_options"]
            expected.append(Expected(kind, captions[0], tuple(captions), tags, shuffled=True))
        path = document(folder / "data" / f"{name}_dataset.json", rows)
        return Sample(path, expected, {"images": str(folder)})

    return make


def captions(source: str, rows: list[tuple[int, str, str, str]]) -> Callable[[Path], Sample]:
    """Rows ``[image id, true, false]``; the last entry of each is the kind."""

    def make(folder: Path) -> Sample:
        names = [f"{number:012d}.jpg" if source == "coco" else f"{number}.jpg" for number, *_ in rows]
        images = write_pictures(folder / ("val2017" if source == "coco" else "vg_images"), names)
        path = document(folder / f"{source}_qa.json", [list(row[:3]) for row in rows])
        expected = [Expected(kind, true, (true, false), shuffled=True) for _, true, false, kind in rows]
        return Sample(path, expected, {"images": str(images)})

    return make


def vsr(extra: Row) -> Callable[[Path], Sample]:
    def make(folder: Path) -> Sample:
        write_pictures(folder, ["000000000001.jpg"])
        votes = {"vote_true_validator_id": "[2, 9]", "vote_false_validator_id": "[]", "annotator_id": 27}
        link = {"image": "000000000001.jpg", "image_link": "http://images.cocodataset.org/val2017/000000000001.jpg"}
        said = {"caption": "The cat is inside the box.", "label": 1, "relation": "inside"}
        path = write_lines(
            folder / "test.jsonl", [link | said | votes | extra, link | said | votes | extra | {"label": 0}]
        )
        both = ("true", "false")
        return Sample(path, [Expected("Topological", "true", both), Expected("Topological", "false", both)])

    return make


def vsr_table(folder: Path) -> Sample:
    rows = [
        {"index": n, "image": encoded(), "question": "Is the cat inside the box?", "answer": answer}
        for n, answer in enumerate(("Yes", "No"))
    ]
    both = ("Yes", "No")
    return Sample(
        tsv(folder / "VSR-zeroshot.tsv", rows), [Expected("yes_no", "Yes", both), Expected("yes_no", "No", both)]
    )


def three_dsr(folder: Path) -> Sample:
    variants = ("", "1", "flip", "flip-1")
    expected = [
        Expected(
            "location_closer_to_camera",
            "dog",
            ("cat", "dog") if variant.endswith("1") else ("dog", "cat"),
            {"base": "VIN6MS3J", "variant": variant},
        )
        for variant in variants
    ]
    four = ("front", "left", "back", "right")
    expected.append(Expected("orientation_viewpoint", "right", four, {"base": "0GT8ZK2A", "variant": ""}))
    return Sample(tsv(folder / "3dsrbench_v1_vlmevalkit_circular.tsv", three_dsr_rows()), expected)


def rgpt(folder: Path) -> Sample:
    write_pictures(folder, ["val/1.jpg"])
    row = {
        "id": "quantitative_1",
        "image_info": {"file_path": "val/1.jpg", "height": 48, "width": 64},
        "text_q": "What is the height of Region [0]?",
        "qa_info": {"type": "quantitative", "category": "height_data"},
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is the height of <mask> <depth>?"},
            {"from": "gpt", "value": "Region [0] is 2.00 feet in height."},
        ],
        "bbox": [[1, 2, 30, 40]],
        "rle": [],
    }
    return Sample(
        write_lines(folder / "SpatialRGPT-Bench_v1.jsonl", [row]),
        [Expected("height_data", "Region [0] is 2.00 feet in height.", value=0.6096)],
    )


def q_spatial_plus(folder: Path) -> Sample:
    rows = [q_spatial_row(image=embedded()), q_spatial_row(image=embedded(), answer_value=1.2, answer_unit="meter")]
    parquet(folder / "data" / "QSpatial_plus-00000-of-00001.parquet", rows)
    kind = "horizontal_distance"
    return Sample(str(folder), [Expected(kind, "55 centimeter", value=0.55), Expected(kind, "1.2 meter", value=1.2)])


def q_spatial_scannet(folder: Path) -> Sample:
    images = write_pictures(folder / "scannet", ["scene0015_00/10.jpg"])
    parquet(
        folder / "data" / "QSpatial_scannet-00000-of-00001.parquet", [q_spatial_row(image_path="scene0015_00/10.jpg")]
    )
    expected = [Expected("horizontal_distance", "55 centimeter", value=0.55)]
    return Sample(str(folder), expected, {"images": str(images)})


def cv_bench(folder: Path) -> Sample:
    third = {"type": "3D", "task": "Depth", "source": "Omni3D", "choices": ["lamp", "bed"], "answer": "(A)"}
    two = [cv_bench_row(), cv_bench_row(idx=1, task="Relation", source="COCO", choices=["left", "right"], answer="(B)")]
    parquet(folder / "test_2d.parquet", two)
    parquet(folder / "test_3d.parquet", [cv_bench_row(**third)])
    expected = [
        Expected(task, answer, options, {"source": source, "type": kind, "task": task})
        for kind, task, source, options, answer in (
            ("2D", "Count", "ADE20K", ("3", "2", "1", "0"), "1"),
            ("2D", "Relation", "COCO", ("left", "right"), "right"),
            ("3D", "Depth", "Omni3D", ("lamp", "bed"), "lamp"),
        )
    ]
    return Sample(str(folder / "test_*.parquet"), expected)


def blink(folder: Path) -> Sample:
    views = {"idx": "val_Jigsaw_1", "sub_task": "Jigsaw", "choices": ["the second image", "the third image"]}
    pictures = {"image_2": embedded("2.png"), "image_3": embedded("3.png"), "answer": "(A)"}
    parquet(folder / "Jigsaw" / "val-00000-of-00001.parquet", [blink_row(**views, **pictures)])
    parquet(folder / "Spatial_Relation" / "val-00000-of-00001.parquet", [blink_row()])
    parquet(folder / "Spatial_Relation" / "test-00000-of-00001.parquet", [blink_row(idx="test_1", answer="hidden")])
    expected = [
        Expected("Jigsaw", "the second image", ("the second image", "the third image"), pictures=3),
        Expected("Spatial_Relation", "no", ("yes", "no")),
    ]
    return Sample(str(folder), expected)


DIRECTLY = "Please answer directly with"


def real_world_qa(folder: Path) -> Sample:
    rows = [
        {
            "image": embedded(),
            "question": f"Where is the car facing?\n\nA. Left\nB. Straight\nC. Right\n{DIRECTLY} only the letter.",
            "answer": "C",
        },
        {"image": embedded(), "question": f"Is the light green?\n{DIRECTLY} a single word.", "answer": "Yes"},
        {"image": embedded(), "question": f"How many signs are there?\n{DIRECTLY} a single word.", "answer": "2"},
    ]
    expected = [
        Expected("choice", "Right", ("Left", "Straight", "Right")),
        Expected("yes_no", "Yes", ("Yes", "No")),
        Expected("open", "2"),
    ]
    return Sample(parquet(folder / "test-00000-of-00002.parquet", rows), expected)


def real_world_qa_table(folder: Path) -> Sample:
    rows = [
        {"index": 0, "image": encoded(), "question": "Where is it?", "A": "Left", "B": "Right", "C": "", "answer": "B"},
        {"index": 1, "image": encoded(), "question": "How many?", "A": "1", "B": "2", "C": "3", "answer": "A"},
    ]
    expected = [Expected("choice", "Right", ("Left", "Right")), Expected("choice", "1", ("1", "2", "3"))]
    return Sample(tsv(folder / "RealWorldQA.tsv", rows), expected)


def emb_spatial(folder: Path) -> Sample:
    rows = [emb_spatial_row(), emb_spatial_row(question_id="mp3d_9", answer=2, relation="above")]
    options, tags = ("lamp", "bed", "2", "tv"), {"data_source": "mp3d"}
    expected = [Expected("close", "bed", options, tags), Expected("above", "2", options, tags)]
    return Sample(document(folder / "embspatial_bench.json", rows), expected)


def clevr_humans(folder: Path) -> Sample:
    write_pictures(folder / "images", ["val/CLEVR_val_000000.png"])
    row = {"image_index": 0, "image_filename": "CLEVR_val_000000.png", "split": "val", "question": "Is it red?"}
    path = document(folder / "CLEVR-Humans-val.json", {"questions": [row | {"answer": "yes"}]})
    return Sample(path, [Expected("human", "yes", ("yes", "no"))], {"images": str(folder / "images")})


def gqa(folder: Path) -> Sample:
    write_pictures(folder, ["n161313.jpg"])
    types = {"detailed": "weatherVerifyC", "semantic": "global", "structural": "verify"}
    row = {"question": "Is it overcast?", "imageId": "n161313", "answer": "no", "fullAnswer": "No.", "types": types}
    path = document(folder / "testdev_balanced_questions.json", {"201307251": row})
    return Sample(path, [Expected("global", "no", ("yes", "no"))])


OMNI3D = [
    (omni3d_row(), Expected("yes_no", "yes", ("yes", "no"), {"answer_type": "str"})),
    (omni3d_row(q_index="1", answer="chair"), Expected("multi_choice", "chair", (), {"answer_type": "str"})),
    (omni3d_row(answer="3", answer_type="int"), Expected("numeric_count", "3", (), {"answer_type": "int"})),
    (omni3d_row(answer="1.45", answer_type="float"), Expected("numeric_other", "1.45", (), {"answer_type": "float"})),
]


def omni3d(folder: Path) -> Sample:
    path = parquet(folder / "train-00000-of-00001.parquet", [row for row, _ in OMNI3D])
    return Sample(path, [expected for _, expected in OMNI3D])


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "whatsup_a": whatsup("a"),
    "whatsup_b": whatsup("b"),
    "whatsup_coco_one": captions(
        "coco", [(139, "A photo of a clock on the top", "A photo of a clock on the bottom", "top")]
    ),
    "whatsup_coco_two": captions(
        "coco",
        [
            (139, "A photo of a tv to the left of a chair", "A photo of a tv to the right of a chair", "left"),
            (139, "A photo of a tv above a chair", "A photo of a tv below a chair", "above"),
        ],
    ),
    "whatsup_vg_one": captions("vg", [(2386, "A photo of a dog on the left", "A photo of a dog on the right", "left")]),
    "whatsup_vg_two": captions(
        "vg",
        [
            (2386, "A photo of a cup on top of a table", "A photo of a cup below a table", "top"),
            (713, "A photo of a cup in front of a tv", "A photo of a cup behind a tv", "front"),
        ],
    ),
    "vsr_random": vsr({"reference_frame": None}),
    "vsr_zeroshot": vsr({"subj": "cat", "obj": "box"}),
    "vsr_zeroshot_tsv": vsr_table,
    "three_dsr_bench": three_dsr,
    "rgpt_bench": rgpt,
    "q_spatial_plus": q_spatial_plus,
    "q_spatial_scannet": q_spatial_scannet,
    "cv_bench": cv_bench,
    "blink": blink,
    "real_world_qa": real_world_qa,
    "real_world_qa_tsv": real_world_qa_table,
    "emb_spatial": emb_spatial,
    "clevr_humans": clevr_humans,
    "gqa": gqa,
    "omni3d_bench": omni3d,
}
"""A file in miniature for every yaml of conf/benchmark that reads one."""
