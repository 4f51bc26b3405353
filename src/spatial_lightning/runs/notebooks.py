"""What the notebooks need beside the package's tables and plots: runs and rows to look at, pages in a frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import islice
from pathlib import Path

from omegaconf import DictConfig

from spatial_lightning.evaluation import wilson_interval
from spatial_lightning.runs.answering import family
from spatial_lightning.runs.build import build_processor
from spatial_lightning.runs.comparing.grouping import Section, make_sections, without_repeats
from spatial_lightning.runs.comparing.reading import LeftOut, Run, find_runs, read_run
from spatial_lightning.runs.comparing.tables import Row
from spatial_lightning.runs.config import PROJECT, ConfigError, resolve_path
from spatial_lightning.runs.directory import SWEEP_RECORD
from spatial_lightning.runs.inspection import example
from spatial_lightning.runs.inspection_page import Example
from spatial_lightning.runs.mixed import build_data, prepare_data
from spatial_lightning.runs.samples import Sample
from spatial_lightning.tree import TreeBatch, pack


@dataclass(frozen=True, slots=True)
class Framed:
    """An HTML page as a notebook shows it: whole, and apart from the notebook's own styles.

    Attributes:
        page: a self-contained file.
        height: of the frame, in pixels.
    """

    page: Path
    height: int = 640

    def _repr_html_(self) -> str:
        source = escape(self.page.read_text(encoding="utf-8"))
        return f'<div><iframe srcdoc="{source}" style="width: 100%; height: {self.height}px; border: 0"></iframe></div>'


def open_run(given: str | None = None, *, outputs: Path = PROJECT / "outputs") -> Run:
    """The run in a directory; without one, the newest finished run below ``outputs`` that answered questions.

    Raises:
        ConfigError: there is no such run, or it has no answers to look at; the message says why.
    """
    if given:
        run = read_run(resolve_path(given))
        if isinstance(run, Run):
            return run
        raise ConfigError(f"{run.path} cannot be opened: {run.reason}; give the directory of a finished run")
    runs = map(read_run, reversed(_finished(outputs)))
    newest = next((run for run in runs if isinstance(run, Run)), None)
    if newest is None:
        raise ConfigError(f"there is no finished run below {outputs}: train one first, e.g. make demo")
    return newest


def open_sweep(given: str | None = None, *, outputs: Path = PROJECT / "outputs") -> tuple[list[Section], list[LeftOut]]:
    """The runs of a sweep in groups that differ in the seed only, and those left out; without one, the newest sweep's.

    Args:
        given: directory of a sweep; any folder or pattern of runs will do.

    Raises:
        ConfigError: there is no such sweep, or none of its runs has finished.
    """
    sweeps = [run.parent for run in _finished(outputs) if (run.parent / SWEEP_RECORD).is_file()] if not given else []
    if not given and not sweeps:
        raise ConfigError(
            f"there is no sweep with a finished run below {outputs}: e.g. python train.py +sweep=vit_freeze"
        )
    read = [read_run(path) for path in find_runs(given or str(sweeps[-1]))]
    runs, repeats = without_repeats(run for run in read if isinstance(run, Run))
    unused = [run for run in read if isinstance(run, LeftOut)] + repeats
    if not runs:
        raise ConfigError(
            f"no run of {given or sweeps[-1]} can be compared; the first: {unused[0].path}: {unused[0].reason}"
        )
    return make_sections(runs), unused


def first_row(config: DictConfig, count: int = 2) -> tuple[TreeBatch, list[Example]]:
    """The first training examples of a configuration packed into one row, and each token by token; no weights are loaded.

    Raises:
        ConfigError: none of them can be used under the token budget.
    """
    files = prepare_data(config, resolve_path(config.cache), say=print)
    processor = build_processor(config)
    data = build_data(config, processor, files)
    data.setup("fit")
    found = [(data.tree(record, epoch=0), record) for record in islice(data.records["train"], count)]
    usable = [(tree, record) for tree, record in found if tree is not None]
    if not usable:
        raise ConfigError(f"none of the first {count} examples of {files.name} can be used; {dict(data.dropped)}")
    examples = [example(tree, record, processor.tokenizer.decode) for tree, record in usable]
    return pack([tree for tree, _ in usable]), examples


def kind_rows(rows: Sequence[Sample]) -> list[Row]:
    """One row a question kind and a last one for all: each column's share of right answers in %, with 95 % intervals.

    Kinds are those of the run's report; the intervals are Wilson's, as there.
    """
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for row in rows:
        kinds[family(row.kind, row.style)].append(row)
    columns = dict.fromkeys(column for row in rows for column in row.answers if column in row.correct)
    parts = [*sorted(kinds.items()), ("all", list(rows))]
    return [
        {"question kind": name, "n": str(len(own)), **{column: _share(own, column) for column in columns}}
        for name, own in parts
    ]


def where_they_differ(section: Section, first: str, second: str) -> Section:
    """The section cut to two of its groups, and to the questions that one of them answers right more often."""
    groups = [section.group(name) for name in dict.fromkeys((first, second))]
    differs = groups[0].right.mean(axis=0) != groups[-1].right.mean(axis=0)
    kept = {key: row for (key, row), apart in zip(section.questions.items(), differs, strict=True) if apart}
    cut = tuple(replace(group, right=group.right[:, differs]) for group in groups)
    return replace(section, questions=kept, groups=cut, warnings=())


def _finished(outputs: Path) -> list[Path]:
    """Finished runs, the newest last."""
    runs = find_runs(str(outputs)) if any(outputs.glob("*/**/summary.json")) else []
    finished = [run for run in runs if (run / "summary.json").is_file()]
    return sorted(finished, key=lambda run: (run / "summary.json").stat().st_mtime_ns)


def _share(rows: Sequence[Sample], column: str) -> str:
    judged = [row.correct[column] for row in rows if column in row.correct]
    low, high = wilson_interval(sum(judged), len(judged))
    return f"{100 * sum(judged) / len(judged):.1f} [{100 * low:.1f}, {100 * high:.1f}]" if judged else ""
