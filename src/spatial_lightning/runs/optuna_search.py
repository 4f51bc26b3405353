"""A search for good settings with Optuna: each trial is a job, and a killed study goes on where it was."""

from __future__ import annotations

import json
import math
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

from spatial_lightning.runs.config import ConfigError, require_option
from spatial_lightning.runs.directory import write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RESULTS = "optimization_results.yaml"
RANGES = "a,b,c, range(1, 9), interval(0.1, 0.9) or tag(log, interval(1e-5, 1e-3))"
"""What may be searched, in words."""
_DIRECTIONS = ("maximize", "minimize")


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
        ConfigError: there is nothing to search, or a range that holds no number.
    """
    space = {o.get_key_element(): _distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise ConfigError("there is nothing to search: give a range, e.g. 'objective.alpha=interval(0.1,0.5)'")
    return space


def first_trial(overrides: Sequence[Override], settings: Mapping[str, Any]) -> list[str]:
    """Overrides of a trial with the first of all that is searched, by which a mistyped name is found before any trial runs.

    Args:
        overrides: of all trials, and ranges of what is searched.
        settings: of the sweeper.

    Raises:
        ConfigError: see :func:`search_space`; an option that does not exist, or settings that make no search.
    """
    from optuna.distributions import CategoricalDistribution

    if settings["direction"] not in _DIRECTIONS:
        raise ConfigError(f"hydra.sweeper.direction is {settings['direction']}; allowed: {' or '.join(_DIRECTIONS)}")
    if not isinstance(settings["n_jobs"], int) or settings["n_jobs"] < 1:
        raise ConfigError(f"hydra.sweeper.n_jobs is {settings['n_jobs']}; allowed: a whole number of at least 1")
    first = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    for key, found in search_space(overrides).items():
        values = found.choices if isinstance(found, CategoricalDistribution) else [getattr(found, "low")]  # noqa: B009
        first.append(f"{key}={values[0]}")
        for value in values:
            require_option(key.lstrip("+~"), str(value))
    return first


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high, step = value.start, value.end, {}
    elif isinstance(value, RangeSweep) and not log:
        steps: list[Any] = list(value.range()) if value.step else []
        low, high, step = (steps[0], steps[-1], {"step": value.step}) if steps else (value.start, value.stop, {})
    else:
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    problem = None
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        problem = "both ends must be finite numbers"
    elif low > high or (isinstance(value, RangeSweep) and not step):
        problem = "it holds no number: the first end must not be above the second, and a step not 0"
    elif log and low <= 0:
        problem = "a logarithmic scale begins above 0"
    if problem:
        raise ConfigError(f"{override.input_line}: {problem}; allowed: {RANGES}")
    whole = isinstance(low, int) and isinstance(high, int) and isinstance(step.get("step", 1), int)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=log, **step)  # pyright: ignore[reportArgumentType]


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
