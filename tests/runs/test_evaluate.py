"""Evaluation: what is answered, what goes on after a kill, what is refused, and what the figures are of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evaluations import ROWS, SMALL, evaluation, procedural, quiet, read_run, vsr_captions
from omegaconf import OmegaConf
from small_runs import small

from spatial_lightning.backbones import Backbone
from spatial_lightning.evaluation.protocols import Protocol
from spatial_lightning.records import BadRows, Question, RecordError
from spatial_lightning.runs.benchmarks import Benchmark, Opened
from spatial_lightning.runs.build import build
from spatial_lightning.runs.checkpoints import checkpoint_of
from spatial_lightning.runs.config import CONF, PROJECT, ConfigError, check_command_line, compose_run
from spatial_lightning.runs.evaluated import load_evaluated
from spatial_lightning.runs.evaluating import evaluate_benchmark
from spatial_lightning.runs.export import export_run
from spatial_lightning.runs.lmms import LmmsTasks, command_of, read_results
from spatial_lightning.runs.predictions import PREDICTIONS, Journal
from spatial_lightning.runs.training import train


def test_an_evaluation_leaves_answers_scores_and_what_was_asked(scored: Path, finished: Path) -> None:
    summary, rows = read_run(scored)
    assert len(rows) == summary["benchmark_version"]["rows"] * 4 == 12
    stored = Journal(scored / PREDICTIONS).answers
    assert stored == {row["id"]: row["answers"]["answer"] for row in rows}
    assert summary["metrics"]["accuracy"] == sum(row["correct"]["answer"] for row in rows) / len(rows)
    assert summary["baseline"]["best constant answer"]["accuracy"] > 0
    assert summary["experiment"] == "fdpo_vit_unfrozen"
    assert summary["checkpoint"] == str(checkpoint_of(finished))
    assert summary["prompt"] == "{question}"
    assert summary["placeholders"] is False
    report = (scored / "report.md").read_text()
    for text in ("best constant answer", "samples.html", "procedural_default", summary["config_hash"]):
        assert text in report
    assert (scored / "samples.html").is_file()
    assert "accuracy" in (scored / "metrics.csv").read_text()
    assert all("benchmark" in path for row in rows for path in row["images"])


def test_the_trained_weights_answer(place: Path, finished: Path) -> None:
    """The newest checkpoint, a folder of it and an export hold the same weights, which are not the fresh ones."""
    export = place / "exports" / "for evaluation"
    if not export.exists():
        export_run(finished, export)
    given = [finished, checkpoint_of(finished), export]
    loaded = [load_evaluated(procedural(place, f"checkpoint='{path}'")) for path in given]
    states = [evaluated.backbone.model.state_dict() for evaluated in loaded]
    fresh = load_evaluated(procedural(place, "backbone=tiny", "backbone.weights=random")).backbone.model.state_dict()
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in states[0])
    assert any(not torch.equal(fresh[name], states[0][name]) for name in states[0])
    assert [evaluated.checkpoint for evaluated in loaded] == [given[1], given[1], export]


def test_adapters_and_the_system_turn_of_a_run_are_its_own(place: Path, tmp_path: Path) -> None:
    overrides = ["towers=lora", "towers.language.rank=2", "data.module.system=Be brief.", "optimization.lr=0.05"]
    run = train(compose_run(small(place, *overrides)), tmp_path / "run")
    evaluated = load_evaluated(procedural(place, f"checkpoint={run}"))
    assert evaluated.system == "Be brief."
    assert list(evaluated.backbone.adapters)
    assert any(float(value.detach().abs().sum()) > 0 for _, value in evaluated.backbone.adapter_parameters())
    assert load_evaluated(procedural(place, f"checkpoint={run}", "system=''")).system is None


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not_killed(
    place: Path, scored: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first batch, with half a line behind it."""
    config = procedural(place, f"checkpoint={finished}", f"outputs={tmp_path}")
    folder = tmp_path / "evaluate" / "procedural_default"
    generated: list[int] = []
    generate = Backbone.generate

    def dies(self: Backbone, prompts: Any, **settings: Any) -> list[str]:
        if generated:
            raise KeyboardInterrupt
        generated.append(len(prompts))
        return generate(self, prompts, **settings)

    monkeypatch.setattr(Backbone, "generate", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate_benchmark(config, folder / "killed", quiet)
    with (folder / "killed" / PREDICTIONS).open("a") as file:
        file.write('{"id": "half a li')

    def counts(self: Backbone, prompts: Any, **settings: Any) -> list[str]:
        generated.append(len(prompts))
        return generate(self, prompts, **settings)

    monkeypatch.setattr(Backbone, "generate", counts)
    heard: list[str] = []
    fresh = folder / "new"
    fresh.mkdir()
    assert evaluate_benchmark(config, fresh, heard.append) == folder / "killed"
    assert generated == [4, 4, 4]
    assert not fresh.exists()
    assert any("4 of 12 answers are there" in text for text in heard)
    assert any("12/12 answers (100 %)" in text for text in heard)
    assert read_run(folder / "killed")[1] == read_run(scored)[1]
    assert "from before the run was stopped" in (folder / "killed" / "report.md").read_text()
    # Finished ones are not gone on with: the same command is a new run.
    assert evaluate_benchmark(config, fresh, quiet) == fresh


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("max_new_tokens=5", "max_new_tokens: 4 there, 5 now"),
        ("benchmark.prompt='Look. {question}'", "prompt: "),
        ("benchmark.scenes.seed=1", "questions: "),
        ("system=Be brief.", "system: None there, Be brief. now"),
        ("checkpoint=null", "weights: "),
    ],
)
def test_another_content_does_not_go_on(place: Path, scored: Path, finished: Path, override: str, named: str) -> None:
    other = ["backbone=tiny", "backbone.weights=random"] if override.startswith("checkpoint") else []
    config = procedural(place, f"checkpoint={finished}", f"run={scored}", *other, override)
    before = (scored / PREDICTIONS).read_bytes()
    with pytest.raises(ConfigError, match="holds answers to something else") as refused:
        evaluate_benchmark(config, scored.parent / "never", quiet)
    assert named in str(refused.value)
    assert (scored / PREDICTIONS).read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("backbone=tiny", "backbone.max_pixels=8192"), "pixel limits: "),
        (("backbone=hf", "backbone.path=elsewhere"), "path: "),
        (("backbone=tiny", "backbone.weights=pretrained"), "weights: random in the checkpoint, pretrained asked for"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    place: Path, finished: Path, overrides: tuple[str, ...], named: str
) -> None:
    random = () if "backbone.weights=pretrained" in overrides else ("backbone.weights=random",)
    with pytest.raises(ConfigError, match="is not what backbone=... asks for") as refused:
        load_evaluated(procedural(place, f"checkpoint={finished}", *overrides, *random))
    assert named in str(refused.value)


def test_an_export_of_something_else_is_refused(place: Path, finished: Path, tmp_path: Path) -> None:
    export = export_run(finished, tmp_path / "export")
    own = [f"checkpoint={export}", "backbone=tiny"]
    assert load_evaluated(procedural(place, *own)).exported == export
    with pytest.raises(ConfigError, match="pixel limits: "):
        load_evaluated(procedural(place, *own, "backbone.max_pixels=8192"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("benchmark=procedural",), "nothing to evaluate"),
        (("backbone=tiny",), "benchmark is missing: benchmark=NAME, one of .*procedural"),
        (("benchmark=procedural", "backbone=tiny", "predictions=x.jsonl"), "leave checkpoint and backbone out"),
        (("benchmark=procedural", "backbone=tiny", "engine=fast"), "allowed: transformers, vllm"),
        (("benchmark=procedural", "backbone=tiny", "engine=vllm"), "vLLM, which is not installed"),
        (("benchmark=procedural", "backbone=tiny", "limit=0"), "limit is 0"),
        (("benchmark=procedural", "backbone=tiny", "max_bad_fraction=-0.1"), "a share, from 0 to 1"),
        (("benchmark=procedural", "backbone=tiny", *SMALL, f"run={__file__}"), "is a file"),
        (("benchmark=procedural", "backbone=tiny", "benchmark.scenes.size=[9]"), "width and height"),
        (("benchmark=procedural", "backbone=tiny", "benchmark.scenes.difficulty=odd"), "allowed: easy, default, hard"),
        (("benchmark=vsr_random", "backbone=tiny"), "benchmark.reader.path has no value"),
        (("benchmark=clevr", "backbone=tiny"), "benchmark.scenes.root has no value"),
        (("benchmark=lmms", "backbone=tiny", "benchmark.tasks=[pope]"), "lmms-eval, which is not installed"),
        (("benchmark=lmms", "backbone=tiny", "benchmark.tasks=pope"), "give a list"),
    ],
)
def test_what_cannot_be_is_refused_in_words(place: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_benchmark(evaluation(place, *overrides), place / "never", quiet)


@pytest.mark.parametrize(
    ("argument", "closest"),
    [
        ("benchmark=procedual", "procedural"),
        ("checkpont=x", "checkpoint"),
        ("benchmark.scenes.dificulty=easy", "benchmark.scenes.difficulty"),
        ("+max_tokens=3", "max_new_tokens"),
    ],
)
def test_mistyped_names_fail_with_the_closest(argument: str, closest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean.*{closest}"):
        check_command_line(["benchmark=procedural", argument], "evaluate")


@pytest.mark.usefixtures("finished")
def test_no_training_sees_the_procedural_benchmark(place: Path, tmp_path: Path) -> None:
    """The same twice, other for another difficulty, and of scenes that differ from those of a corpus with the same seed."""

    def open_benchmark(*overrides: str, cache: Path) -> Any:
        benchmark = build(procedural(place, *overrides).benchmark)
        return benchmark.open(cache, max_bad_fraction=0.0, say=quiet)

    first, again = (open_benchmark(cache=tmp_path / name) for name in ("one", "two"))
    hard = open_benchmark("benchmark.scenes.difficulty=hard", cache=tmp_path / "one")
    assert first.version["content"] == again.version["content"] != hard.version["content"]
    assert [question for _, question in first.asked] == [question for _, question in again.asked]
    pixels = [[Path(path).read_bytes() for (path,), _ in opened.asked] for opened in (first, again)]
    assert pixels[0] == pixels[1]
    trained = {path.read_bytes() for path in (place / "cache" / "scenes").glob("**/*.png")}
    assert trained
    assert not trained & set(pixels[0])
    assert {question.kind for question in first.scored} != {question.kind for _, question in first.asked}


def test_clevr_scenes_are_asked_about(place: Path, shared_data: Path, tmp_path: Path) -> None:
    root = f"benchmark.scenes.root={shared_data / 'clevr'}"
    config = evaluation(
        place, "benchmark=clevr", root, "benchmark.scenes.images=2", "benchmark.scenes.reasoned_per_image=0"
    )
    opened = build(config.benchmark).open(tmp_path, max_bad_fraction=0.0, say=quiet)
    assert len({images for images, _ in opened.asked}) == 2
    assert all(path.is_file() and "val" in path.name for images, _ in opened.asked for path in images)


def test_a_glob_has_the_hash_of_its_files(place: Path, vsr: Path, tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        config = vsr_captions(place, path, f"benchmark.reader.images={tmp_path}")
        return build(config.benchmark).open(tmp_path / "cache", max_bad_fraction=0.0, say=quiet).version["digest"]

    one = digest(vsr)
    assert digest(vsr.with_name("d*.jsonl")) == one
    (tmp_path / "dev2.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert digest(vsr.with_name("d*.jsonl")) != one == digest(vsr)


def test_a_published_file_is_checked_and_missing_pictures_can_be_drawn(place: Path, vsr: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png").unlink()
    with pytest.raises(RecordError, match=r"2 of 4 rows cannot be used, max_bad_fraction allows 0:\n  .*dev.jsonl:3"):
        evaluate_benchmark(vsr_captions(place, vsr, "backbone=tiny"), tmp_path / "refused", quiet)
    heard: list[str] = []
    overrides = ["backbone=tiny", "backbone.weights=random", "placeholders=true", "benchmark.rows=2195"]
    config = vsr_captions(place, vsr, *overrides, f"benchmark.digest={'0' * 32}")
    run = evaluate_benchmark(config, tmp_path / "run", heard.append)
    summary, rows = read_run(run)
    assert summary["placeholders"] is True
    assert summary["benchmark_version"]["placeholders"] == 1
    said_of = "\n".join(summary["benchmark_version"]["warnings"])
    report = (run / "report.md").read_text()
    for text in (
        "4 rows, the published file of vsr_random has 2195",
        "content hash is",
        "the figures say nothing about vision",
    ):
        assert text in said_of
        assert text in report
    assert "Pictures are placeholders" in report
    assert [Path(row["images"][0]).is_file() for row in rows] == [True] * 4
    without = evaluate_benchmark(
        vsr_captions(place, vsr, *overrides[:2], "max_bad_fraction=0.5"), tmp_path / "half", heard.append
    )
    assert len(read_run(without)[1]) == 2


def test_a_limit_asks_evenly_and_says_so(place: Path, vsr: Path, tmp_path: Path) -> None:
    config = vsr_captions(place, vsr, "backbone=tiny", "backbone.weights=random", "limit=2")
    heard: list[str] = []
    summary, rows = read_run(evaluate_benchmark(config, tmp_path / "run", heard.append))
    assert "warning: only 2 of 4 questions were asked" in heard
    assert [row["id"] for row in rows] == ["dev/0", "dev/2"]
    assert "only 2 of 4 questions were asked" in summary["benchmark_version"]["warnings"]


def test_a_limit_takes_the_answers_to_its_questions_out_of_all(place: Path, vsr: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({f"dev/{index}": row["caption"] for index, row in enumerate(ROWS)}))
    run = evaluate_benchmark(vsr_captions(place, vsr, f"predictions={path}", "limit=2"), tmp_path / "run", quiet)
    summary, rows = read_run(run)
    assert [row["answers"]["answer"] for row in rows] == [ROWS[0]["caption"], ROWS[2]["caption"]]
    assert summary["unused"] == {}


def test_a_limit_warns_of_incomplete_groups() -> None:
    asked = [((), Question(f"q{i}", "Which?", "a", "on", ("a", "b"), tags={"pair": str(i // 2)})) for i in range(4)]
    opened = Opened(asked, [question for _, question in asked], BadRows(), {"warnings": []})
    assert "may be incomplete" in opened.at_most(2).version["warnings"][1]
    assert opened.at_most(4).version["warnings"] == []


BENCHMARKS = sorted(path.stem for path in (CONF / "benchmark").glob("*.yaml"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_builds(name: str, tmp_path: Path) -> None:
    config = compose_run([f"benchmark={name}"], "evaluate")
    missing = {key.removeprefix("benchmark.") for key in OmegaConf.missing_keys(config)}
    for key in missing:
        OmegaConf.update(config, f"benchmark.{key}", ["pope"] if key == "tasks" else str(tmp_path))
    benchmark = build(config.benchmark)
    assert benchmark.name.startswith(name)
    if isinstance(benchmark, Benchmark):
        assert isinstance(benchmark.protocol, Protocol)
        assert missing <= {"reader.path", "reader.images", "scenes.root"}
    else:
        assert missing == {"tasks"}


def test_prompts_hold_the_question_and_lettered_options(vsr: Path) -> None:
    config = compose_run(["benchmark=vsr_random", f"benchmark.reader.path={vsr}"], "evaluate").benchmark
    config.prompt = "{question}\n{options}\nAnswer."
    benchmark = build(config)
    assert isinstance(benchmark, Benchmark)
    question = build(config.reader)
    (record,) = question.records({**ROWS[0], "image_link": "x/a.png"}, "q", lambda _: vsr)
    text = 'Is this description of the picture true or false? "The cat is on the mat."'
    assert benchmark.put(record.questions[0]).text == f"{text}\nA. true\nB. false\nAnswer."
    with pytest.raises(ConfigError, match="it must hold {question}"):
        build({**config, "prompt": "Answer."})


def test_general_benchmarks_run_as_a_subprocess(place: Path, finished: Path, tmp_path: Path) -> None:
    """Against a stand-in with lmms-eval's command line and results file; it checks that the model can be loaded."""
    program = tmp_path / "lmms.py"
    program.write_text(
        "import argparse, json, pathlib\n"
        "parser = argparse.ArgumentParser()\n"
        "for name in ('model', 'model_args', 'tasks', 'batch_size', 'output_path', 'limit'):\n"
        "    parser.add_argument('--' + name)\n"
        "parser.add_argument('--log_samples', action='store_true')\n"
        "given = parser.parse_args()\n"
        "model = dict(pair.split('=') for pair in given.model_args.split(','))\n"
        "assert json.loads((pathlib.Path(model['pretrained']) / 'config.json').read_text())['model_type'] == given.model\n"
        "results = {task: {'alias': task, 'acc,none': 0.25, 'acc_stderr,none': 'N/A'} for task in given.tasks.split(',')}\n"
        "folder = pathlib.Path(given.output_path) / 'model'\n"
        "folder.mkdir(parents=True)\n"
        "(folder / '20260101_000000_results.json').write_text(json.dumps({'results': results}))\n"
        "(folder / 'seen.json').write_text(json.dumps([given.model, model, given.limit]))\n"
    )
    own = ["benchmark=lmms", "benchmark.tasks=[mmmu_val,pope]", f"benchmark.program=[{sys.executable},{program}]"]
    config = evaluation(place, f"checkpoint={finished}", *own, "limit=3")
    run = evaluate_benchmark(config, tmp_path / "run", quiet)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"] == {"mmmu_val/acc": 0.25, "pope/acc": 0.25}
    assert summary["experiment"] == "fdpo_vit_unfrozen"
    model, arguments, limit = json.loads((run / "lmms" / "model" / "seen.json").read_text())
    assert (model, limit) == ("qwen2_vl", "3")
    assert [int(arguments["min_pixels"]), int(arguments["max_pixels"])] == summary["pixel_limits"]
    assert "mmmu_val/acc" in (run / "report.md").read_text()


def test_lmms_eval_that_fails_is_an_error_in_words(place: Path, tmp_path: Path) -> None:
    evaluated = load_evaluated(evaluation(place, "backbone=tiny", "backbone.weights=random"))
    tasks = LmmsTasks(tasks=["pope"], program=["lmms"])
    with pytest.raises(ConfigError, match="cuts its arguments at commas"):
        command_of(tasks, evaluated, Path("/a,b"), tmp_path, None)
    with pytest.raises(ConfigError, match=r"left no \*results.json"):
        read_results(tmp_path)
    config = evaluation(place, "backbone=tiny", "backbone.weights=random", "benchmark=lmms", "benchmark.tasks=[pope]")
    config.benchmark.program = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(ConfigError, match="exit code 3"):
        evaluate_benchmark(config, tmp_path / "run", quiet)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_the_configuration_of_a_run_can_be_read_again(scored: Path) -> None:
    config = yaml.safe_load((scored / "config.yaml").read_text())
    assert config["benchmark"]["name"] == "procedural_default"


def test_the_command_line_says_where_the_run_is(place: Path, vsr: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "answers.json"
    predictions.write_text(json.dumps({f"dev/{index}": "true" for index in range(4)}))
    own = [f"benchmark.reader.path={vsr}", "benchmark.reader.folders=false", f"predictions={predictions}"]
    command = [sys.executable, str(PROJECT / "evaluate.py"), "benchmark=vsr_random", f"outputs={tmp_path / 'out'}"]
    ended = subprocess.run(
        [*command, f"cache={place / 'cache'}", "logger.wandb=off", *own],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *_, last = ended.stdout.strip().splitlines()
    run = Path(last.removeprefix("run directory: "))
    assert run.parent == tmp_path / "out" / "evaluate" / "vsr_random"
    assert read_run(run)[0]["metrics"]["accuracy"] == 0.5
    assert "4 rows, the published file of vsr_random has 2195" in ended.stdout
    assert not list(run.glob("*.log"))
