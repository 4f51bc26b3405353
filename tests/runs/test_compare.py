"""Comparisons: the right runs side by side, figures that an independent count gives, and a page that works in a browser."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparable import asked, write_failed, write_run
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.runs.comparing import Comparing, compare_runs, page
from spatial_lightning.runs.comparing.figures import mean_curve, pareto
from spatial_lightning.runs.comparing.grouping import make_sections, pick_baseline, without_repeats
from spatial_lightning.runs.comparing.outcomes import Sureness, outcomes
from spatial_lightning.runs.comparing.reading import LeftOut, Run, find_runs, read_run
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.curves import Curve
from spatial_lightning.runs.entry import compare_main

SURE = Sureness(resamples=500)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DPO = {"objective._target_": "spatial_lightning.modules.DPOModule", "objective.beta": 0.1}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two experiments with three seeds each; dpo is right on far more questions."""
    questions = asked(tmp_path / "pictures")
    made = []
    for seed in range(3):
        wrong = {"sft": range(0, 20 + seed), "dpo": range(0, 3 + seed)}
        for name, settings in (("sft", {}), ("dpo", DPO)):
            place = tmp_path / "outputs" / "sweep" / "time" / f"{name}-{seed}"
            made.append(write_run(place, questions, wrong[name], experiment=name, seed=seed, settings=settings))
    return made


def _compare(tmp_path: Path, given: Any, **settings: Any) -> Path:
    names = [str(path) for path in given] if isinstance(given, list) else str(given)
    to = settings.pop("to", str(tmp_path / "comparison"))
    return compare_runs(Comparing(**{"runs": names, "to": to, "resamples": 500} | settings), say=lambda text: None)


def _sections(paths: list[Path]) -> Any:
    kept, _ = without_repeats(run for run in map(read_run, paths) if isinstance(run, Run))
    return make_sections(kept)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------- which runs belong together


def test_runs_that_differ_in_the_seed_only_are_one_group(runs: list[Path]) -> None:
    (section,) = _sections(runs)
    assert [(group.name, group.seeds) for group in section.groups] == [("dpo", (0, 1, 2)), ("sft", (0, 1, 2))]
    # One column for what always differs together, named after the class; the module's seed follows the run's own.
    assert section.columns == {"objective": ("objective._target_", "objective.beta")}
    assert [group.values["objective"] for group in section.groups] == ["DPOModule", "SFTModule"]
    assert not section.warnings


def test_groups_of_one_experiment_are_named_after_what_differs(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    paths = [
        write_run(tmp_path / f"{lr}-{seed}", questions, [seed], seed=seed, settings={"optimization.lr": lr})
        for lr in (1e-3, 1e-4)
        for seed in (0, 1)
    ]
    (section,) = _sections(paths)
    assert [(group.name, len(group.runs)) for group in section.groups] == [
        ("sft (lr=0.0001)", 2),
        ("sft (lr=0.001)", 2),
    ]


def test_a_setting_that_older_runs_lack_counts_as_switched_off_and_a_fixed_seed_as_a_setting(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    changes: list[dict[str, Any]] = [{}, {"backbone.liger": False, "resume": "x"}, {"data.seed": 7}]
    paths = [write_run(tmp_path / str(n), questions, [], seed=n, settings=change) for n, change in enumerate(changes)]
    (section,) = _sections(paths)
    assert sorted(group.seeds for group in section.groups) == [(0, 1), (2,)]


def test_runs_on_other_questions_are_told_apart_and_what_they_share_is_said(tmp_path: Path, runs: list[Path]) -> None:
    fewer = write_run(tmp_path / "fewer", asked(tmp_path / "pictures", 6), [], experiment="less")
    to = _compare(tmp_path, [*runs, fewer])
    text = (to / "comparison.md").read_text()
    assert "2 different sets of questions" in text
    assert "have 18 questions in common, of 30 and 18" in text
    assert "## small corpus (questions A)" in text
    assert [row["group"] for row in _rows(to / "groups.csv")] == ["dpo", "sft", "less"]
    assert {path.parent.name for path in (to / "plots").rglob("*.png")} == {"1", "2"}


def test_evaluations_are_grouped_by_the_training_behind_their_checkpoints(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    paths = []
    for seed in range(2):
        trained = write_run(tmp_path / f"train-{seed}", questions, [], experiment="fdpo", seed=seed)
        checkpoint = trained / "checkpoints" / "step-000010"
        checkpoint.mkdir(parents=True)
        place = {"checkpoint": str(checkpoint), "benchmark.reader.path": f"/anywhere/{seed}"}
        facts = {"benchmark": "whatsup_a", "checkpoint": str(checkpoint)}
        paths.append(write_run(tmp_path / f"eval-{seed}", questions, [seed], experiment="x", settings=place, **facts))
    raw = {"benchmark": "whatsup_a", "checkpoint": None}
    paths.append(write_run(tmp_path / "raw", questions, range(20), experiment="tiny", settings={"checkpoint": None}))
    (tmp_path / "raw" / "summary.json").write_text(
        json.dumps(json.loads((tmp_path / "raw" / "summary.json").read_text()) | raw)
    )
    (section,) = _sections(paths)
    assert section.name == "whatsup_a"
    assert [(group.name, group.seeds) for group in section.groups] == [("fdpo", (0, 1)), ("tiny", (0,))]
    # What was not trained is what others are compared to.
    baseline = pick_baseline(section, None)
    assert baseline is not None
    assert baseline.name == "tiny"


def test_of_repeated_runs_the_newest_counts_and_the_difference_is_said(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    old, new = (write_run(tmp_path / "outputs" / name, questions, wrong) for name, wrong in (("1", [0, 1]), ("2", [0])))
    os.utime(old / "summary.json", ns=(1, 1))
    text = (_compare(tmp_path, tmp_path / "outputs") / "comparison.md").read_text()
    assert f"{old}: repeats {new} (same content and seed, 1 of 30 verdicts differ); the newer one counts" in text
    assert "1 run of one group" in text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ConfigError: no such thing\nand more\n", "failed: ConfigError: no such thing"),
        (
            "ConfigError: these keys are wrong:\n  lr: too large\n  beta: missing\n",
            "failed: ConfigError: these keys are wrong: lr: too large beta: missing",
        ),
        (None, "still runs or was killed"),
        ("", "failed, and error.txt is empty"),
    ],
)
def test_runs_that_did_not_finish_are_listed_with_the_reason(
    tmp_path: Path, runs: list[Path], error: str | None, said: str
) -> None:
    failed = write_failed(runs[0].parent / "broken", error)
    if error == "":
        (failed / "error.txt").write_text("")
    text = (_compare(tmp_path, runs[0].parent) / "comparison.md").read_text()
    assert re.search(rf"Left out: {re.escape(str(failed))}: .*{said}\.", text)
    assert "6 runs in 2 groups" in text


def test_runs_that_finished_without_usable_answers_are_listed(tmp_path: Path, runs: list[Path]) -> None:
    (runs[0] / "samples.jsonl").unlink()
    (runs[1] / "summary.json").write_text("{half")
    (runs[2] / "samples.jsonl").write_text((runs[2] / "samples.jsonl").read_text() + "{half\n")
    reasons = {read.path: read.reason for read in map(read_run, runs) if isinstance(read, LeftOut)}
    assert reasons == {
        runs[0]: "finished, but samples.jsonl is missing",
        runs[1]: "summary.json cannot be read",
    }
    (section,) = _sections(runs)
    assert any("1 of 31 rows of samples.jsonl cannot be read" in warning for warning in section.warnings)


def test_a_summary_of_another_form_is_left_out_and_the_others_are_compared(tmp_path: Path, runs: list[Path]) -> None:
    for run, odd in zip(runs, ({"metrics": [1]}, {"baseline": "none"}, {"baseline": {"warm_start": {}}}), strict=False):
        path = run / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    text = (_compare(tmp_path, runs) / "comparison.md").read_text()
    assert "'metrics' in summary.json does not hold figures by name" in text
    assert "'baseline' in summary.json does not hold figures by name" in text
    assert "4 runs in 2 groups" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixel_limits": [256, 999]}, "differ in their pixel limits"),
        ({"prompt": "Think. {question}"}, "differ in their prompts"),
        ({"git_sha": "def5678"}, "are of other commits"),
        ({"git_sha": "abc1234+"}, "working tree differed"),
        ({"metrics": {"accuracy": 0.99}}, "summary.json states 99.0 % right, samples.jsonl holds 100.0 %"),
        ({"baseline": {"warm_start": {"accuracy": 0.1}}}, "did not start from the same state"),
        ({"benchmark_version": {"digest": "aa"}}, None),
        ({"placeholders": True}, "Pictures were placeholders"),
    ],
)
def test_what_makes_runs_less_comparable_is_said(
    tmp_path: Path, runs: list[Path], change: dict[str, Any], said: str | None
) -> None:
    odd = write_run(tmp_path / "odd", asked(tmp_path / "pictures"), [], experiment="odd", seed=0, **change)
    (section,) = _sections([*runs, odd])
    found = [warning for warning in section.warnings if said is not None and said in warning]
    assert len(found) == (0 if said is None else 1)
    # Seeds of the odd run are told as well, and nothing else.
    assert len(section.warnings) == len(found) + 1


def test_runs_of_one_seed_count_as_one(tmp_path: Path, runs: list[Path]) -> None:
    questions = asked(tmp_path / "pictures")
    for seed in range(3):  # an older configuration lacks a setting, which counts as switched off
        settings = {**DPO, "objective.shuffled": False}
        write_run(tmp_path / f"dpo-{seed}", questions, range(3 + seed), experiment="dpo", seed=seed, settings=settings)
    once, twice = (_sections(paths)[0] for paths in (runs, [*runs, *sorted(tmp_path.glob("dpo-*"))]))
    assert twice.group("dpo").seeds == (0, 0, 1, 1, 2, 2)
    assert any("no independent repetitions" in warning for warning in twice.warnings)
    plain, repeated = (outcomes(section, section.group("sft"), SURE)[0] for section in (once, twice))
    assert repeated.interval == pytest.approx(plain.interval)
    assert repeated.difference == plain.difference


# ---------------------------------------------------------------------- figures and sentences


def test_figures_are_those_of_an_independent_count(tmp_path: Path, runs: list[Path]) -> None:
    to = _compare(tmp_path, runs, baseline="sft")
    dpo, sft = _rows(to / "groups.csv")
    right = {"dpo": [27, 26, 25], "sft": [10, 9, 8]}
    assert float(dpo["accuracy"]) == pytest.approx(sum(right["dpo"]) / 90)
    assert float(dpo["difference"]) == pytest.approx((sum(right["dpo"]) - sum(right["sft"])) / 90)
    assert float(dpo["difference_low"]) < float(dpo["difference"]) < float(dpo["difference_high"])
    assert float(dpo["p"]) == float(dpo["p_corrected"]) < 0.05
    assert sft["difference"] == ""
    assert (float(sft["warm_start"]), float(sft["wall_s"]), float(sft["peak_memory_gb"])) == (0.5, 121.0, 1.7)
    by_run = {(row["experiment"], int(row["seed"])): float(row["accuracy"]) for row in _rows(to / "runs.csv")}
    assert by_run == pytest.approx({(name, s): n / 30 for name, own in right.items() for s, n in enumerate(own)})
    text = (to / "comparison.md").read_text()
    assert "dpo is better than sft by +56.7 points" in text
    assert "Differences are to sft, as asked." in text


def test_the_order_of_runs_changes_nothing(tmp_path: Path, runs: list[Path]) -> None:
    read: list[dict[str, bytes]] = []
    for given_runs in (runs, runs[::-1], [runs[0].parent, runs[2]]):
        to = _compare(tmp_path, given_runs, name="same")
        names = ("comparison.md", "groups.csv", "runs.csv", "report.html")
        read.append({name: (to / name).read_bytes() for name in names})
    assert read[0] == read[1] == read[2]


def test_a_run_beside_itself_differs_by_nothing(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    paths = [write_run(tmp_path / name, questions, range(7), experiment=name) for name in ("a", "b")]
    (section,) = _sections(paths)
    found = outcomes(section, section.groups[0], SURE)
    difference = found[1].difference
    assert difference is not None
    own = difference.compared
    assert (own.difference, own.low, own.high, difference.corrected, difference.verdict) == (0, 0, 0, 1, "open")
    assert "right on exactly the same questions" in (_compare(tmp_path, paths) / "comparison.md").read_text()


@given(st.lists(st.integers(0, 29), max_size=30), st.lists(st.integers(0, 29), max_size=30))
def test_swapping_baseline_and_group_swaps_the_sign(tmp_path_factory: Any, first: list[int], second: list[int]) -> None:
    place = tmp_path_factory.mktemp("swap")
    questions = asked(place)
    paths = [write_run(place / name, questions, w, experiment=name) for name, w in (("a", first), ("b", second))]
    (section,) = _sections(paths)
    ends = []
    for baseline in section.groups:
        found = {own.group.name: own for own in outcomes(section, baseline, SURE)}
        (difference,) = (own.difference for own in found.values() if own.difference is not None)
        ends.append((difference.compared.difference, difference.corrected))
        for own in found.values():
            assert 0 <= own.interval[0] <= own.accuracy + 1e-9
            assert own.accuracy - 1e-9 <= own.interval[1] <= 1
    assert ends[0][0] == pytest.approx(-ends[1][0])
    assert ends[0][1] == pytest.approx(ends[1][1])


def test_no_difference_is_not_sold_as_equality_and_few_seeds_are_named(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    paths = [write_run(tmp_path / name, questions, w, experiment=name) for name, w in (("a", [0, 1]), ("b", [2, 3, 4]))]
    text = (_compare(tmp_path, paths) / "comparison.md").read_text()
    assert "No difference between b and a can be concluded" in text
    assert "That is no proof that they are equal" in text
    assert "With fewer than 3 seeds (in all groups)" in text


def test_a_group_that_does_not_beat_the_blind_answer_is_named(tmp_path: Path, runs: list[Path]) -> None:
    text = (_compare(tmp_path, runs) / "comparison.md").read_text()
    blind = re.search(
        r"Not shown to be better than the best answer that ignores the picture \([\d.]+ %\): (.*?)\.", text
    )
    assert blind is not None
    assert blind[1] == "sft"


# ---------------------------------------------------------------------- plots


def test_every_plot_that_has_something_to_show_is_drawn(tmp_path: Path, runs: list[Path]) -> None:
    to = _compare(tmp_path, runs)
    names = {path.stem for path in (to / "plots").iterdir()}
    assert names == {"accuracy_by_kind", "accuracy_by_distance", "learning", "margins", "cost"}
    for run in runs:
        (run / "metrics.csv").unlink()
    names = {path.stem for path in (_compare(tmp_path, runs, to=str(tmp_path / "other")) / "plots").iterdir()}
    assert names == {"accuracy_by_kind", "accuracy_by_distance", "cost"}


def test_curves_are_averaged_where_all_of_them_are() -> None:
    first = Curve(np.array([0, 10, 20]), np.array([0.0, 1.0, 2.0]))
    second = Curve(np.array([5, 15, 30]), np.array([4.0, 4.0, 4.0]))
    steps, values = mean_curve([first, second])
    assert steps.tolist() == [5, 10, 15, 20]
    np.testing.assert_allclose(values, [[0.5, 1.0, 1.5, 2.0], [4.0] * 4])


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_front_holds_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = pareto(points)
    for cost, accuracy in points:
        beaten = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)
        assert ((cost, accuracy) in front) == (not beaten)


# ---------------------------------------------------------------------- what cannot be compared


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": None}, "runs is missing"),
        ({"runs": "PLACE/nowhere"}, "nowhere is no directory"),
        ({"runs": "PLACE/no*where"}, "matches no directory"),
        ({"runs": "PLACE/pictures"}, "holds no run directory"),
        ({"baseline": "sfd"}, "baseline=sfd is no group, experiment or directory of these runs; did you mean sft"),
        ({"to": "PLACE/pictures"}, "something else is there"),
        ({"samples": 0}, "samples is 0; allowed: 1 or more"),
        ({"level": 1.0}, "level is 1.0"),
        ({"wandb": "sometimes"}, "wandb is 'sometimes'; allowed: auto, online, offline, off"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    tmp_path: Path, runs: list[Path], change: dict[str, Any], said: str
) -> None:
    settings: dict[str, Any] = {"runs": str(runs[0].parent), "to": str(tmp_path / "to"), "resamples": 50} | change
    settings = {k: v.replace("PLACE", str(tmp_path)) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(ValueError, match=re.escape(said)):
        compare_runs(Comparing(**settings), say=lambda text: None)
    assert not (tmp_path / "to").exists()


def test_nothing_but_failed_runs_is_refused_with_their_errors(tmp_path: Path) -> None:
    write_failed(tmp_path / "outputs" / "1", "ValueError: too bad\n")
    with pytest.raises(
        ConfigError, match=r"none of 1 run directories can be compared:\n.*1: failed: ValueError: too bad"
    ):
        _compare(tmp_path, tmp_path / "outputs")


def test_a_name_that_stands_for_several_groups_is_no_baseline(tmp_path: Path) -> None:
    questions = asked(tmp_path)
    paths = [write_run(tmp_path / str(lr), questions, [], settings={"optimization.lr": lr}) for lr in (1e-3, 1e-4)]
    with pytest.raises(
        ConfigError, match=r"stands for several groups: choose one of sft \(lr=0.0001\); sft \(lr=0.001\)"
    ):
        _compare(tmp_path, paths, baseline="sft")
    text = (_compare(tmp_path, paths, baseline="sft (lr=0.001)") / "comparison.md").read_text()
    assert "Differences are to sft (lr=0.001), as asked." in text


def test_folders_and_patterns_find_each_run_once_and_nothing_else(tmp_path: Path, runs: list[Path]) -> None:
    (runs[0] / "checkpoints" / "step-000010").mkdir(parents=True)
    (runs[0] / "checkpoints" / "step-000010" / "config.yaml").write_text("a: 1\n")
    (runs[0].parent / "doctor").mkdir()
    (runs[0].parent / "doctor" / "config.yaml").write_text("a: 1\n")
    _compare(tmp_path, runs, to=str(runs[0].parent / "compared"))
    wanted = sorted(runs)
    for given_runs in (
        [str(runs[0].parents[2])],
        [str(runs[0].parents[1] / "*" / "[sd]*")],
        [*map(str, runs), str(runs[0])],
    ):
        assert find_runs(given_runs) == wanted


def test_the_command_line_compares_and_refuses_keys_that_do_not_exist(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["compare.py", f"outputs={tmp_path / 'outputs'}", "resamples=50"]
    monkeypatch.setattr(sys, "argv", [*common, f"runs=[{runs[0]},{runs[1]}]"])
    assert compare_main() == 0
    said = capsys.readouterr().out
    assert "| dpo " in said
    to = Path(said.rpartition("comparison: ")[2].strip())
    assert to.parent == tmp_path / "outputs" / "compare"
    assert to.name.startswith("sweep_")
    monkeypatch.setattr(sys, "argv", [*common, "run=x"])
    assert compare_main() == 2
    assert "there is no key 'run'; did you mean runs?" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*common, f"runs={runs[0]}", "+surprise=1"])
    assert compare_main() == 1
    assert "there is no key 'surprise'" in capsys.readouterr().out


# ---------------------------------------------------------------------- the page


NASTY = "</div></article><script>alert('x')</script><img src=x onerror=alert(1)> \"'& $title ${parts} \ud800"


def test_whatever_a_model_or_a_corpus_writes_stays_text(tmp_path: Path, runs: list[Path]) -> None:
    plain = (_compare(tmp_path, runs) / "report.html").read_text()
    for run in runs:
        rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        for row in rows:
            row |= {"kind": NASTY, "question": NASTY, "answers": dict.fromkeys(row["answers"], NASTY)}
        (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"corpus": NASTY, "experiment": NASTY}))
    to = _compare(tmp_path, runs)
    text = (to / "report.html").read_text()
    for tag in ("<script", "<article", "<img src=x", "</article"):
        assert text.count(tag) == plain.count(tag)
    assert html.escape(NASTY.replace("\ud800", "?")) in text
    assert "<script>" not in (to / "comparison.md").read_text()
    assert _rows(to / "groups.csv")


def test_pictures_are_embedded_once_by_content_and_the_page_stays_small(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (_compare(tmp_path, runs) / "report.html").read_text()
    sources = json.loads(text.partition('id="pictures">')[2].partition("</script>")[0])
    assert len(sources) == 10
    assert text.count("<article") == text.count("data-picture=") == 30
    assert not re.findall(r'(?:src|href)="(?!data:image/png)', text)
    assert str(tmp_path) not in text.partition("<main>")[2]
    plots = sum(path.stat().st_size for path in (tmp_path / "comparison" / "plots").iterdir()) * 4 // 3
    monkeypatch.setattr(page, "LARGEST_PAGE", plots + 20_000)
    short = (_compare(tmp_path, runs) / "report.html").read_text()
    assert 0 < short.count("<article") < 30
    assert f"{short.count('<article')} of 30 questions" in short


def test_long_answers_are_cut_and_missing_pictures_named(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures", 2)
    run = write_run(tmp_path / "run", questions, [], answers={0: "yes " * 5000})
    (tmp_path / "pictures" / "scene_1.png").unlink()
    text = (_compare(tmp_path, run) / "report.html").read_text()
    assert "… (20,000 characters in all)" in text
    assert "picture not found: scene_1.png" in text


@pytest.fixture
def dom(tmp_path: Path) -> Callable[[str], str]:
    """The page of a comparison as a browser has it after its script ran, by address fragment."""
    if CHROMIUM is None:
        pytest.skip("no chromium or google-chrome on this machine")

    def dump(fragment: str) -> str:
        address = (tmp_path / "comparison" / "report.html").as_uri() + fragment
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [str(CHROMIUM), *flags, "--virtual-time-budget=2000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return dump


def _articles(dom: str) -> list[tuple[str, list[float], bool]]:
    """Kind, shares of right runs by group, and whether it is shown, of each question on the page."""
    found = []
    for tag in re.findall(r"<article[^>]*>", dom):
        fields = dict(re.findall(r'data-(\w+)="([^"]*)"', tag))
        found.append((fields["kind"], [float(s) for s in fields["shares"].split()], 'hidden=""' not in tag))
    return found


@pytest.mark.slow
def test_filters_in_the_address_show_only_what_fits(
    tmp_path: Path, runs: list[Path], dom: Callable[[str], str]
) -> None:
    _compare(tmp_path, runs)
    rules: dict[str, Callable[[str, list[float]], bool]] = {
        "": lambda kind, shares: True,
        "#kind=left_right": lambda kind, shares: kind == "left_right",
        "#g0=right&g1=wrong": lambda kind, shares: shares == [1.0, 0.0],
        "#a=0&b=1": lambda kind, shares: shares[0] != shares[1],
        "#q=further+behind&kind=nonsense": lambda kind, shares: kind == "front_behind",
        "#q=neverwritten": lambda kind, shares: False,
    }
    for fragment, rule in rules.items():
        text = dom(fragment)
        articles = _articles(text)
        assert len(articles) == 30
        for kind, shares, shown in articles:
            assert shown == rule(kind, shares), (fragment, kind, shares)
        count = sum(shown for *_, shown in articles)
        assert f"<output>{count} of 30 shown</output>" in text
        assert text.count('src="data:image/png') >= 30
        assert ('<p class="none">' in text) == (count == 0)
