"""What a comparison says in sentences: who was compared, what can be concluded, what cannot, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist

from spatial_lightning.evaluation.seeds import FEWEST
from spatial_lightning.evaluation.statistics import p_text
from spatial_lightning.runs.comparing.grouping import Group, Section, shared_questions
from spatial_lightning.runs.comparing.outcomes import Outcome, Sureness
from spatial_lightning.runs.comparing.reading import LeftOut, by_text

POWER = 0.8
"""A true difference is called seen where it is found so often."""
APART = 0.05
"""Shares of unreadable answers that differ by more are said."""


def conclude(section: Section, found: Sequence[Outcome], baseline: Group, chosen: str, sureness: Sureness) -> list[str]:
    """Sentences on one section, the first about what was compared.

    Args:
        found: outcomes of all groups.
        chosen: how the baseline group was chosen, in words.
    """
    runs, pictures = sum(len(group.runs) for group in section.groups), len(set(section.units))
    what = f"{_count(len(section.questions), 'question')} on {_count(pictures, 'picture')}"
    if len(section.groups) == 1:
        said = [f"{_count(runs, 'run')} of one group answered {what}: there is no other group to compare it with."]
    else:
        said = [
            f"{_count(runs, 'run')} in {len(section.groups)} groups answered the same {what}. "
            f"Differences are to {baseline.name}, {chosen}."
        ]
    before = next(outcome.unreadable for outcome in found if outcome.group is baseline)
    said += [
        _difference(outcome, baseline, sureness) + _format_failures(outcome, baseline, before)
        for outcome in found
        if outcome.difference is not None
    ]
    said += _beside_majority(found)
    said += _about_seeds(section, len(found) - 1)
    said += _about_tests(section, found)
    return said


def left_out(runs: Sequence[LeftOut]) -> list[str]:
    """One line a run that does not count, with the reason."""
    return [f"{run.path}: {run.reason}" for run in runs]


def apart(sections: Sequence[Section]) -> list[str]:
    """Why there are several tables, in words; nothing where there is one."""
    if len(sections) < 2:
        return []
    said = [
        f"The runs answered {len(sections)} different sets of questions; figures of different sets are not comparable."
    ]
    for index, first in enumerate(sections):
        for second in sections[index + 1 :]:
            if common := shared_questions(first, second):
                sizes = f"{len(first.questions)} and {len(second.questions)}"
                said.append(f"{first.name} and {second.name} have {common} questions in common, of {sizes}.")
    return said


def _difference(outcome: Outcome, baseline: Group, sureness: Sureness) -> str:
    difference, name = outcome.difference, outcome.group.name
    assert difference is not None
    own = difference.compared
    points = f"{100 * own.difference:+.1f} points"
    sure = (
        f"{100 * sureness.level:g} % interval {100 * own.low:+.1f} to {100 * own.high:+.1f}, "
        f"corrected p {p_text(difference.corrected)}"
    )
    if difference.verdict in ("better", "worse"):
        chance = "chance among seeds and questions" if own.judges_seeds else "chance among the questions"
        return f"{name} is {difference.verdict} than {baseline.name} by {points} ({sure}), more than {chance} explains."
    if difference.verdict == "suggested":
        return (
            f"{name} differs from {baseline.name} by {points} ({sure}): interval and corrected test disagree, so a "
            "difference is suggested but not shown."
        )
    if not (outcome.group.right.mean(axis=0) != baseline.right.mean(axis=0)).any():
        return f"{name} and {baseline.name} are right on exactly the same questions, so no difference was seen."
    beyond = NormalDist().inv_cdf((1 + sureness.level) / 2)
    reach = 100 * (own.high - own.low) / 2 * (beyond + NormalDist().inv_cdf(POWER)) / beyond
    return (
        f"No difference between {name} and {baseline.name} can be concluded ({points}, {sure}). That is no proof that they "
        f"are equal: a true difference below about {reach:.1f} points would often go unseen here."
    )


def _format_failures(outcome: Outcome, baseline: Group, before: float | None) -> str:
    """A sentence where a group's share of unreadable answers is far from the baseline's, since that may be the difference."""
    own = outcome.unreadable
    if own is None or before is None or abs(own - before) <= APART:
        return ""
    return (
        f" Of its answers {100 * own:.1f} % could not be read, of those of {baseline.name} {100 * before:.1f} %; format "
        "failures are counted as wrong."
    )


def _beside_majority(found: Sequence[Outcome]) -> Iterator[str]:
    blind = [own for own in found if own.majority is not None]
    below = [own.group.name for own in blind if own.majority is not None and own.interval[0] <= own.majority]
    if below:
        share = max(own.majority for own in blind if own.majority is not None)
        yield (
            f"Not shown to be better than the best answer that ignores the picture ({100 * share:.1f} %): {', '.join(below)}."
        )


def _about_seeds(section: Section, tests: int) -> Iterator[str]:
    few = [group.name for group in section.groups if len(set(group.seeds)) < FEWEST]
    if few:
        which = "in all groups" if len(few) == len(section.groups) else f"in {', '.join(few)}"
        yield (
            f"With fewer than {FEWEST} seeds ({which}), intervals and tests are about the questions only: "
            "other seeds may come out differently."
        )
    if tests > 1:
        yield f"P-values are corrected for {tests} comparisons (Holm)."


def _about_tests(section: Section, found: Sequence[Outcome]) -> Iterator[str]:
    """Which tests the p-values are of."""
    compared = [outcome.difference.compared for outcome in found if outcome.difference is not None]
    if not compared:
        return
    flips = "an exact sign-flip test over pictures (McNemar's test with the questions of a picture, and all seeds, together)"
    over_seeds = [own for own in compared if own.judges_seeds]
    if over_seeds:
        kinds = [("paired", True), ("Welch's", False)]
        which = " or ".join(name for name, paired in kinds if any(own.paired is paired for own in over_seeds))
        yield (
            f"P-values with {FEWEST} seeds or more a side are the larger of two: of a {which} t-test over seeds, and of {flips}."
        )
    if len(over_seeds) < len(compared):
        single = len(set(section.units)) == len(section.questions) and all(len(o.group.runs) == 1 for o in found)
        few = "McNemar's exact test over the questions" if single else flips
        yield f"P-values with fewer than {FEWEST} seeds a side are of {few}."


def stated_warnings(sections: Sequence[Section]) -> list[str]:
    """What runs themselves warn of: their benchmark's file, and answers or rows that were not used; each text once."""
    said = []
    for run in (run for section in sections for group in section.groups for run in group.runs):
        version, unused = run.summary.get("benchmark_version") or {}, run.summary.get("unused") or {}
        warnings = version.get("warnings") or []
        texts = [str(text) for text in (warnings if isinstance(warnings, list) else [warnings])]
        texts += [f"{name}: {count}" for name, count in version.items() if name.startswith("left out: ")]
        texts += [f"not used: {name}: {count}" for name, count in unused.items() if count]
        said += [(run.path, text) for text in texts]
    return list(by_text(said))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
