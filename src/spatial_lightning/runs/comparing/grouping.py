"""Which runs belong together: sections of runs that answered the same questions, groups that differ in the seed only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_lightning.runs.comparing.naming import OFF, group_names, plain, setting_columns, shown_value
from spatial_lightning.runs.comparing.reading import LeftOut, Run, by_text
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.samples import Sample

MOST_COLUMNS = 6


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ only in the seed.

    Attributes:
        name: short, and unique in its section.
        runs: by seed.
        values: what tells it from other groups, by the section's columns.
        right: verdicts, runs by the section's questions.
    """

    name: str
    runs: tuple[Run, ...]
    values: Mapping[str, str]
    right: NDArray[np.bool_]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def accuracy(self) -> float:
        """Mean over seeds of the share of right answers, in [0, 1]."""
        own = [self.right[[seed == other for other in self.seeds]].mean() for seed in set(self.seeds)]
        return float(np.mean(own))


@dataclass(frozen=True, slots=True)
class Section:
    """Groups that answered the same questions.

    Attributes:
        name: the benchmark or corpus.
        questions: what was asked, by key, in an order that does not depend on that of the runs.
        groups: by name.
        columns: settings that differ between groups, each with all that differ in the same way.
        warnings: what makes groups less comparable than they look, in words.
    """

    name: str
    questions: Mapping[str, Sample]
    groups: tuple[Group, ...]
    columns: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...]

    @property
    def units(self) -> list[Hashable]:
        """For each question what it shares with others: its pictures, else itself."""
        return [tuple(path.name for path in row.images) or key for key, row in self.questions.items()]

    def group(self, name: str) -> Group:
        """A group by name."""
        return next(group for group in self.groups if group.name == name)


def without_repeats(runs: Iterable[Run]) -> tuple[list[Run], list[LeftOut]]:
    """Of runs with the same content hash, seed and questions only the newest, and the others with what they did differently."""
    sorts: dict[Hashable, list[Run]] = defaultdict(list)
    for run in runs:
        content = run.summary.get("config_hash")
        # A configuration names a checkpoint by its path, which may be trained anew: what it was counts too.
        sorts[(content, run.seed, run.questions, str(run.summary.get("checkpoint"))) if content else run.path].append(
            run
        )
    kept, others = [], []
    for same in sorts.values():
        *older, newest = sorted(same, key=lambda run: ((run.path / "summary.json").stat().st_mtime_ns, str(run.path)))
        kept.append(newest)
        for run in older:
            changed = sum(run.right(key) != newest.right(key) for key in run.answers)
            verdicts = "the same verdicts" if not changed else f"{changed} of {len(run.answers)} verdicts differ"
            others.append(
                LeftOut(run.path, f"repeats {newest.path} (same content and seed, {verdicts}); the newer one counts")
            )
    return sorted(kept, key=lambda run: str(run.path)), others


def make_sections(runs: Sequence[Run]) -> list[Section]:
    """Sections of runs on the same questions, the one with most runs first.

    A run that lacks no more questions than it has unreadable rows is compared with the others on what all of them have.
    """
    parts = sorted(
        _same_questions(runs),
        key=lambda part: (-len(part), min(run.benchmark for run in part), min(run.questions for run in part)),
    )
    names = [" / ".join(sorted({run.benchmark for run in part})) for part in parts]
    sections = []
    for index, (name, part) in enumerate(zip(names, parts, strict=True)):
        if names.count(name) > 1:
            name = f"{name} (questions {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[names[:index].count(name) % 26]})"
        sections.append(_section(name, part))
    return sections


def shared_questions(first: Section, second: Section) -> int:
    """How many questions two sections have in common."""
    return len(first.questions.keys() & second.questions.keys())


def pick_baseline(section: Section, wanted: str | None) -> Group | None:
    """The group that others are compared to: the one named (by group, experiment or a run's directory), else the first by name.

    Groups that were not trained come before those that were. None where the named one is not in the section.

    Raises:
        ConfigError: the name stands for several groups.
    """
    if wanted is None:
        return min(section.groups, key=lambda group: (_was_trained(group), group.name))
    exact = [group for group in section.groups if group.name == wanted]
    named = exact or [group for group in section.groups if any(run.name == wanted for run in group.runs)]
    if not named:
        place = resolve_path(wanted).resolve()
        named = [group for group in section.groups if any(run.path.resolve() == place for run in group.runs)]
    if len(named) > 1:
        raise ConfigError(
            f"baseline={wanted} stands for several groups: choose one of {_listed(g.name for g in named)}"
        )
    return named[0] if named else None


def _same_questions(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that were asked the same; what one lacks beside the others of its part is no more than its unreadable rows."""
    parts: list[tuple[set[str], list[Run]]] = []
    for run in sorted(runs, key=lambda run: (run.missing, str(run.path))):
        own = set(run.answers)
        for index, (asked, part) in enumerate(parts):
            together = asked | own
            if all(len(together) - len(other.answers) <= _may_lack(other) for other in (*part, run)):
                parts[index] = (together, [*part, run])
                break
        else:
            parts.append((own, [run]))
    return [part for _, part in parts]


def _may_lack(run: Run) -> int:
    """How many questions a run may lack; one of which more than a tenth is unreadable would cost the others too many."""
    return run.missing if run.missing <= max(1, len(run.answers) // 10) else 0


def _section(name: str, runs: Sequence[Run]) -> Section:
    runs = sorted(runs, key=lambda run: (run.name, run.seed, str(run.path)))
    asked = {key: row for run in runs for key, row in run.answers.items()}
    questions = {key: asked[key] for key in sorted(asked) if all(key in run.answers for run in runs)}
    settings = {run.path: _without_following_seeds(run, runs) for run in runs}
    same: dict[Hashable, list[Run]] = defaultdict(list)
    for run in runs:
        # A setting that one configuration lacks counts as switched off, so that older runs stay with newer ones.
        content = sorted((key, plain(value)) for key, value in settings[run.path].items() if value not in OFF)
        same[(run.name, tuple(content))].append(run)
    members = list(same.values())
    columns = setting_columns([settings[own[0].path] for own in members])
    values = [
        {column: shown_value(settings[own[0].path].get(keys[0])) for column, keys in columns.items()} for own in members
    ]
    classes = {column for column, keys in columns.items() if keys[0].endswith("_target_")}
    labels = group_names([own[0].name for own in members], values, classes)
    groups = [
        Group(label, tuple(own), value, np.array([[run.right(key) for key in questions] for run in own]))
        for label, own, value in zip(labels, members, values, strict=True)
    ]
    groups.sort(key=lambda group: group.name)
    return Section(name, questions, tuple(groups), columns, tuple(_warnings(runs, groups, len(asked) - len(questions))))


def _without_following_seeds(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Settings, with those seeds that do not simply repeat the run's own seed in every run."""
    return {
        **run.settings,
        **{k: v for k, v in run.seeds.items() if any(other.seeds.get(k, other.seed) != other.seed for other in runs)},
    }


def _warnings(runs: Sequence[Run], groups: Sequence[Group], unshared: int) -> Iterable[str]:
    if unshared:
        was = "is" if unshared == 1 else "are"
        yield f"{unshared} of the questions asked {was} left out, since not every run has a readable verdict."
    for what, field in (("pixel limits", "pixel_limits"), ("prompts", "prompt")):
        values = {json.dumps(run.summary.get(field)) for run in runs}
        if len(values) > 1:
            yield f"The runs differ in their {what} ({_listed(sorted(values))}): a difference may come from there."
    versions = {json.dumps((run.summary.get("benchmark_version") or {}).get("digest")) for run in runs} - {"null"}
    if len(versions) > 1:
        yield f"The benchmark was read from files with other contents (digests {_listed(sorted(versions))})."
    commits = sorted({str(run.summary.get("git_sha") or "unknown") for run in runs})
    if len({commit.rstrip("+") for commit in commits}) > 1:
        yield f"The runs are of other commits ({_listed(commit.rstrip('+')[:10] for commit in commits)}): the code may differ."
    if any(commit.endswith("+") for commit in commits):
        yield "Of some runs the working tree differed from the commit, so the code cannot be known for sure."
    before = [(run.summary.get("baseline") or {}).get("warm_start") for run in runs]
    known = [start.get("accuracy") for start in before if isinstance(start, Mapping)]
    starts = {round(share, 6) for share in known if isinstance(share, int | float)}
    if len(starts) > 1:
        shares = _listed(f"{100 * start:.1f} %" for start in sorted(starts))
        yield f"The runs did not start from the same state (right before training: {shares})."
    for group in groups:
        if len(set(group.seeds)) < len(group.seeds):
            yield f"{group.name} holds several runs of one seed: no independent repetitions, so their average counts as one."
    if len({tuple(sorted(set(group.seeds))) for group in groups}) > 1:
        yield f"Not all groups have the same seeds ({_listed(f'{group.name}: {_numbers(group.seeds)}' for group in groups)})."
    if any(run.summary.get("placeholders") for run in runs):
        yield "Pictures were placeholders: the figures say nothing about vision."
    yield from by_text((run.path, problem) for run in runs for problem in run.problems)


def _was_trained(group: Group) -> bool:
    summary = group.runs[0].summary
    return not ("checkpoint" in summary and summary["checkpoint"] is None)


def _numbers(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
