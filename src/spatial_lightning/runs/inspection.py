"""What a corpus holds and what a model sees of it: counts, lengths, leaks, rows left out, and examples token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from spatial_lightning.data import TreeDataModule
from spatial_lightning.evaluation.text import final_answer
from spatial_lightning.records import SEGMENTS, AnyRecord, ImageQuestions, PreferencePair, Question, Trace
from spatial_lightning.runs.build import build_processor
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.directory import write_config
from spatial_lightning.runs.inspection_page import Example, Histogram, Run, Table, write_inspection_page
from spatial_lightning.runs.mixed import build_data, prepare_data
from spatial_lightning.tree import Node, TokenTree

COUNTED = 20_000
"""Examples of a split whose questions are counted; more are looked at evenly spaced."""
ENCODED = 500
"""Examples of a split whose tokens are counted."""
_LISTED = 1000
_SIDES = ("chosen", "rejected")
SHOWN = 12
"""Examples of a split that are shown token by token."""


@dataclass
class Split:
    """What was counted of one split.

    Attributes:
        examples: how many there are.
        counted: how many of them were looked at.
        kinds: questions by kind.
        answers: answers by kind.
        images: pictures met.
        tokens, trained: of each encoded example, its tokens and how many of them are trained.
        branches: of each encoded example.
        ratings: of the steps of traces, as far as somebody rated them.
        rejected: attempts at steps that were rejected.
    """

    name: str
    examples: int
    counted: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    images: set[Path] = field(default_factory=set)
    tokens: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    ratings: list[float] = field(default_factory=list)
    rejected: int = 0


def inspect(config: DictConfig, run: Path, *, say: Callable[[str], None]) -> Path:
    """Show what ``inspect=`` asks for, in place of training; no weights are loaded.

    Raises:
        ConfigError: it asks for something that there is not.
    """
    if config.inspect != "data":
        raise ConfigError(f"inspect is {config.inspect!r}; allowed: data, or null to train")
    write_config(run, config)
    files = prepare_data(config, resolve_path(config.cache), say=say)
    processor = build_processor(config)
    data = build_data(config, processor, files)
    data.setup("fit")
    title = f"{files.name}, read by {config.backbone.path}"
    return show(data, processor.tokenizer.decode, run / "data.html", title=title, say=say)


def show(
    data: TreeDataModule[Any], decode: Callable[[list[int]], str], page: Path, *, title: str, say: Callable[[str], None]
) -> Path:
    """Count, encode and show examples of a corpus that is set up; print the counts and write the page.

    A split larger than 20,000 examples is counted on evenly spaced ones.
    """
    splits, examples = [], []
    for name in ("train", "val"):
        split, shown = _look(data, name, decode)
        splits.append(split)
        examples += shown
    tables = [_sizes(splits), _kinds(splits), *_left_out(data), _leaks(splits)]
    histograms = [histogram for split in splits for histogram in _histograms(split)]
    for table in tables:
        say(table.text())
    write_inspection_page(page, title=title, tables=tables, histograms=histograms, examples=examples)
    say(f"\nexamples token by token: {page}")
    return page


def _look(data: TreeDataModule[Any], name: str, decode: Callable[[list[int]], str]) -> tuple[Split, list[Example]]:
    records = data.records[name]
    split = Split(name, len(records))
    for index in _spread(len(records), COUNTED):
        split.counted += 1
        for record in _single(records[index]):
            _count(split, record)
    examples = []
    encoded = _spread(len(records), ENCODED)
    shown = set(_spread(len(encoded), SHOWN))
    for place, index in enumerate(encoded):
        tree = data.tree(records[index], epoch=0 if name == "train" else None)
        if tree is None:
            continue
        split.tokens.append(tree.tokens)
        split.trained.append(tree.trained_tokens)
        split.branches.append(tree.branches)
        if place in shown:
            examples.append(example(tree, records[index], decode, split=name))
    return split, examples


def example(tree: TokenTree, record: Any, decode: Callable[[list[int]], str], *, split: str = "") -> Example:
    """An example to look at token by token: its tree, and the record or records that it was encoded from."""
    records = _single(record)
    images = dict.fromkeys(image for own in records for image in own.images)
    return Example(tree.id, split, tuple(images), tuple(_runs(tree, decode, records)))


def _count(split: Split, record: AnyRecord) -> None:
    split.images.update(record.images)
    for question in _questions(record):
        split.kinds[question.kind] += 1
        split.answers.setdefault(question.kind, Counter())[_short(question.answer)] += 1
    if isinstance(record, Trace):
        split.ratings += [step.rating for step in record.steps if step.rating is not None]
        split.rejected += sum(len(step.rejected) for step in record.steps)


def _short(answer: str) -> str:
    """What an answer comes to, without the reasoning before it."""
    return final_answer(answer).strip().removesuffix("</reasoning>").strip(" .") or answer


def _questions(record: AnyRecord) -> Sequence[Question]:
    return record.questions if isinstance(record, ImageQuestions) else (record.question,)


def _single(record: Any) -> Sequence[AnyRecord]:
    """An example is one record, one of a mixture, or several that share a tree."""
    record = getattr(record, "record", record)
    return (record,) if isinstance(record, ImageQuestions | PreferencePair | Trace) else tuple(record)


def _spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` evenly spaced places."""
    return sorted({place * count // min(count, limit) for place in range(min(count, limit))}) if count else []


def _runs(tree: TokenTree, decode: Callable[[list[int]], str], records: Sequence[AnyRecord]) -> Iterator[Run]:
    """The tree's text, cut where the node, being trained or the segment changes."""
    pairs = all(isinstance(record, PreferencePair) for record in records)
    depths: list[int] = []
    for index, node in enumerate(tree.nodes):
        depths.append(depths[node.parent] + 1 if node.parent >= 0 else 0)
        branch = "context" if node.branch < 0 else _SIDES[node.branch] if pairs else f"branch {node.branch}"
        yield from _node_runs(index, node, depths[index], branch, decode)


def _node_runs(index: int, node: Node, depth: int, branch: str, decode: Callable[[list[int]], str]) -> Iterator[Run]:
    start = 0
    marks = [
        (bool(trained), int(segment))
        for trained, segment in zip(node.trained.tolist(), node.segment.tolist(), strict=True)
    ]
    for end in range(1, len(marks) + 1):
        if end < len(marks) and marks[end] == marks[start]:
            continue
        trained, segment = marks[start]
        yield Run(
            node=index,
            depth=depth,
            text=decode(node.ids[start:end].tolist()),
            tokens=end - start,
            trained=trained,
            segment=SEGMENTS[segment] if trained and segment >= 0 else "",
            branch=branch,
        )
        start = end


def _sizes(splits: Sequence[Split]) -> Table:
    rows = []
    for split in splits:
        tokens, trained = sum(split.tokens), sum(split.trained)
        rows.append(
            (
                split.name,
                f"{split.examples:,}",
                f"{sum(split.kinds.values()):,}"
                + ("" if split.counted == split.examples else f" in {split.counted:,}"),
                f"{len(split.images):,}",
                f"{tokens / max(1, len(split.tokens)):,.0f}",
                f"{max(split.tokens, default=0):,}",
                f"{100 * trained / max(1, tokens):.1f} %",
                f"{sum(split.branches) / max(1, len(split.branches)):.1f}",
            )
        )
    head = ("split", "examples", "questions", "pictures", "tokens, mean", "tokens, most", "trained", "branches, mean")
    return Table("Sizes", head, tuple(rows), f"Tokens of at most {ENCODED} evenly spaced examples of each split.")


def _kinds(splits: Sequence[Split]) -> Table:
    train = splits[0]
    rows = []
    for kind, _ in sum((split.kinds for split in splits), Counter[str]()).most_common():
        answers = train.answers.get(kind, Counter())
        answer, times = answers.most_common(1)[0] if answers else ("", 0)
        counts = tuple(f"{split.kinds[kind]:,}" for split in splits)
        share = f"{100 * times / sum(answers.values()):.1f} %" if answers else ""
        rows.append((kind, *counts, answer if len(answer) <= 60 else answer[:57] + "...", share, f"{len(answers):,}"))
    head = ("kind", *(split.name for split in splits), "most frequent answer", "its share", "different answers")
    return Table("Kinds of questions", head, tuple(rows))


def _left_out(data: TreeDataModule[Any]) -> list[Table]:
    reasons = tuple((reason, f"{count:,}") for reason, count in data.dropped.most_common())
    tables = [Table("Left out", ("reason", "rows"), reasons, "" if reasons else "Every row can be used.")]
    if data.bad_rows:
        more = len(data.bad_rows) - _LISTED
        note = f"And {more:,} more." if more > 0 else ""
        tables.append(
            Table("Rows left out", ("place and reason",), tuple((row,) for row in data.bad_rows[:_LISTED]), note)
        )
    return tables


def _leaks(splits: Sequence[Split]) -> Table:
    both = sorted(splits[0].images & splits[1].images)
    rows = tuple((str(path),) for path in both[:20])
    note = (
        f"{len(both):,} pictures are in {splits[0].name} and in {splits[1].name}."
        if both
        else "No picture is in both splits."
    )
    return Table("Pictures in both splits", ("picture",), rows, note)


def _histograms(split: Split) -> Iterator[Histogram]:
    for title, values in (
        ("tokens of an example", split.tokens),
        ("trained tokens of an example", split.trained),
        ("branches of an example", split.branches),
        ("rating of a step", split.ratings),
    ):
        if len(set(values)) > 1:
            yield Histogram.of(f"{split.name}: {title}", values)
