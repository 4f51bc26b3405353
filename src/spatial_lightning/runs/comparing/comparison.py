"""One comparison from run directories to what it leaves behind: text, CSV, plots, a page, and a run on W&B if asked for."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spatial_lightning.runs.comparing import tables
from spatial_lightning.runs.comparing.conclusions import apart, conclude, left_out, stated_warnings
from spatial_lightning.runs.comparing.figures import draw_comparison
from spatial_lightning.runs.comparing.grouping import Group, Section, make_sections, pick_baseline, without_repeats
from spatial_lightning.runs.comparing.outcomes import Outcome, Sureness, outcomes
from spatial_lightning.runs.comparing.page import Part, write_page
from spatial_lightning.runs.comparing.reading import LeftOut, Run, find_runs, read_run
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.loggers import wandb_mode
from spatial_lightning.runs.tracking import excused, log_comparison

_BY_NAME = "the first by name (baseline=NAME chooses another)"


@dataclass
class Comparing:
    """Keys of ``compare.py``; a key that is not here is refused.

    Attributes:
        runs: run directories, folders of them or patterns; one, or a list.
        to: directory to write to; null makes ``OUTPUTS/compare/NAME_TIME``.
        name: of the comparison; null takes that of the experiment or sweep.
        baseline: group, experiment or directory of a run that others are compared to; null takes the first by name.
        level: confidence of the intervals, in (0, 1).
        resamples: bootstrap draws.
        seed: of the bootstrap.
        samples: questions with their answers on the page, at most.
        wandb: ``off``, ``offline``, ``online`` or ``auto`` (online with a key, else offline).
        project: of W&B.
        outputs: folder of all run directories.
    """

    runs: Any = None
    to: str | None = None
    name: str | None = None
    baseline: str | None = None
    level: float = 0.95
    resamples: int = 10_000
    seed: int = 0
    samples: int = 150
    wandb: Any = "off"
    project: str = "spatial_lightning"
    outputs: str = "outputs"


def compare_runs(settings: Comparing, say: Callable[[str], None]) -> Path:
    """Compare finished runs and leave ``comparison.md``, ``report.html``, two CSV files and plots in one directory.

    Returns:
        That directory.

    Raises:
        ConfigError: no runs given, none of them finished, an unknown baseline or W&B mode, a level outside (0, 1), or ``to``
            holds something else.
    """
    if not settings.runs:
        raise ConfigError("runs is missing: python compare.py runs=[DIRECTORY,DIRECTORY] or runs=outputs/SWEEP/TIME")
    if not 0 < settings.level < 1:
        raise ConfigError(
            f"level is {settings.level}; it is the confidence of the intervals: allowed are numbers above 0 and below 1, e.g. "
            "level=0.95"
        )
    if settings.resamples < 1:
        raise ConfigError(f"resamples is {settings.resamples}; allowed: 1 or more")
    if settings.samples < 1:
        raise ConfigError(f"samples is {settings.samples}; allowed: 1 or more")
    wandb_mode({"wandb": settings.wandb}, key="wandb")
    sureness = Sureness(settings.level, settings.resamples, settings.seed)
    paths = find_runs(settings.runs)
    runs, unused = _read(paths)
    sections = make_sections(runs)
    baselines = _baselines(sections, settings.baseline, unused)
    to = _place(settings, paths)
    found = [outcomes(section, baseline, sureness) for section, (baseline, _) in zip(sections, baselines, strict=True)]
    parts = []
    for index, (section, own, (baseline, why)) in enumerate(zip(sections, found, baselines, strict=True)):
        folder = to / "plots" if len(sections) == 1 else to / "plots" / str(index + 1)
        said = conclude(section, own, baseline, why, sureness)
        plots = draw_comparison(section, own, folder, sureness)
        rows, figures = tables.group_rows(section, own), tables.figure_rows(own)
        parts.append(Part(section, said, rows, tables.differing(section), plots, figures))
    title = f"Comparison: {to.name if settings.name is None else settings.name}"
    notes = [*apart(sections), *stated_warnings(sections), *(f"Left out: {line}." for line in left_out(unused))]
    shown = write_page(to / "report.html", parts, title=title, notes=notes, samples=settings.samples)
    tables.write_groups(to / "groups.csv", list(zip(sections, found, strict=True)))
    tables.write_runs(to / "runs.csv", sections)
    write_text(to / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(settings)))
    text = tables.writable(_markdown(title, notes, parts, shown, to))
    write_text(to / "comparison.md", text)
    say(tables.writable(_printed(notes, parts)))
    with excused(say):
        log_comparison(to, {"wandb": settings.wandb, "project": settings.project}, _flat(sections, found))
    return to


def _read(paths: Sequence[Path]) -> tuple[list[Run], list[LeftOut]]:
    read = [read_run(path) for path in paths]
    runs, repeats = without_repeats(run for run in read if isinstance(run, Run))
    unused = [run for run in read if isinstance(run, LeftOut)]
    if not runs:
        lines = "\n  ".join(left_out(unused)[:20])
        raise ConfigError(f"none of {len(unused)} run directories can be compared:\n  {lines}")
    return runs, [*unused, *repeats]


def _baselines(sections: Sequence[Section], wanted: str | None, unused: Sequence[LeftOut]) -> list[tuple[Group, str]]:
    """The group to compare to in each section, and how it was chosen in words."""
    picked = [pick_baseline(section, wanted) for section in sections]
    if wanted is not None and not any(picked):
        if out := [run for run in unused if run.path == resolve_path(wanted).resolve()]:
            raise ConfigError(f"baseline={wanted} cannot be compared: {out[0].reason}")
        names = sorted({n for s in sections for g in s.groups for n in (g.name, *(run.name for run in g.runs))})
        close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or names[:10]
        raise ConfigError(
            f"baseline={wanted} is no group, experiment or directory of these runs; did you mean {', '.join(close)}?"
        )
    chosen = []
    for section, group in zip(sections, picked, strict=True):
        missing = f"{_BY_NAME}: {wanted} did not answer these questions"
        first = pick_baseline(section, None)
        assert first is not None
        why = _BY_NAME if wanted is None else "as asked" if group is not None else missing
        chosen.append((group or first, why))
    return chosen


def _place(settings: Comparing, paths: Sequence[Path]) -> Path:
    """The directory to write to, made; an earlier comparison there is replaced."""
    if settings.to is None:
        outputs = resolve_path(settings.outputs).resolve()
        common = Path(os.path.commonpath(paths))
        inside = common.relative_to(outputs).parts[:1] if common.is_relative_to(outputs) else ()
        name = settings.name or (inside[0] if inside else "runs")
        to = outputs / "compare" / f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    else:
        to = resolve_path(settings.to)
    if to.exists() and (not to.is_dir() or (any(to.iterdir()) and not (to / "comparison.md").is_file())):
        raise ConfigError(f"cannot write a comparison to {to}: something else is there; give a new directory")
    to.mkdir(parents=True, exist_ok=True)
    return to


def _markdown(title: str, notes: Sequence[str], parts: Sequence[Part], shown: int, to: Path) -> str:
    blocks = [f"# {tables.cell(title)}"]
    blocks.append(
        f"[Page with {shown:,} questions and all answers to them](report.html); [groups.csv](groups.csv); [runs.csv](runs.csv)."
    )
    if notes:
        blocks.append(_bullets(notes))
    for part in parts:
        blocks += [f"## {tables.cell(part.section.name)}", " ".join(map(tables.cell, part.said))]
        blocks.append(tables.markdown(part.rows).strip())
        if part.figures:
            blocks += [f"### {tables.FIGURES}", tables.markdown(part.figures).strip(), tables.ABOUT_FIGURES]
        if part.section.warnings:
            blocks += ["### To keep in mind", _bullets(part.section.warnings)]
        if part.differing:
            blocks += ["### What tells the groups apart", _bullets(part.differing)]
        blocks += [f"![{plot.caption}]({plot.path.relative_to(to)})\n\n*{plot.caption}.*" for plot in part.plots]
    return "\n\n".join(blocks) + "\n"


def _printed(notes: Sequence[str], parts: Sequence[Part]) -> str:
    lines = [*notes]
    for part in parts:
        lines += [f"\n{part.section.name}", tables.markdown(part.rows)]
        if part.figures:
            lines += [f"{tables.FIGURES}:", tables.markdown(part.figures), f"{tables.ABOUT_FIGURES}\n"]
        lines += part.said
        lines += [f"note: {warning}" for warning in part.section.warnings]
    return "\n".join(lines)


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {tables.cell(text)}" for text in texts)


def _flat(sections: Sequence[Section], found: Sequence[Sequence[Outcome]]) -> dict[str, float]:
    """Accuracy and difference of each group, by name, for a run's summary on W&B."""
    flat = {}
    for section, own in zip(sections, found, strict=True):
        for outcome in own:
            name = f"{section.name}/{outcome.group.name}"
            flat[f"accuracy/{name}"] = outcome.accuracy
            if outcome.difference is not None:
                flat[f"difference/{name}"] = outcome.difference.compared.difference
    return flat
