"""The page of a comparison: conclusions, tables to sort, plots, and answers of all groups beside each other to filter."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from spatial_lightning.runs.comparing.grouping import Group, Section
from spatial_lightning.runs.comparing.layout import PAGE
from spatial_lightning.runs.comparing.tables import ABOUT_FIGURES, FIGURES, Row, writable
from spatial_lightning.runs.curves import Plot
from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.pages import CONTENT_POLICY, embedded
from spatial_lightning.runs.samples import Sample, pick_samples

LARGEST_PAGE = 18_000_000
"""Bytes after which no more answers are put on a page."""
LARGEST_SIDE = 384
_LONGEST_ANSWER = 3_000
_UNITS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Part:
    """One section as the page shows it.

    Attributes:
        said: what can be concluded, in sentences.
        rows: the table of groups.
        differing: what tells the groups apart, in words.
        figures: the table of the benchmark's own figures; empty where there are none.
    """

    section: Section
    said: Sequence[str]
    rows: Sequence[Row]
    differing: Sequence[str]
    plots: Sequence[Plot]
    figures: Sequence[Row] = ()


@dataclass(slots=True)
class _Pictures:
    """Pictures by content, so that each is embedded once."""

    sources: dict[str, str] = field(default_factory=dict)
    known: dict[Path, tuple[str, str]] = field(default_factory=dict)

    def key(self, path: Path) -> tuple[str, str]:
        """Key of a picture, or nothing and what is wrong with it."""
        if path not in self.known:
            source, problem = embedded(path, LARGEST_SIDE)
            key = "" if source is None else hashlib.blake2b(source.encode(), digest_size=6).hexdigest()
            if source is not None:
                self.sources[key] = source
            self.known[path] = key, problem
        return self.known[path]

    @property
    def size(self) -> int:
        """Bytes that all of them take."""
        return sum(map(len, self.sources.values()))


def write_page(path: Path, parts: Sequence[Part], *, title: str, notes: Sequence[str], samples: int) -> int:
    """Write one self-contained HTML file and return how many questions with their answers it shows.

    Args:
        notes: what concerns all sections, e.g. runs left out.
        samples: questions shown at most, over all sections; fewer where the page would grow too large.
    """
    pictures, shown, texts = _Pictures(), 0, []
    room = LARGEST_PAGE - sum(_plots_size(part) for part in parts)
    for index, part in enumerate(parts):
        articles: list[str] = []
        share = max(1, samples // len(parts))
        for row_key, row in _picked(part.section, share):
            article = _article(part.section, row_key, row, pictures)
            if len(article.encode("utf-8", errors="replace")) + pictures.size > room:
                break
            room -= len(article.encode("utf-8", errors="replace"))
            articles.append(article)
        shown += len(articles)
        texts.append(_part(part, articles, "" if index == 0 else f"{index + 1}."))
    page = PAGE.substitute(
        title=escape(title),
        policy=CONTENT_POLICY,
        notes=_list(notes, "notes"),
        parts="\n".join(texts),
        pictures=json.dumps(pictures.sources),
    )
    write_text(path, writable(page))
    return shown


def _picked(section: Section, limit: int) -> list[tuple[str, Sample]]:
    """Questions to show: those on which the groups differ first, kinds as evenly as their sizes allow."""
    shares = {key: tuple(_shares(section, key)) for key in section.questions}
    keys = {id(row): key for key, row in section.questions.items()}
    rows = list(section.questions.values())
    chosen = pick_samples(rows, limit, first=lambda row: len(set(shares[keys[id(row)]])) > 1)
    return [(keys[id(row)], row) for row in chosen]


def _shares(section: Section, key: str) -> Iterable[float]:
    for group in section.groups:
        yield sum(run.right(key) for run in group.runs) / len(group.runs)


def _part(part: Part, articles: Sequence[str], prefix: str) -> str:
    section = part.section
    warnings = _list(section.warnings, "warnings")
    differing = (
        f"<details><summary>what tells the groups apart</summary>{_list(part.differing)}</details>"
        if part.differing
        else ""
    )
    plots = "\n".join(map(_figure, part.plots))
    figures = (
        f'<h3>{FIGURES}</h3>{_table(part.figures)}<p class="soft">{escape(ABOUT_FIGURES)}</p>' if part.figures else ""
    )
    total = len(section.questions)
    lead = f"{len(articles):,} of {total:,} questions, those on which the groups differ first."
    if len(articles) < total:
        lead += " They were picked to be looked at, evenly over the kinds: shares among them are no results."
    return f"""<section class="benchmark">
<h2>{escape(section.name)}</h2>
{_list(part.said, "said")}
{_table(part.rows)}
{figures}
{differing}
{warnings}
<div class="plots">{plots}</div>
<h3>Answers beside each other</h3>
<p class="soft">{escape(lead)}
<span class="keys">Keys: <kbd>/</kbd> search, <kbd>j</kbd> <kbd>k</kbd> next and previous question.</span></p>
{_form(section, prefix)}
<div class="answers">
{"".join(articles)}
<p class="none" hidden>No question fits these filters.</p>
</div>
</section>"""


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f'<td data-sort="{escape(_sortable(text))}">{escape(text)}</td>' for text in row.values())
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _sortable(text: str) -> str:
    """What a cell is sorted by: its first number where it begins with one, in seconds where it is a time."""
    if text == "baseline":
        return "0"
    number = re.match(r"(?:< )?([+-]?[\d,]*\.?\d+)(?: (s|min|h)$)?", text)
    if number is None:
        return text
    return repr(float(number[1].replace(",", "")) * _UNITS.get(number[2] or "", 1))


def _form(section: Section, prefix: str) -> str:
    groups = [(str(index), group.name) for index, group in enumerate(section.groups)]
    rows = section.questions.values()
    verdicts = [("right", "right in every run"), ("mixed", "right in some runs"), ("wrong", "wrong in every run")]
    chosen = [
        _select(f"{prefix}kind", "kind", ((kind, kind) for kind in sorted({row.kind for row in rows}))),
        _select(f"{prefix}style", "style", ((style, style) for style in sorted({row.style for row in rows}))),
        f'<label>search <input type="search" name="{prefix}q" placeholder="words" autocomplete="off"></label>',
    ]
    if len(groups) > 1:
        first, second = _select(f"{prefix}a", "where", groups, "any"), _select(f"{prefix}b", "and", groups, "any")
        chosen.append(f'<span class="pair">{first}{second} differ</span>')
    own = "".join(_select(f"{prefix}g{index}", name, verdicts, "any") for index, name in groups)
    return f"""<form><div>{"".join(chosen)}
<details><summary>right or wrong per group</summary><div>{own}</div></details>
<button type="reset">clear</button> <output></output></div></form>"""


def _select(name: str, label: str, options: Iterable[tuple[str, str]], everything: str = "all") -> str:
    inner = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    inner = f'<option value="">{everything}</option>{inner}'
    return f'<label><span>{escape(label)}</span> <select name="{name}">{inner}</select></label>'


def _article(section: Section, key: str, row: Sample, pictures: _Pictures) -> str:
    shares = " ".join(f"{share:.3f}" for share in _shares(section, key))
    options = f'<p class="soft">options: {escape(" / ".join(row.options))}</p>' if row.options else ""
    length = f" <small>({row.value:.4g} m)</small>" if row.value is not None else ""
    shown = "".join(_picture(path, pictures) for path in row.images) or '<p class="missing">no picture saved</p>'
    return f"""<article tabindex="-1" data-kind="{escape(row.kind)}" data-style="{escape(row.style)}" data-shares="{shares}">
<div class="pictures">{shown}</div>
<div class="words">
<p class="tags"><b>{escape(row.kind)}</b> {escape(row.style)} <span>{escape(row.id)}</span></p>
<p class="question">{escape(row.question)}</p>{options}
<p><b>true answer</b> {escape(row.answer)}{length}</p>
<div class="beside">{"".join(_answers(group, key) for group in section.groups)}</div>
</div>
</article>
"""


def _answers(group: Group, key: str) -> str:
    """A group's answer: that of its first run, those of the others behind a click."""
    right = [run.right(key) for run in group.runs]
    css = "right" if all(right) else "mixed" if any(right) else "wrong"
    sign = {"right": "✓ right", "mixed": f"◐ right in {sum(right)} of {len(right)} runs", "wrong": "✗ wrong"}[css]
    texts = [_text(run.answers[key], run.column) for run in group.runs]
    others = "".join(
        f'<div class="text"><small>seed {run.seed} {"✓" if good else "✗"}</small> {text}</div>'
        for run, good, text in zip(group.runs[1:], right[1:], texts[1:], strict=True)
    )
    more = f"<details><summary>{len(texts) - 1} more</summary>{others}</details>" if others else ""
    return f"""<div class="answer {css}"><p><b>{escape(group.name)}</b> <span>{sign}</span></p>
<div class="text">{texts[0]}</div>{more}</div>
"""


def _text(row: Sample, column: str) -> str:
    text = row.answers[column]
    if len(text) > _LONGEST_ANSWER:
        text = f"{text[:_LONGEST_ANSWER]} … ({len(text):,} characters in all)"
    unreadable = "" if row.parsed.get(column, True) else ' <i class="soft">(unreadable)</i>'
    return (escape(text) if text.strip() else "<i>empty answer</i>") + unreadable


def _picture(path: Path, pictures: _Pictures) -> str:
    key, problem = pictures.key(path)
    if not key:
        return f'<p class="missing">{problem}: {escape(path.name)}</p>'
    return f'<img alt="{escape(path.name)}" data-picture="{key}">'


def _figure(plot: Plot) -> str:
    caption = escape(plot.caption)
    return f'<figure><img alt="{caption}" src="{_data(plot.path)}"><figcaption>{caption}</figcaption></figure>'


def _data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _plots_size(part: Part) -> int:
    return sum(plot.path.stat().st_size * 4 // 3 for plot in part.plots)


def _list(texts: Sequence[str], css: str = "") -> str:
    if not texts:
        return ""
    return f'<ul class="{css}">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"
