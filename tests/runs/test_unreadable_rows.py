"""Comparisons of runs some of whose saved answers cannot be read: the rest is compared, and what is left out is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparable import asked, write_run

from spatial_lightning.runs.comparing import Comparing, compare_runs
from spatial_lightning.runs.comparing.grouping import Section, make_sections
from spatial_lightning.runs.comparing.reading import Run, read_run


def _damage(run: Path, *numbers: int) -> None:
    path = run / "samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line[:40] if number in numbers else line}\n" for number, line in enumerate(lines)))


def _sections(*paths: Path) -> list[Section]:
    runs = [read_run(path) for path in paths]
    assert all(isinstance(run, Run) for run in runs)
    return make_sections([run for run in runs if isinstance(run, Run)])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    questions = asked(tmp_path / "pictures")
    first = write_run(tmp_path / "first", questions, range(12), experiment="sft")
    return first, write_run(tmp_path / "second", questions, range(6), experiment="dpo")


def test_one_unreadable_row_leaves_one_question_out(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _damage(pair[0], 4)
    (section,) = _sections(*pair)
    assert len(section.questions) == 29
    assert {group.name: int(group.right.sum()) for group in section.groups} == {"sft": 18, "dpo": 24}
    assert section.group("dpo").right.shape == (1, 29)
    said = [warning for warning in section.warnings if "left out" in warning or "cannot be read" in warning]
    assert said[0].startswith("1 of the questions asked is left out")
    assert f"{pair[0] / 'samples.jsonl'}:5: not a row of answers" in said[1]
    to = compare_runs(
        Comparing(runs=[str(path) for path in pair], to=str(tmp_path / "to"), resamples=50), lambda text: None
    )
    text = (to / "comparison.md").read_text()
    assert "different sets of questions" not in text
    assert "29 questions" in text
    assert "1 of the questions asked is left out" in text


def test_rows_unreadable_in_several_runs_leave_out_what_not_all_have(pair: tuple[Path, Path]) -> None:
    _damage(pair[0], 4)
    _damage(pair[1], 7, 8)
    (section,) = _sections(*pair)
    assert len(section.questions) == 27
    assert any(warning.startswith("3 of the questions asked are left out") for warning in section.warnings)
    assert [list(own.questions) for own in _sections(*reversed(pair))] == [list(section.questions)]


def test_an_answer_that_was_not_judged_is_left_out_as_well(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[3]["correct"]["after"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (section,) = _sections(*pair)
    assert len(section.questions) == 29


def test_a_run_that_was_asked_something_else_stays_apart(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """An unreadable row excuses one question that is missing, and none that the others do not have."""
    other = write_run(tmp_path / "other", asked(tmp_path / "pictures", 9), [], experiment="other")
    _damage(other, 4)
    assert [len(section.questions) for section in _sections(*pair, other)] == [30, 26]


def test_a_run_that_is_mostly_unreadable_does_not_take_the_questions_of_the_others(pair: tuple[Path, Path]) -> None:
    _damage(pair[0], *range(20))
    assert sorted(len(section.questions) for section in _sections(*pair)) == [10, 30]
