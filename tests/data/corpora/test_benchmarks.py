"""Readers of published benchmarks: every yaml reads its published shapes, and rows that cannot be scored say why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from bench_rows import (
    Sample,
)
from bench_samples import SAMPLES
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from question_samples import assert_answers_score, pictures_of, questions_of, write_pictures

from spatial_lightning.data import corpora
from spatial_lightning.data.corpora import (
    Blink,
    CorpusReader,
    Pictures,
    RGPTBench,
)
from spatial_lightning.data.corpora.validate import records_of
from spatial_lightning.records import ImageQuestions, Question
from spatial_lightning.runs.benchmarks import Benchmark
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import compose_run

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "benchmark"
CONFIGS: dict[str, Any] = {path.stem: OmegaConf.load(path) for path in sorted(FOLDER.glob("*.yaml"))}
READ = [name for name, config in CONFIGS.items() if config.get("reader") is not None]
LISTED_IN_TEXT = ("real_world_qa",)
"""Benchmarks whose question texts list the options themselves."""


def reader_of(name: str, **settings: Any) -> CorpusReader[Any]:
    """The reader of a benchmark's yaml with other settings."""
    built = instantiate(OmegaConf.merge(CONFIGS[name].reader, settings), _convert_="all")
    assert isinstance(built, CorpusReader)
    return built


def read_sample(name: str, folder: Path) -> tuple[Sample, list[ImageQuestions], list[Question]]:
    sample = SAMPLES[name](folder)
    reader = reader_of(name, path=sample.path, **sample.settings)
    rows = reader.rows()
    pictures = Pictures(rows.root if reader.images is None else reader.images, folder / "cache")
    records = [record for at in rows.scan() for record in records_of(reader, rows, at, pictures)]
    return sample, records, questions_of(records)


def test_every_benchmark_with_a_reader_has_a_sample() -> None:
    assert len(READ) >= 20
    assert set(SAMPLES) == set(READ)


@pytest.mark.parametrize("name", READ)
def test_configs_say_every_setting(name: str) -> None:
    config = CONFIGS[name]
    head, comment, *_ = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert head == "# @package benchmark"
    assert comment.startswith("# ")
    assert set(config) == {"_target_", "name", "reader", "protocol", "rows", "digest", "prompt"}
    assert config.name == name
    assert "{question}" in config.prompt
    assert OmegaConf.is_missing(config.reader, "path")
    reader: Any = get_class(config.reader._target_)
    assert issubclass(reader, CorpusReader)
    assert reader.__name__ in corpora.__all__
    assert {key for key in config.reader if key != "_target_"} == {field.name for field in fields(reader)}


@pytest.mark.parametrize("name", READ)
def test_evaluate_composes_and_opens_each(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name](tmp_path)
    settings = {"path": sample.path, **sample.settings}
    given = [f"benchmark.reader.{key}={json.dumps(value)}" for key, value in settings.items()]
    config = compose_run([f"benchmark={name}", *given], "evaluate")
    benchmark = build(config.benchmark)
    assert isinstance(benchmark, Benchmark)
    opened = benchmark.open(tmp_path / "cache", max_bad_fraction=0.0, say=lambda _: None)
    assert len(opened.asked) == opened.version["rows"] == len(sample.questions)
    published = CONFIGS[name].rows
    warned = any(f"the published file of {name} has {published}" in warning for warning in opened.version["warnings"])
    assert warned == (published is not None)
    for _, question in opened.asked:
        put = benchmark.put(question).text
        assert question.text in put
        assert "{" not in put.replace("\\scalar{", "").replace("\\distance_unit{", "")
        if "{options}" in config.benchmark.prompt and question.options:
            assert "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", question.options, strict=False)) in put


@pytest.mark.parametrize("name", READ)
def test_protocols_can_judge_what_readers_read(tmp_path: Path, name: str) -> None:
    built = instantiate(OmegaConf.merge(CONFIGS[name], {"reader": {"path": "somewhere"}}), _convert_="all")
    assert built.name == name
    _, _, questions = read_sample(name, tmp_path)
    built.protocol.check(questions)
    right = [built.protocol.score(question, question.answer) for question in questions]
    figures = built.protocol.figures(questions, right)
    assert next(iter(figures.values())) == 1.0
    wrong = built.protocol.figures(questions, [built.protocol.score(question, "") for question in questions])
    assert next(iter(wrong.values())) == 0.0
    assert figures.keys() >= {f"{group}_accuracy" for group in CONFIGS[name].protocol.get("groups", ())}


@pytest.mark.parametrize("name", READ)
def test_published_rows_become_questions(tmp_path: Path, name: str) -> None:
    sample, records, questions = read_sample(name, tmp_path)
    assert len({record.id for record in records}) == len(records) == len(sample.questions)
    for record, question, wanted in zip(records, questions, sample.questions, strict=True):
        assert question.id == record.id
        assert (question.kind, question.answer, dict(question.tags)) == (wanted.kind, wanted.answer, dict(wanted.tags))
        assert question.value == (None if wanted.value is None else pytest.approx(wanted.value))
        assert len(record.images) == wanted.pictures
        if wanted.shuffled:
            assert Counter(question.options) == Counter(wanted.options)
        else:
            assert question.options == wanted.options
    assert_answers_score(question for question in questions if question.options or question.value is not None)


@pytest.mark.parametrize("name", READ)
def test_options_reach_the_model_exactly_once(tmp_path: Path, name: str) -> None:
    """Options are put in by the prompt, unless the question lists them; yes, no, true and false need no list."""
    _, _, questions = read_sample(name, tmp_path)
    for question in questions:
        if {option.lower() for option in question.options} & {"yes", "no", "true"} or not question.options:
            continue
        listed = all(option in question.text for option in question.options)
        assert ("{options}" in CONFIGS[name].prompt) != (name in LISTED_IN_TEXT), question
        if name in LISTED_IN_TEXT:
            assert listed
        else:
            assert not all(f". {option}" in question.text for option in question.options)


# ---------------------------------------------------------------------- real rows


def published(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def blink_rows(folder: Path) -> list[dict[str, Any]]:
    rows = published(folder, "blink_answers/questions.jsonl")
    own = ({"choices": row["options"], "answer": row["gold"], "image_1": "p.jpg"} for row in rows)
    return [row | more for row, more in zip(rows, own, strict=True)]


def flat_rgpt_rows(folder: Path) -> list[dict[str, Any]]:
    return published(folder, "spatialrgpt_bench/questions.jsonl")


REAL: list[tuple[CorpusReader[Any], Callable[[Path], list[dict[str, Any]]], str, int]] = [
    (Blink(path="x"), blink_rows, "sub_task", 417),
    (RGPTBench(path="x", regions="names", picture_name="p.jpg"), flat_rgpt_rows, "qa_category", 948),
]


@pytest.mark.parametrize(("reader", "rows_of", "kind", "count"), REAL)
def test_every_real_row_becomes_a_question(
    shared_data: Path,
    tmp_path: Path,
    reader: CorpusReader[Any],
    rows_of: Callable[[Path], list[dict[str, Any]]],
    kind: str,
    count: int,
) -> None:
    rows, pictures = rows_of(shared_data), pictures_of(write_pictures(tmp_path, ["p.jpg"]))
    questions = questions_of(record for row in rows for record in reader.records(row, "row", pictures))
    assert len({question.id for question in questions}) == len(questions) == count
    assert [question.kind for question in questions] == [row[kind] for row in rows]
    assert_answers_score(question for question in questions if question.options or question.value is not None)


@pytest.mark.parametrize(
    ("name", "file", "count", "names"),
    [
        ("vsr_random", "vsr/splits/random/dev.jsonl", 1097, lambda row: row["image"]),
        ("vsr_zeroshot", "vsr/splits/zeroshot/dev.jsonl", 340, lambda row: row["image"]),
        ("gqa", "gqa_testdev/testdev_balanced_questions.json", 500, lambda row: f"{row['imageId']}.jpg"),
    ],
)
def test_real_files_read_as_their_yaml_says(
    shared_data: Path, tmp_path: Path, name: str, file: str, count: int, names: Callable[[Any], str]
) -> None:
    reader = reader_of(name, path=str(shared_data / file), images=str(tmp_path))
    rows = [at.row for at in reader.rows().scan() if at.row is not None]
    pictures = pictures_of(write_pictures(tmp_path, map(names, rows)))
    records = [record for number, row in enumerate(rows) for record in reader.records(row, str(number), pictures)]
    assert len(records) == len({question.id for question in questions_of(records)}) == count
