"""An export is what stock transformers loads, says what the run's own model says, and is never half of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_runs import small
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.inputs import joined, stock_inputs
from spatial_lightning.data import Encoder
from spatial_lightning.records import ImageQuestions
from spatial_lightning.runs import training
from spatial_lightning.runs.answering import Asked
from spatial_lightning.runs.checkpoints import checkpoint_of, read_weights
from spatial_lightning.runs.config import PROJECT, ConfigError, compose_run
from spatial_lightning.runs.export import export_run
from spatial_lightning.tree import pack


@pytest.fixture(scope="module")
def adapted(place: Path, finished: Path) -> tuple[Path, Path, training._Parts]:
    """A run that put adapters on what another run had trained, its export, and the model as it was when training ended."""
    kept: list[training._Parts] = []
    conclude = training._conclude

    def spy(config: Any, run: Path, parts: training._Parts, *rest: Any) -> None:
        kept.append(parts)
        conclude(config, run, parts, *rest)

    export = place / "exports" / "by train"
    overrides = small(
        place,
        "+experiment=fdpo_vit_frozen",
        "towers=lora",
        "towers.language.rank=4",
        "reference=adapter_off",
        "optimization.lr=0.05",
        "backbone.max_pixels=8192",
        f"warm_start={finished}",
        f"export='{export}'",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_conclude", spy)
        run = training.train(compose_run(overrides), place / "outputs" / "adapted")
    return run, export, kept[0]


@pytest.fixture(scope="module")
def stock(adapted: tuple[Path, Path, training._Parts]) -> Any:
    return AutoModelForImageTextToText.from_pretrained(adapted[1]).eval()


def test_stock_transformers_answers_as_the_run_did(adapted: tuple[Path, Path, training._Parts], stock: Any) -> None:
    run, export, parts = adapted
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    processor = Backbone(export).processor
    tokenizer = AutoTokenizer.from_pretrained(export)
    assert any(row["answers"]["after"] != row["answers"]["warm start"] for row in rows)
    for (images, question), row in zip(parts.asked, rows, strict=True):
        prompt = Encoder(processor).prompt(images, question)
        ids = [prompt.ids]
        inputs = stock_inputs(processor, ids, joined(prompt.images), prompts=[ids[0].numel()], side="left")
        output = stock.generate(**inputs, max_new_tokens=6)[0, ids[0].numel() :]
        assert tokenizer.decode(output, skip_special_tokens=True).strip() == row["answers"]["after"]


def test_stock_transformers_gives_the_runs_log_probabilities(
    adapted: tuple[Path, Path, training._Parts], stock: Any
) -> None:
    _, export, parts = adapted
    images, question = _about_a_picture(parts.asked)
    encode = Encoder(Backbone(export).processor).questions
    batch = pack([encode(ImageQuestions("one", images, (question,)))])
    expected = pack([Encoder(parts.backbone.processor).questions(ImageQuestions("one", images, (question,)))])
    assert torch.equal(batch.ids, expected.ids)
    inputs = stock_inputs(parts.backbone.processor, [batch.ids], batch.images, prompts=[0], side="right")
    with torch.no_grad():
        logps = stock(**inputs).logits[0].float().log_softmax(-1)
        logps = logps[batch.targets - 1].gather(-1, batch.ids[batch.targets].unsqueeze(-1)).squeeze(-1)
        live = parts.backbone.eval().logps(expected)
    assert float((logps - live).norm() / live.norm()) <= 1e-5


def _about_a_picture(asked: list[Asked]) -> Asked:
    return next(one for one in asked if one[0])


def test_the_directory_is_an_ordinary_one_with_the_pixel_limits_in_force(
    adapted: tuple[Path, Path, training._Parts], stock: Any, finished: Path
) -> None:
    run, export, parts = adapted
    names = {path.name for path in export.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert {"chat_template.jinja", "preprocessor_config.json"} <= names
    assert AutoImageProcessor.from_pretrained(export, backend="pil").size["longest_edge"] == 8192
    assert AutoTokenizer.from_pretrained(export).chat_template == parts.backbone.processor.tokenizer.chat_template
    weights, before = stock.state_dict(), read_weights(checkpoint_of(finished))
    assert not any("lora" in name for name in load_file(export / "model.safetensors"))
    moved = {name for name in before if not torch.equal(weights[name.removeprefix("backbone.model.")], before[name])}
    assert moved, "adapters are merged"
    assert not any("visual" in name for name in moved)
    assert all("lora_" in name for name in read_weights(checkpoint_of(run)))


def test_the_card_says_what_was_done_and_what_came_of_it(adapted: tuple[Path, Path, training._Parts]) -> None:
    run, export, _ = adapted
    _, header, card = (export / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["library_name"] == "transformers"
    assert front["base_model"] == "tiny-vlm"
    assert "fdpo" in front["tags"]
    assert front["datasets"] == ["procedural-preferences"]
    summary = json.loads((run / "summary.json").read_text())
    accuracy = [100 * column["accuracy"] for column in (*_baselines(summary), summary["metrics"])]
    assert f"| accuracy | {accuracy[0]:.1f} | {accuracy[1]:.1f} | {accuracy[2]:.1f} |" in card
    for words in ("between 256 and 8192 pixels", "alpha: 0.3", "language lora", "difficulty: default", "torch 2."):
        assert words in card
    assert "These figures are of the end of the run" not in card


def _baselines(summary: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    return summary["baseline"]["majority"], summary["baseline"]["warm_start"]


def test_the_command_exports_any_checkpoint_and_refuses_a_taken_place(finished: Path, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "export.py", f"run={finished}", f"outputs={tmp_path}", *arguments]
        return subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=600)

    done = command(f"to={tmp_path / 'best'}", "checkpoint=best")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"exported to {tmp_path / 'best'}"), done.stderr
    weights = AutoModelForImageTextToText.from_pretrained(tmp_path / "best").state_dict()
    best = read_weights(checkpoint_of(finished, "best"))
    assert all(torch.equal(weights[name.removeprefix("backbone.model.")], value) for name, value in best.items())
    again = command(f"to={tmp_path / 'best'}")
    assert again.returncode == 1
    assert "it is not empty; give a new directory" in again.stdout
    assert "Traceback" not in again.stdout + again.stderr


def test_runs_that_cannot_be_exported_are_refused(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    with pytest.raises(FileNotFoundError, match="there is no run directory"):
        export_run(tmp_path / "absent", to)
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        export_run(tmp_path, to)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match="no checkpoint 'last': it holds none"):
        export_run(tmp_path, to)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'step-000001': it holds best-000002, step-000002"):
        export_run(finished, to, "step-000001")
    to.write_text("a file")
    with pytest.raises(ConfigError, match="it is a file"):
        export_run(finished, to)


def test_what_fails_half_way_leaves_nothing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left .*nothing of it is left"):
        export_run(finished, tmp_path / "to")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_room_for_its_export_does_not_start(tmp_path: Path, place: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError, match="cannot export to .* not empty"):
        training.check(compose_run(small(place, f"export={tmp_path}")))
