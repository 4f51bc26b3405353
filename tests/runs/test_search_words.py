"""Searches that cannot run: mistyped keys, ranges without a number and impossible settings, said before any trial."""

from __future__ import annotations

import re
import sys

import pytest

from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.entry import main
from spatial_lightning.runs.sweeping import plan

pytest.importorskip("optuna", reason="needs the extra [sweep]")

SEARCH = ["-m", "hydra/sweeper=optuna", "+experiment=fdpo_vit_unfrozen"]
RANGE = "objective.alpha=interval(0.1,0.5)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["objective.alfa=interval(0.1,0.5)"], "there is no key 'objective.alfa'; did you mean objective.alpha"),
        (["objective=choice(fdpo,fdp)"], "there is no objective 'fdp'; did you mean fdpo"),
        (["objective.alpha=interval(0.6,0.1)"], "objective.alpha=interval(0.6,0.1): it holds no number"),
        (["objective.alpha=interval(a,b)"], "objective.alpha=interval(a,b): mismatch type argument start"),
        (["objective.alpha=intervall(0.1,0.5)"], "objective.alpha=intervall(0.1,0.5): Unknown function 'intervall'"),
        (["objective.alpha=interval(0.1,inf)"], "both ends must be finite numbers"),
        (["objective.alpha=range(5,1)"], "objective.alpha=range(5,1): it holds no number"),
        (["objective.alpha=range(1,5,0)"], "and a step not 0; allowed: a,b,c, range(1, 9), interval(0.1, 0.9)"),
        (["optimization.lr=tag(log,interval(0,1))"], "a logarithmic scale begins above 0; allowed:"),
        ([], "there is nothing to search"),
        ([RANGE, "hydra.sweeper.n_trials=abc"], "hydra.sweeper.n_trials is abc; allowed: a whole number"),
        ([RANGE, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials is 0; allowed: a whole number"),
        ([RANGE, "hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs is 0; allowed: a whole number"),
        ([RANGE, "hydra.sweeper.direction=up"], "hydra.sweeper.direction is up; allowed: maximize or minimize"),
        ([RANGE, "hydra.sweeper.n_trial=3"], "there is no setting of hydra.sweeper 'n_trial'; did you mean n_trials"),
        (["hydra.sweeper.params={objective.alfa:'interval(0.1,0.5)'}"], "there is no key 'objective.alfa'"),
    ],
)
def test_a_search_that_cannot_run_is_refused_in_words(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        plan([*SEARCH, *arguments])


def test_what_is_typed_on_the_command_line_wins_over_the_sweep() -> None:
    sweep = plan(["+sweep=optuna_fdpo", "objective.alpha=interval(0.3,0.4)"])
    assert sweep is not None
    assert (sweep.jobs, sweep.total) == ((), 20)
    with pytest.raises(ConfigError, match="holds no number"):
        plan(["+sweep=optuna_fdpo", "objective.alpha=interval(0.4,0.3)"])


def test_train_says_it_and_leaves_nothing_behind(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *SEARCH, "objective.alfa=interval(0.1,0.5)", f"outputs={tmp_path}"])
    assert main() == 2
    assert "error: there is no key 'objective.alfa'" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
