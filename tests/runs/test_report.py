"""The report of a finished run: complete where everything was saved, honest where something is missing."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spatial_lightning.records import BadRows
from spatial_lightning.runs.curves import Curve, draw_plots, read_curves
from spatial_lightning.runs.pages import LARGEST_SIDE, write_samples_page
from spatial_lightning.runs.report import write_report
from spatial_lightning.runs.samples import Sample, pick_samples, read_samples
from spatial_lightning.scenes import generate, render

SUMMARY = {
    "experiment": "fdpo_vit_unfrozen",
    "objective": "FDPOModule",
    "backbone": "assets/tiny-vlm",
    "corpus": "procedural pairs",
    "seed": 0,
    "git_sha": "abc1234+",
    "config_hash": "9f1c22aa",
    "metrics": {},
    "baseline": {},
    "throughput": {"tokens_per_s": 9123.4, "examples_per_s": 31.25, "peak_memory_gb": None},
    "wall_s": 754.2,
}
TRAIN = ("loss", "reward_margin", "reward_accuracy", "logps_chosen", "logps_rejected", "beta_description")


def _write_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"q{number}",
        "kind": "left_right",
        "style": "direct",
        "question": "Is the red cube left of the cone?",
        "answer": "yes",
        "options": ["yes", "no"],
        "value": None,
        "images": [],
        "answers": {"warm start": "no", "after": "yes"},
        "correct": {"warm start": False, "after": True},
        "parsed": {"warm start": True, "after": True},
    }
    return row | changes


def _write_rows(run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _report(run: Path, **changes: Any) -> str:
    given = {
        "table": "| kind | n |\n| :-- | --: |\n| all | 4 |\n",
        "conclusion": "No difference.",
        "towers": "vision full",
    }
    return write_report(run, **(given | changes)).read_text()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with nothing but its summary."""
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    return tmp_path


@pytest.fixture
def full_run(run: Path) -> Path:
    """A preference run with curves, answers and one rendered picture."""
    rows: list[dict[str, Any]] = [
        {"step": step, "epoch": 0} | {f"train/{name}": 0.5 + step / 100 for name in TRAIN} for step in range(0, 70)
    ]
    rows += [{"step": step, "val/loss": 1.0 - step / 100} for step in (35, 70)]
    rows += [
        {"step": step, "eval/accuracy": 0.5, "eval/macro_accuracy": 0.4, "eval/accuracy/left_right": 1.0}
        for step in (0, 70)
    ]
    _write_metrics(run / "metrics.csv", rows)
    picture = run / "scene.png"
    Image.fromarray(render(generate(0, 0, size=(48, 48)), samples=1).rgb).save(picture)
    _write_rows(run, [_row(0, images=[str(picture)]), _row(1, images=[str(run / "gone.png")])])
    (run / "config.yaml").write_text("seed: 0\n")
    return run


class _Page(HTMLParser):
    """What a browser would make of a page: its tags, and the samples with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.samples: list[dict[str, str | None]] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = dict(attrs)
        if tag == "article":
            self.samples.append(values)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_full_report_holds_everything_and_every_link_leads_somewhere(full_run: Path) -> None:
    text = _report(full_run, notes=["12 rows left out (no image)"])
    said = ("fdpo_vit_unfrozen", "**No difference.**", "| all | 4 |", "vision full", "9,123", "31.25", "12 min 34 s")
    for expected in (
        *said,
        "abc1234+",
        "9f1c22aa",
        "procedural pairs",
        "- 12 rows left out (no image)",
        "not measured",
    ):
        assert expected in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {"samples.html", "config.yaml"} < set(links)
    for link in links:
        assert not Path(link).is_absolute()
        assert (full_run / link).stat().st_size > 0


def test_only_plots_with_columns_are_drawn(full_run: Path) -> None:
    _report(full_run)
    drawn = {path.stem for path in (full_run / "plots").iterdir()}
    assert drawn == {"accuracy", "accuracy_by_kind", "loss", "margin", "logps", "segments"}
    for path in (full_run / "plots").iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10

    (full_run / "sft").mkdir()
    curves = {name: curve for name, curve in read_curves(full_run / "metrics.csv").items() if name == "train/loss"}
    assert [plot.path.name for plot in draw_plots(curves, full_run / "sft")] == ["loss.png"]


def test_warm_start_is_drawn_where_there_is_one(tmp_path: Path) -> None:
    steps, values = np.array([0, 10]), np.array([0.2, 0.6])
    curves = {"eval/accuracy": Curve(steps, values)}
    (with_start,) = draw_plots(curves, tmp_path / "with")
    (without,) = draw_plots({"eval/accuracy": Curve(steps + 1, values)}, tmp_path / "without")
    # Anything drawn in colour is a line, its marks or its entry in the legend.
    coloured = [
        np.ptp(np.asarray(Image.open(p.path).convert("RGB")).astype(int), axis=2) > 60 for p in (with_start, without)
    ]
    level = coloured[0].sum(axis=1).max()
    assert level > 2 * coloured[1].sum(axis=1).max()


def test_summary_alone_gives_a_report_that_says_what_is_missing(run: Path) -> None:
    text = _report(run)
    for expected in ("No training curves were logged.", "No answers were saved.", "Nothing was reported as left out."):
        assert expected in text
    assert "![" not in text
    assert {path.name for path in run.iterdir()} == {"summary.json", "report.md"}


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run that finished"):
        _report(tmp_path)


def test_report_cannot_be_broken_by_what_it_quotes(run: Path) -> None:
    text = _report(
        run, towers="a\n```\n# not a heading\n```", notes=["two\n\nlines <script>x</script>"], conclusion="p < 0.05"
    )
    assert "````text\na\n```\n# not a heading\n```\n````" in text
    assert "- two lines &lt;script>" in text
    assert "**p < 0.05**" in text


@pytest.mark.parametrize("stated", ["python train.py '+x=a b'", ["python", "train.py", "+x=a b"], None])
def test_command_comes_from_the_summary_or_from_hydra(run: Path, stated: Any) -> None:
    if stated is None:
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text("- +x=a b\n")
    else:
        (run / "summary.json").write_text(json.dumps(SUMMARY | {"command": stated}))
    assert "```bash\npython train.py '+x=a b'\n```" in _report(run)


# ---------------------------------------------------------------------- curves


def test_sparse_rows_become_curves_and_the_later_row_of_a_step_counts(tmp_path: Path) -> None:
    rows = [
        {"step": 4, "a": 4.0, "empty": "", "nan": "nan"},
        {"step": 2, "b": 7.0},
        {"step": 0, "a": 1.0},
        {"step": 4, "a": 5.0},
    ]
    _write_metrics(tmp_path / "metrics.csv", rows)
    curves = read_curves(tmp_path / "metrics.csv")
    assert set(curves) == {"a", "b"}
    assert (curves["a"].steps.tolist(), curves["a"].values.tolist()) == ([0, 4], [1.0, 5.0])
    assert (curves["a"].at_start, curves["b"].at_start) == (1.0, None)


def test_missing_and_empty_metrics_give_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "metrics.csv") == {}
    (tmp_path / "metrics.csv").write_text("")
    assert read_curves(tmp_path / "metrics.csv") == {}


def test_a_cell_that_is_no_number_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,0.5\n1,high\n")
    with pytest.raises(ValueError, match=r"metrics\.csv:3: column 'train/loss' holds 'high'"):
        read_curves(tmp_path / "metrics.csv")


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200), st.floats(-5, 5))
def test_smoothing_keeps_length_range_and_constants(values: list[float], constant: float) -> None:
    steps = np.arange(len(values))
    smoothed = Curve(steps, np.array(values)).smoothed()
    assert smoothed.shape == steps.shape
    assert smoothed.min() >= min(values) - 1e-9
    assert smoothed.max() <= max(values) + 1e-9
    np.testing.assert_allclose(Curve(steps, np.full(len(values), constant)).smoothed(), constant, atol=1e-12)


def test_smoothing_passes_over_values_that_are_no_numbers() -> None:
    values = np.ones(100)
    values[[0, 50]] = np.nan
    np.testing.assert_allclose(Curve(np.arange(100), values).smoothed(), 1.0)


# ---------------------------------------------------------------------- samples


def _samples(sizes: Mapping[str, int], changed: int = 0) -> list[Sample]:
    rows = []
    for kind, size in sizes.items():
        for number in range(size):
            verdicts = {"warm start": number < changed, "after": False}
            answers = dict.fromkeys(verdicts, "no")
            rows.append(Sample(f"{kind}-{number}", kind, "direct", "Is it?", "yes", answers=answers, correct=verdicts))
    return rows


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), st.integers(1, 60), st.randoms())
def test_picked_samples_are_even_over_kinds_whatever_their_order(
    sizes: dict[str, int], limit: int, random: Any
) -> None:
    rows = _samples(sizes)
    picked = pick_samples(rows, limit)
    assert len(picked) == len({row.id for row in picked}) == min(limit, len(rows))
    counts = Counter(row.kind for row in picked)
    for kind, size in sizes.items():
        # A kind is shown less often than another one only where it has no more to show, or by one turn.
        assert counts[kind] == size or counts[kind] >= max(counts.values()) - 1
    random.shuffle(rows)
    assert pick_samples(rows, limit) == picked


def test_changed_verdicts_are_the_first_of_their_kind_and_on_the_page() -> None:
    rows = _samples({"a": 30}, changed=3) + _samples({"b": 30})
    picked = pick_samples(rows, 12)
    assert [row.change for row in picked] == ["lost"] * 3 + ["same"] * 9
    assert Counter(row.kind for row in picked) == {"a": 6, "b": 6}


def test_direct_and_reasoned_questions_of_a_kind_are_balanced_apart() -> None:
    rows = [_row(number, style="reasoned" if number < 5 else "direct") for number in range(50)]
    styles = Counter(row.style for row in pick_samples([Sample(**_plain(row)) for row in rows], 10))
    assert styles == {"direct": 5, "reasoned": 5}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "kind", "style", "question", "answer", "answers", "correct")}


def test_no_samples_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="limit is 0"):
        pick_samples([], 0)


def test_unreadable_rows_are_counted_and_the_rest_is_shown(run: Path) -> None:
    lines = [json.dumps(_row(0)), "{half", json.dumps([1]), json.dumps({"id": "x"}), json.dumps(_row(1, value="far"))]
    (run / "samples.jsonl").write_text("\n".join(lines) + "\n\n")
    bad = BadRows()
    assert [row.id for row in read_samples(run / "samples.jsonl", bad)] == ["q0"]
    assert (bad.good, bad.bad) == (1, 4)
    assert "4 of 5 rows of samples.jsonl could not be read, the first: samples.jsonl:2" in _report(run)


# ---------------------------------------------------------------------- the page


def test_page_is_self_contained_and_carries_what_filters_need(full_run: Path) -> None:
    _report(full_run)
    text = (full_run / "samples.html").read_text()
    page = _Page(text)
    assert [sample["data-change"] for sample in page.samples] == ["gained", "gained"]
    assert {sample["data-kind"] for sample in page.samples} == {"left_right"}
    (source,) = page.sources
    assert source.startswith("data:image/png;base64,")
    assert "picture not found: gone.png" in text
    assert str(full_run) not in text


def test_whatever_a_model_writes_stays_text(run: Path) -> None:
    nasty = "</div></article><script>alert('x')</script><img src=x onerror=alert(1)> \"'& $title ${lead} \ud800"
    names = {"kind": nasty, "style": nasty, "question": nasty, "answer": nasty, "options": [nasty], "id": nasty}
    plain, broken = [_row(0), _row(1)], [_row(0, **names, answers={nasty: nasty}, correct={nasty: False}), _row(1)]
    pages = []
    for rows in (plain, broken):
        _write_rows(run, rows)
        _report(run)
        pages.append((run / "samples.html").read_text())
    tags = [_Page(text).tags for text in pages]
    assert tags[0]["article"] == tags[1]["article"] == 2
    assert (tags[0]["script"], tags[0]["img"]) == (tags[1]["script"], tags[1]["img"]) == (1, 0)
    shown = nasty.replace("\ud800", "?")
    assert sorted(sample["data-kind"] or "" for sample in _Page(pages[1]).samples) == sorted([shown, "left_right"])
    assert "$title ${lead} ?" in pages[1]


def test_one_column_alone_and_answers_nobody_judged(run: Path) -> None:
    only = {"after": ""}
    _write_rows(
        run, [_row(0, answers=only, correct={"after": False}, parsed={}), _row(1, answers=only, correct={}, parsed={})]
    )
    _report(run)
    text = (run / "samples.html").read_text()
    samples = _Page(text).samples
    assert {sample["data-change"] for sample in samples} == {"same"}
    assert sorted(sample["data-wrong"] or "" for sample in samples) == ["0", "1"]
    assert "empty answer" in text
    assert "not judged" in text


def test_format_failures_are_marked_but_a_length_of_zero_is_none(run: Path) -> None:
    found = ({"after": False}, {"after": None}, {"after": 0.0}, {"after": True})
    _write_rows(run, [_row(number, id=str(number), parsed=parsed) for number, parsed in enumerate(found)])
    rows = read_samples(run / "samples.jsonl", BadRows())
    assert [row.parsed["after"] for row in rows] == [False, False, True, True]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_cut_short_anywhere_is_named_instead(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(whole)
    data = whole.read_bytes()
    rows = []
    for length in range(0, len(data) // 2, 7):
        cut = tmp_path / f"{length}{suffix}"
        cut.write_bytes(data[:length])
        rows.append(Sample(str(length), "kind", "direct", "Is it?", "yes", images=(cut,)))
    assert write_samples_page(tmp_path / "page.html", rows, title="cut", limit=1000) == len(rows)
    text = (tmp_path / "page.html").read_text()
    assert text.count("picture cannot be read") == len(rows) > 20
    assert "<img" not in text


@pytest.mark.parametrize(("size", "mode"), [((900, 300), "RGB"), ((40, 40), "P"), ((700, 900), "RGBA")])
def test_large_and_unusual_pictures_fit_the_page(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    path = tmp_path / ("picture.gif" if mode == "P" else "picture.png")
    Image.new(mode, size, 5).save(path)
    row = Sample("a", "kind", "direct", "Is it?", "yes", images=(path,))
    write_samples_page(tmp_path / "page.html", [row], title="large")
    (source,) = _Page((tmp_path / "page.html").read_text()).sources
    assert source.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as shown:
        assert max(shown.size) <= LARGEST_SIDE
        assert shown.size[0] / shown.size[1] == pytest.approx(size[0] / size[1], rel=0.01)
