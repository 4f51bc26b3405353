"""The page of ``inspect=data``: tables, histograms, and trees of tokens with what is trained highlighted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template

import numpy as np

from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.pages import CONTENT_POLICY, picture

_REPEATED = re.compile(r"(<[^<>]{1,40}>)\1{3,}")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading; ``note`` is said beneath, or instead of rows where there are none."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """As plain text in columns."""
        if not self.rows:
            return f"{self.title}: {self.note or 'none'}"
        columns = list(zip(self.head, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join([f"\n{self.title}", *lines, *([self.note] if self.note else [])])


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, title: str, values: Sequence[float]) -> Histogram:
        """Counts of values in up to 30 equal steps; whole numbers get steps of whole numbers."""
        low, high = min(values), max(values)
        whole = all(float(value).is_integer() for value in values)
        step = max(1, -(-(int(high - low) + 1) // 30)) if whole else (high - low) / 30
        edges = np.arange(low, high + step * 1.001, step)
        counts, edges = np.histogram(values, bins=edges)
        return cls(title, tuple(map(float, edges)), tuple(map(int, counts)))


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tokens of one node that are alike.

    Attributes:
        node: index of the node in its tree.
        depth: how many nodes lie above it.
        text: the tokens decoded, special ones included.
        segment: of trained tokens, if they have one.
        branch: what the node belongs to, in words.
    """

    node: int
    depth: int
    text: str
    tokens: int
    trained: bool
    segment: str
    branch: str


@dataclass(frozen=True, slots=True)
class Example:
    """One tree to look at, with its pictures."""

    id: str
    split: str
    images: tuple[Path, ...]
    runs: tuple[Run, ...]


def write_inspection_page(
    path: Path, *, title: str, tables: Sequence[Table], histograms: Sequence[Histogram], examples: Sequence[Example]
) -> None:
    """Write one self-contained HTML file."""
    page = _PAGE.substitute(
        title=escape(title),
        policy=CONTENT_POLICY,
        tables="\n".join(map(_table, tables)),
        histograms="\n".join(map(_histogram, histograms)),
        examples="\n".join(map(_example, examples)),
    )
    write_text(path, page.encode("utf-8", errors="replace").decode("utf-8"))


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if table.rows else ""
    return f"<section><h2>{escape(table.title)}</h2>{body}<p>{escape(table.note)}</p></section>"


def _histogram(histogram: Histogram) -> str:
    most = max(histogram.counts)
    bars = []
    for index, count in enumerate(histogram.counts):
        label = f"{histogram.edges[index]:g} to {histogram.edges[index + 1]:g}: {count:,}"
        bars.append(f'<i style="height:{100 * count / most:.1f}%" title="{label}"></i>')
    low, high = histogram.edges[0], histogram.edges[-1]
    return (
        f'<figure><div class="bars">{"".join(bars)}</div><figcaption><span>{low:g}</span>'
        f"<b>{escape(histogram.title)}</b><span>{high:g}</span></figcaption></figure>"
    )


def _example(example: Example) -> str:
    pictures = "".join(picture(image) for image in example.images) or '<p class="missing">no picture</p>'
    nodes = "".join(_node(list(runs)) for _, runs in groupby(example.runs, key=lambda run: run.node))
    return f"""<article><div class="pictures">{pictures}</div><div class="words">
<p class="tags"><b>{escape(example.split)}</b> {escape(example.id)}</p>{nodes}</div></article>"""


def _node(runs: Sequence[Run]) -> str:
    first, tokens = runs[0], sum(run.tokens for run in runs)
    text = "".join(_run(run) for run in runs)
    return (
        f'<div class="node" style="margin-left:{1.5 * first.depth}rem">'
        f"<small>{escape(first.branch)}, {tokens:,} tokens</small><div>{text}</div></div>"
    )


def _run(run: Run) -> str:
    text = escape(_REPEATED.sub(lambda match: f"{match[1]}×{len(match[0]) // len(match[1])}", run.text))
    if not run.trained:
        return f"<span>{text}</span>"
    label = f"trained, {run.segment}" if run.segment else "trained"
    return f'<mark class="{run.segment}" title="{label}: {run.tokens} tokens">{text}</mark>'


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1c1c1c; --soft: #6a6a6a; --line: #dcdcd8;
  --plain: #d7ecdf; --description: #d5e5f8; --reasoning: #fbe3c8; --bar: #4c7fb8; }
@media (prefers-color-scheme: dark) { :root { --page: #161616; --card: #212121; --ink: #e8e8e8; --soft: #a0a0a0;
  --line: #3a3a3a; --plain: #1f4a34; --description: #1e3f66; --reasoning: #5e3d14; --bar: #6ea3df; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 1.2rem 0 .3rem; }
h2 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
section p { color: var(--soft); margin: .3rem 0; }
section { overflow-x: auto; }
table { border-collapse: collapse; background: var(--card); }
th, td { text-align: left; padding: .25rem .7rem; border: 1px solid var(--line); vertical-align: top; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; margin-top: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem; }
.bars { display: flex; align-items: flex-end; height: 7rem; gap: 1px; }
.bars i { flex: 1; background: var(--bar); min-height: 1px; }
figcaption { display: flex; justify-content: space-between; gap: .5rem; font-size: .85rem; margin-top: .3rem; }
figcaption b { font-weight: 600; text-align: center; }
article { display: flex; gap: 1rem; align-items: flex-start; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 1rem; margin: 1rem 0; }
.pictures { flex: 0 0 14rem; display: grid; gap: .5rem; }
.pictures img { width: 100%; border-radius: 4px; display: block; }
.missing { color: var(--soft); border: 1px dashed var(--line); border-radius: 4px; padding: 1rem; margin: 0; }
.words { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.tags { color: var(--soft); font-size: .85rem; margin: 0 0 .4rem; }
.node { border-left: 3px solid var(--line); padding: .1rem .7rem; margin-bottom: .4rem; }
.node small { color: var(--soft); }
.node div { white-space: pre-wrap; font: .85rem/1.5 ui-monospace, monospace; }
mark { background: var(--plain); color: inherit; border-radius: 3px; }
mark.description { background: var(--description); }
mark.reasoning { background: var(--reasoning); }
</style>
</head>
<body>
<header><h1>$title</h1></header>
<main>
$tables
<div class="figures">$histograms</div>
<h2>Examples, as the model reads them</h2>
<p><mark>trained</mark> <mark class="description">trained, description</mark>
<mark class="reasoning">trained, reasoning</mark>; all else is context. A step to the right is a branch of what is above it.</p>
$examples
</main>
</body>
</html>
""")
