"""A page to look at answers by eye: pictures, questions, truth and both answers in one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from PIL import Image, ImageOps

from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.samples import Sample, pick_samples

LARGEST_SIDE = 512
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Keeps a page self-contained whatever a model or a corpus wrote: nothing is fetched, from anywhere."""
_EMBEDDED_AS_IS = {"PNG": "image/png", "JPEG": "image/jpeg"}


def write_samples_page(path: Path, rows: Sequence[Sample], *, title: str, limit: int = 120) -> int:
    """Write at most ``limit`` of the rows, chosen by :func:`pick_samples`, as one HTML file; return how many it shows.

    Pictures are embedded, those with a side above 512 pixels shrunk to it; one that is missing or cannot be read is
    named instead.

    Raises:
        ValueError: a limit below 1.
    """
    shown = pick_samples(rows, limit)
    changed = sum(row.change != "same" for row in rows)
    lead = f"{len(shown):,} of {len(rows):,} evaluation questions"
    lead += f", those whose verdict changed ({changed:,} in all) first." if changed else "."
    if len(shown) < len(rows):
        lead += " They were picked to be looked at, evenly over the kinds: shares on this page are no results."
    page = _PAGE.substitute(
        title=escape(title),
        policy=CONTENT_POLICY,
        lead=escape(lead),
        kinds=_options(row.kind for row in shown),
        styles=_options(row.style for row in shown),
        samples="\n".join(_sample(row) for row in shown),
    )
    # Models may break a character in two, and half of one cannot be written.
    write_text(path, page.encode("utf-8", errors="replace").decode("utf-8"))
    return len(shown)


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in sorted(set(names)))


def _sample(row: Sample) -> str:
    pictures = "".join(picture(image) for image in row.images) or '<p class="missing">no picture saved</p>'
    options = f'<p class="options">options: {escape(" / ".join(row.options))}</p>' if row.options else ""
    length = f" <small>({row.value:.4g} m)</small>" if row.value is not None else ""
    unreadable = any(not found for found in row.parsed.values())
    return f"""<article data-kind="{escape(row.kind)}" data-style="{escape(row.style)}" data-change="{row.change}"
  data-wrong="{int(row.wrong)}" data-unreadable="{int(unreadable)}">
<div class="pictures">{pictures}</div>
<div class="words">
<p class="tags"><b>{escape(row.kind)}</b> {escape(row.style)}{_change(row)} <span>{escape(row.id)}</span></p>
<p class="question">{escape(row.question)}</p>{options}
<p class="truth"><b>true answer</b> {escape(row.answer)}{length}</p>
{"".join(_answer(row, column) for column in row.answers)}
</div>
</article>"""


def _change(row: Sample) -> str:
    return "" if row.change == "same" else f' <em class="{row.change}">{row.change}</em>'


def _answer(row: Sample, column: str) -> str:
    verdict = {True: ("right", "✓ right"), False: ("wrong", "✗ wrong"), None: ("", "not judged")}
    css, words = verdict[row.correct.get(column)]
    if not row.parsed.get(column, True):
        words += ", unreadable"
    text = escape(row.answers[column]) if row.answers[column].strip() else "<i>empty answer</i>"
    head = f"<b>{escape(column)}</b> <span>{words}</span>"
    return f'<div class="answer {css}"><p>{head}</p><div class="text">{text}</div></div>\n'


def picture(path: Path) -> str:
    """A picture embedded in HTML, shrunk to 512 pixels a side; a note where it is missing or cannot be read."""
    source, problem = embedded(path)
    if source is None:
        return f'<p class="missing">{problem}: {escape(path.name)}</p>'
    return f'<img alt="{escape(path.name)}" src="{source}">'


def embedded(path: Path, largest: int = LARGEST_SIDE) -> tuple[str | None, str]:
    """The picture as a data URI, sides above ``largest`` pixels shrunk to it; or None and what is wrong with it."""
    if not path.is_file():
        return None, "picture not found"
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            kind = _EMBEDDED_AS_IS.get(picture.format or "")
            if kind is None or max(picture.size) > largest:
                data, kind = _as_jpeg(picture, largest), "image/jpeg"
            else:
                picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, "picture cannot be read"
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}", ""


def _as_jpeg(picture: Image.Image, largest: int) -> bytes:
    small = ImageOps.exif_transpose(picture).convert("RGB")
    small.thumbnail((largest, largest))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="$policy">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1c1c1c; --soft: #6a6a6a; --line: #dcdcd8;
  --right: #00795a; --right-tint: #e9f5f0; --wrong: #b8480a; --wrong-tint: #fcf0e8; }
@media (prefers-color-scheme: dark) { :root { --page: #161616; --card: #212121; --ink: #e8e8e8; --soft: #a0a0a0;
  --line: #3a3a3a; --right: #4cc9a0; --right-tint: #16302a; --wrong: #f19a63; --wrong-tint: #38241a; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 1.2rem 0 .3rem; }
header p { color: var(--soft); margin: 0 0 .8rem; }
form { position: sticky; top: 0; z-index: 1; background: var(--page); border-bottom: 1px solid var(--line); }
form div { max-width: 72rem; margin: 0 auto; padding: .6rem 1rem; display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; }
select { font: inherit; }
output { margin-left: auto; color: var(--soft); }
article { display: flex; gap: 1rem; align-items: flex-start; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 1rem; margin: 1rem 0; }
article[hidden] { display: none; }
.pictures { flex: 0 0 18rem; display: grid; gap: .5rem; }
.pictures img { width: 100%; border-radius: 4px; display: block; }
.words { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.words p { margin: 0 0 .4rem; }
.tags { color: var(--soft); font-size: .85rem; }
.tags span { float: right; }
.tags b { color: var(--ink); }
.tags em { font-style: normal; font-weight: 600; padding: 0 .4rem; border-radius: 4px; }
.question { font-weight: 600; }
.options, .missing { color: var(--soft); }
.missing { border: 1px dashed var(--line); border-radius: 4px; padding: 1rem; margin: 0; text-align: center; }
.answer { border-left: 4px solid var(--line); border-radius: 4px; padding: .4rem .7rem; margin-top: .5rem; }
.answer .text { white-space: pre-wrap; }
.answer p span { font-size: .85rem; font-weight: 600; }
.right, .gained { background: var(--right-tint); border-color: var(--right); }
.wrong, .lost { background: var(--wrong-tint); border-color: var(--wrong); }
.right p span, .gained { color: var(--right); }
.wrong p span, .lost { color: var(--wrong); }
@media (max-width: 44rem) { article { flex-direction: column; } .pictures { flex-basis: auto; width: 100%; } }
</style>
</head>
<body>
<header><h1>$title</h1><p>$lead</p></header>
<form><div>
<label>kind <select name="kind"><option value="">all</option>$kinds</select></label>
<label>style <select name="style"><option value="">all</option>$styles</select></label>
<label>show <select name="show">
<option value="">all</option><option value="changed">changed</option><option value="gained">gained</option>
<option value="lost">lost</option><option value="wrong">wrong now</option><option value="unreadable">unreadable</option>
</select></label>
<output></output>
</div></form>
<main>
$samples
</main>
<script>
const form = document.querySelector("form"), samples = [...document.querySelectorAll("article")];
const tests = {
  "": () => true,
  changed: (row) => row.change !== "same",
  gained: (row) => row.change === "gained",
  lost: (row) => row.change === "lost",
  wrong: (row) => row.wrong === "1",
  unreadable: (row) => row.unreadable === "1",
};
function filter() {
  const {kind, style, show} = Object.fromEntries(new FormData(form));
  for (const sample of samples) {
    const row = sample.dataset;
    sample.hidden = !((!kind || row.kind === kind) && (!style || row.style === style) && tests[show](row));
  }
  form.querySelector("output").textContent =
    samples.filter((sample) => !sample.hidden).length + " of " + samples.length + " shown";
}
form.addEventListener("change", filter);
filter();
</script>
</body>
</html>
""")
