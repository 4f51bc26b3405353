"""A search for good settings with Optuna: each trial is a job, and a killed study goes on where it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RESULTS = "optimization_results.yaml"


@dataclass(frozen=True)
class _Search:
    """What stays the same during a search."""

    study: Study
    launcher: Launcher
    folder: Path
    fixed: Sequence[str]
    metric: str


def search(
    launcher: Launcher,
    loader: ConfigLoader,
    folder: str,
    arguments: Sequence[str],
    *,
    metric: str,
    direction: Literal["maximize", "minimize"],
    n_trials: int,
    n_jobs: int,
    seed: int,
    params: Mapping[str, Any] | None,
) -> None:
    """Draw settings by TPE and judge them by a figure of the finished runs, until enough trials have finished.

    A trial that was running when the study was killed is run again with the same settings; one that failed is replaced by
    another when the study is started again. What trial number n gets depends on the seed, on n and on the trials before it.

    Args:
        folder: directory of the sweep, with the study's store.
        arguments: overrides of the command line.
        metric: key of ``metrics`` in ``summary.json``.
        direction: ``maximize`` or ``minimize``.
        n_trials: finished trials after which the study ends.
        n_jobs: trials that are drawn and launched together.
        seed: of the sampler.
        params: overrides of all trials, and ranges of what is searched.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides([*(f"{key}={value}" for key, value in (params or {}).items()), *arguments])
    chosen = list({override.get_key_element(): override for override in given}.values())
    fixed = [str(override.input_line) for override in chosen if not override.is_sweep_override()]
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    try:
        space = search_space(chosen)
        store = f"sqlite:///{place / 'study.db'}"
        study = optuna.create_study(storage=store, study_name="study", direction=direction, load_if_exists=True)
        own = _Search(study, launcher, place, fixed, metric)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            if trial.params.keys() == space.keys():
                _run(own, [(trial.number, trial.params)])
            else:  # killed while its settings were drawn
                study.tell(trial.number, state=TrialState.FAIL)
        failed = 0
        while (left := n_trials - failed - len(study.get_trials(states=(TrialState.COMPLETE,)))) > 0:
            drawn = []
            for _ in range(min(left, n_jobs)):
                study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
                trial = study.ask(space)
                drawn.append((trial.number, trial.params))
            failed += _run(own, drawn)
        _report(own, direction)
    except (ConfigError, ValueError) as error:
        # Hydra would show where this was raised and not what it says.
        print(f"error: {error}", flush=True)
        sys.exit(1)


def search_space(overrides: Sequence[Override]) -> dict[str, BaseDistribution]:
    """What is searched: choices, ranges and intervals of numbers, on a logarithmic scale where tagged ``log``.

    Raises:
        ConfigError: there is nothing to search.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {}
    for override in overrides:
        if not override.is_sweep_override():
            continue
        value: Any = override.value()
        log = "log" in getattr(value, "tags", ())
        if isinstance(value, IntervalSweep):
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            found = (IntDistribution if whole else FloatDistribution)(value.start, value.end, log=log)  # pyright: ignore[reportArgumentType]
        elif isinstance(value, RangeSweep) and not log:
            steps: list[Any] = list(value.range())
            whole = all(isinstance(step, int) for step in steps)
            found = (IntDistribution if whole else FloatDistribution)(steps[0], steps[-1], step=value.step)  # pyright: ignore[reportArgumentType]
        else:
            found = CategoricalDistribution(list(override.sweep_string_iterator()))
        space[override.get_key_element()] = found
    if not space:
        raise ConfigError("there is nothing to search: give a range, e.g. 'objective.alpha=interval(0.1,0.5)'")
    return space


def objective(run: Path, metric: str) -> float | None:
    """A figure of a finished run; None where it did not finish.

    Raises:
        ConfigError: its summary has no such figure.
    """
    path = run / "summary.json"
    if not path.is_file():
        return None
    metrics = json.loads(path.read_text())["metrics"]
    if metric not in metrics:
        raise ConfigError(f"hydra.sweeper.metric={metric} is not in {path}; allowed: {', '.join(metrics)}")
    return float(metrics[metric])


def _run(own: _Search, drawn: Sequence[tuple[int, Mapping[str, Any]]]) -> int:
    """Run trials and judge them; returns how many failed."""
    from optuna.trial import TrialState

    jobs = [[*own.fixed, *(f"{key}={value}" for key, value in params.items())] for _, params in drawn]
    returns = own.launcher.launch(jobs, initial_job_idx=drawn[0][0])
    values = [
        objective(Path(str(job.hydra_cfg.hydra.runtime.output_dir)), own.metric) for job in returns if job.hydra_cfg
    ]
    for (number, _), value in zip(drawn, values, strict=True):
        own.study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
    return values.count(None)


def _report(own: _Search, direction: str) -> None:
    """Leave the best trial and all others in words and in a file."""
    from optuna.trial import TrialState

    trials = own.study.get_trials(states=(TrialState.COMPLETE,))
    if not trials:
        return
    best = own.study.best_trial
    rows = [{"trial": trial.number + 1, "value": trial.value, "params": trial.params} for trial in trials]
    results = {
        "metric": own.metric,
        "direction": direction,
        "best_trial": best.number + 1,
        "best_value": best.value,
        "best_params": best.params,
        "trials": rows,
    }
    write_text(own.folder / RESULTS, OmegaConf.to_yaml(OmegaConf.create(results)))
    print(f"best of {len(trials)} trials: {own.metric} {best.value:.4g} with {_words(best)}", flush=True)


def _words(trial: FrozenTrial) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.params.items()
    )
