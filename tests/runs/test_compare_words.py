"""What compare.py refuses before it compares anything: levels that are none, and several comparisons at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from comparable import asked, write_run

from spatial_lightning.runs.comparing import Comparing, compare_runs
from spatial_lightning.runs.config import ConfigError, compose_run
from spatial_lightning.runs.entry import compare_main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", asked(tmp_path / "pictures", 2), [])


@pytest.mark.parametrize(
    ("argument", "code", "words"),
    [
        ("level=abc", 2, "error: level=abc: that key takes a number"),
        ("samples=many", 2, "error: samples=many: that key takes a whole number"),
        ("level=1.5", 1, "error: level is 1.5; it is the confidence of the intervals: allowed are numbers above 0"),
        ("level=nan", 1, "error: level is nan; it is"),
        ("-m", 2, "error: compare.py compares runs in one go, so -m is none of its arguments"),
        ("--multirun", 2, "so --multirun is none of its arguments: give runs as a list in brackets, runs=[DIRECTORY"),
        ("hydra.mode=MULTIRUN", 2, "so hydra.mode=MULTIRUN is none of its arguments"),
        ("level=0.9,0.95", 2, "so level=0.9,0.95 is none of its arguments"),
        ("runs=a,b", 2, "so runs=a,b is none of its arguments"),
    ],
)
def test_the_command_line_refuses_in_words(
    argument: str, code: int, words: str, run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [] if argument.startswith("runs=") else [f"runs={run}"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", *given, argument, f"outputs={tmp_path / 'outputs'}"])
    assert compare_main() == code
    said = capsys.readouterr().out
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, float("nan")])
def test_a_level_outside_the_unit_interval_is_a_configuration_error(level: float, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed are numbers above 0 and below 1"):
        compare_runs(Comparing(runs=str(run), to=str(tmp_path / "to"), level=level), lambda text: None)
    with pytest.raises(ConfigError, match="resamples is 0; allowed: 1 or more"):
        compare_runs(Comparing(runs=str(run), to=str(tmp_path / "to"), resamples=0), lambda text: None)
    assert not (tmp_path / "to").exists()


def test_a_value_of_another_kind_is_said_with_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match="seed=many: that key takes a whole number"):
        compose_run(["seed=many"])
    with pytest.raises(ConfigError, match="share=maybe: that key takes true or false"):
        compose_run(["share=maybe"], "evaluate")
