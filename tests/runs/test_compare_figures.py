"""What a comparison says beyond accuracy: format failures, a benchmark's own figures, warnings, tests, names of groups."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from comparable import asked, write_failed, write_run

from spatial_lightning.runs.comparing import Comparing, compare_runs
from spatial_lightning.runs.comparing.conclusions import conclude
from spatial_lightning.runs.comparing.grouping import Section, make_sections
from spatial_lightning.runs.comparing.naming import group_names
from spatial_lightning.runs.comparing.outcomes import Sureness, outcomes
from spatial_lightning.runs.comparing.reading import Run, read_run
from spatial_lightning.runs.config import ConfigError

SURE = Sureness(resamples=100)


def _compare(tmp_path: Path, given: list[Path], **settings: Any) -> tuple[Path, str]:
    """The comparison's directory, and what was printed."""
    said: list[str] = []
    names = [str(path) for path in given]
    chosen = Comparing(**{"runs": names, "to": str(tmp_path / "comparison"), "resamples": 100} | settings)
    return compare_runs(chosen, say=said.append), "\n".join(said)


def _section(paths: list[Path]) -> Section:
    (section,) = make_sections([run for run in map(read_run, paths) if isinstance(run, Run)])
    return section


def _said(paths: list[Path]) -> str:
    section = _section(paths)
    baseline = section.groups[0]
    return "\n".join(conclude(section, outcomes(section, baseline, SURE), baseline, "as asked", SURE))


def _rows(to: Path) -> dict[str, dict[str, str]]:
    with (to / "groups.csv").open(newline="") as file:
        return {row["group"]: row for row in csv.DictReader(file)}


def _tables(markdown: str) -> list[dict[str, dict[str, str]]]:
    """Tables of a markdown text: cells by the name of the row and that of the column."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        found.append({row[0]: dict(zip(head, row, strict=True)) for row in rows})
    return found


def _restate(run: Path, **facts: Any) -> None:
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


# ---------------------------------------------------------------------- format failures


def test_the_share_of_unreadable_answers_is_counted_and_said_where_it_differs(tmp_path: Path) -> None:
    """Number 0 asks for yes or no: a readable wrong answer is no format failure, words that answer nothing are."""
    questions = asked(tmp_path / "pictures")
    paths = [
        write_run(tmp_path / "a", questions, [], experiment="a", answers={0: "no"}),
        write_run(tmp_path / "b0", questions, range(6), experiment="b", seed=0),
        write_run(tmp_path / "b1", questions, range(12), experiment="b", seed=1),
        write_run(tmp_path / "c", questions, [1], experiment="c"),
    ]
    to, _ = _compare(tmp_path, paths, baseline="a")
    text = (to / "comparison.md").read_text()
    assert {name: row["unreadable %"] for name, row in _tables(text)[0].items()} == {
        "a": "0.0",
        "b": "30.0",
        "c": "3.3",
    }
    shares = {name: float(row["unreadable"]) for name, row in _rows(to).items()}
    assert shares == pytest.approx({"a": 0, "b": 0.3, "c": 1 / 30})
    assert "Of its answers 30.0 % could not be read, of those of a 0.0 %; format failures are counted as wrong." in text
    assert text.count("format failures are counted as wrong") == 1
    page = (to / "report.html").read_text()
    assert "unreadable %" in page
    assert "Of its answers 30.0 % could not be read" in page


def test_a_run_that_did_not_save_what_could_be_read_has_no_share(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", asked(tmp_path / "pictures"), [0])
    path = run / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "parsed"}) + "\n" for row in rows))
    to, _ = _compare(tmp_path, [run])
    assert _rows(to)["sft"]["unreadable"] == ""
    assert "unreadable %" not in (to / "comparison.md").read_text()


# ---------------------------------------------------------------------- figures of the benchmark


def test_figures_of_the_benchmark_are_means_over_runs_with_the_headline_first(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures")
    stated = {
        "a": [{"pair_accuracy": 0.2, "accuracy": 0.9, "width_abs_rel": 1.5}, {"pair_accuracy": 0.3, "accuracy": 1.0}],
        "b": [{"pair_accuracy": 0.5, "accuracy": 0.8, "width_abs_rel": 0.25}],
    }
    paths = [
        write_run(tmp_path / f"{name}{seed}", questions, [], experiment=name, seed=seed, benchmark="x", figures=own)
        for name, runs in stated.items()
        for seed, own in enumerate(runs)
    ]
    to, printed = _compare(tmp_path, paths)
    # One run of group a does not state the last figure, so there is no mean of it over the group's runs.
    wanted = {
        "a": {"group": "a", "pair_accuracy %": "25.0", "accuracy %": "95.0", "width_abs_rel": "-"},
        "b": {"group": "b", "pair_accuracy %": "50.0", "accuracy %": "80.0", "width_abs_rel": "0.250"},
    }
    text = (to / "comparison.md").read_text()
    for place in (text, printed):
        (table,) = [table for table in _tables(place) if "pair_accuracy %" in table["a"]]
        assert table == wanted
        assert list(table["a"])[1] == "pair_accuracy %"
        assert "No interval or test was made of them" in place
    page = (to / "report.html").read_text()
    assert "<h3>Figures of the benchmark</h3>" in page
    assert '<td data-sort="50.0">50.0</td>' in page
    assert {name: row["figures.width_abs_rel"] for name, row in _rows(to).items()} == {"a": "", "b": "0.25"}
    assert float(_rows(to)["a"]["figures.pair_accuracy"]) == pytest.approx(0.25)


@pytest.mark.parametrize("figures", [None, {}, {"accuracy": 1.0}])
def test_without_figures_beside_accuracy_there_is_no_second_table(
    tmp_path: Path, figures: dict[str, float] | None
) -> None:
    run = write_run(tmp_path / "run", asked(tmp_path / "pictures"), [], figures=figures)
    to, printed = _compare(tmp_path, [run])
    for text in ((to / "comparison.md").read_text(), (to / "report.html").read_text(), printed):
        assert "Figures of the benchmark" not in text


# ---------------------------------------------------------------------- warnings


def test_warnings_of_runs_are_listed_once_with_the_run(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures")
    version = {"warnings": ["9 rows, the published file of x has 10: compare with care"], "left out: no picture": 4}
    first, second = (
        write_run(tmp_path / str(seed), questions, [], seed=seed, benchmark="x", benchmark_version=version)
        for seed in range(2)
    )
    _restate(second, unused={"the benchmark has no such id": 2, "twice": 0})
    to, printed = _compare(tmp_path, [first, second])
    lines = [
        f"{first} and 1 other run: 9 rows, the published file of x has 10: compare with care.",
        f"{first} and 1 other run: left out: no picture: 4.",
        f"{second}: not used: the benchmark has no such id: 2.",
    ]
    for text in ((to / "comparison.md").read_text(), (to / "report.html").read_text(), printed):
        assert [text.count(line) for line in lines] == [1, 1, 1]
        assert "twice" not in text


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"seed": "first"}, "has seed 'first', which is no whole number, so seed 0 is assumed"),
        ({"seed": 1.5}, "has seed 1.5, which is no whole number"),
        ({"metrics": {}}, "summary.json states no accuracy"),
        ({"metrics": None}, "summary.json states no accuracy"),
    ],
)
def test_what_had_to_be_assumed_is_noted(tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    run = write_run(tmp_path / "run", asked(tmp_path / "pictures"), [])
    assert not _section([run]).warnings
    _restate(run, **facts)
    (warning,) = _section([run]).warnings
    assert said in warning
    assert str(run) in warning


def test_curves_that_are_missing_are_noted_of_training_runs_only(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures")
    runs = [write_run(tmp_path / str(seed), questions, [], seed=seed) for seed in range(3)]
    for run in runs:
        (run / "metrics.csv").unlink()
    assert _section(runs).warnings == (
        f"{runs[0]} and 2 other runs: metrics.csv is missing, so its curves are not drawn.",
    )
    for run in runs:
        _restate(run, benchmark="x")
    assert not _section(runs).warnings


# ---------------------------------------------------------------------- tests behind p-values


@pytest.mark.parametrize(
    ("seeds", "said", "unsaid"),
    [
        (([0], [0]), "P-values with fewer than 3 seeds a side are of an exact sign-flip test over pictures", "t-test"),
        (
            ([0, 1, 2], [0, 1, 2]),
            "the larger of two: of a paired t-test over seeds, and of an exact sign-flip",
            "Welch",
        ),
        (([0, 1, 2], [3, 4, 5]), "the larger of two: of a Welch's t-test over seeds", "paired"),
    ],
)
def test_the_test_behind_a_p_value_is_named(
    tmp_path: Path, seeds: tuple[list[int], list[int]], said: str, unsaid: str
) -> None:
    questions = asked(tmp_path / "pictures")
    paths = [
        write_run(tmp_path / f"{name}{seed}", questions, range(3 * wrong, 3 * wrong + 5), experiment=name, seed=seed)
        for wrong, (name, own) in enumerate(zip("ab", seeds, strict=True))
        for seed in own
    ]
    text = _said(paths)
    assert said in text
    assert unsaid not in text


def test_single_runs_with_a_question_a_picture_are_compared_by_mcnemars_test(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures")[::3]
    paths = [write_run(tmp_path / name, questions, w, experiment=name) for name, w in (("a", [0, 1, 2]), ("b", []))]
    assert "are of McNemar's exact test over the questions." in _said(paths)
    section = _section(paths)
    (difference,) = (own.difference for own in outcomes(section, section.groups[0], SURE) if own.difference)
    # Three questions changed, all in one direction: 2 * (1/2)^3.
    assert difference.compared.p_value == pytest.approx(0.25)
    assert "P-values" not in _said(paths[:1])


# ---------------------------------------------------------------------- baseline and names


def test_a_run_directory_stands_for_its_group_as_baseline(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures")
    paths = [write_run(tmp_path / f"{lr}", questions, [], settings={"optimization.lr": lr}) for lr in (1e-3, 1e-4)]
    failed = write_failed(tmp_path / "failed", "ValueError: too bad\n")
    to, _ = _compare(tmp_path, [*paths, failed], baseline=f"{paths[0]}/")
    assert "Differences are to sft (lr=0.001), as asked." in (to / "comparison.md").read_text()
    with pytest.raises(ConfigError, match="failed cannot be compared: failed: ValueError: too bad"):
        _compare(tmp_path, [*paths, failed], baseline=str(failed))
    with pytest.raises(ConfigError, match="is no group, experiment or directory of these runs"):
        _compare(tmp_path, [*paths, failed], baseline=str(tmp_path / "pictures"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([{"beta": "-"}, {"beta": "0.1"}], ["x", "x (beta=0.1)"]),
        ([{"model": "Backbone", "lr": "1"}, {"model": "-", "lr": "2"}], ["x (lr=1)", "x (lr=2)"]),
        ([{"model": "Backbone"}, {"model": "-"}], ["x (model=Backbone)", "x"]),
        ([{"model": "One"}, {"model": "Two"}], ["x (model=One)", "x (model=Two)"]),
        (
            [{"model": "One", "lr": "1"}, {"model": "One", "lr": "2"}, {"model": "Two", "lr": "1"}],
            ["x (model=One, lr=1)", "x (model=One, lr=2)", "x (model=Two, lr=1)"],
        ),
        ([{"lr": "1", "beta": "1"}, {"lr": "2", "beta": "1"}], ["x (lr=1)", "x (lr=2)"]),
        ([{"beta": "[1, …"}, {"beta": "[1, …"}], ["x #1", "x #2"]),
    ],
)
def test_class_names_and_missing_values_are_named_only_where_nothing_else_tells(
    values: list[dict[str, str]], named: list[str]
) -> None:
    assert group_names(["x"] * len(values), values, {"model"}) == named
    # Groups of other experiments change nothing about these names.
    assert group_names(["y", *["x"] * len(values)], [values[0], *values], {"model"}) == ["y", *named]


def test_a_class_that_one_group_lacks_does_not_name_the_other(tmp_path: Path) -> None:
    """Answers of a model and answers from a file: the file tells them apart, not that the one has a backbone."""
    questions = asked(tmp_path / "pictures")
    model = {"backbone._target_": "spatial_lightning.backbones.Backbone", "backbone.dtype": "bfloat16"}
    paths = [
        write_run(tmp_path / "model", questions, [], settings=model),
        write_run(tmp_path / "file", questions, [], settings={"predictions": "answers.jsonl"}),
    ]
    assert [group.name for group in _section(paths).groups] == ["sft", "sft (predictions=answers.jsonl)"]
