"""Preference pairs from a policy's own responses: what they are, what goes on after a kill, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluations import quiet
from small_runs import small

from spatial_lightning.backbones import Backbone
from spatial_lightning.records import BadRows, ImageQuestions, PreferencePair, RecordError, read_records
from spatial_lightning.runs.config import PROJECT, ConfigError, compose_run
from spatial_lightning.runs.predictions import PREDICTIONS
from spatial_lightning.runs.synthesizing import RESPONSES, synthesize
from spatial_lightning.runs.training import train

SMALL = ("backbone=tiny", "data.train_images=4", "data.val_images=2", "responses=4", "batch_size=16", "device=cpu")


def _config(place: Path, *overrides: str) -> Any:
    return compose_run([*SMALL, f"outputs={place / 'outputs'}", f"cache={place / 'cache'}", *overrides], "synthesize")


def _pairs(run: Path, split: str = "train") -> list[PreferencePair]:
    bad = BadRows()
    pairs = list(read_records(run / f"{split}.jsonl", PreferencePair, bad))
    bad.check()
    return pairs


@pytest.fixture(scope="module")
def made(place: Path) -> Path:
    return synthesize(_config(place), place / "outputs" / "synthesize" / "made", quiet)


def test_the_best_response_of_the_policy_is_preferred_to_its_worst(made: Path) -> None:
    stored = [json.loads(line) for line in (made / RESPONSES).read_text().splitlines()]
    by_id = {row["id"]: row for row in stored}
    pairs = _pairs(made) + _pairs(made, "val")
    assert len(pairs) > 8
    for pair in pairs:
        rewards = {given["text"]: given["reward"] for given in by_id[pair.id]["responses"]}
        assert len(by_id[pair.id]["responses"]) == 4
        assert rewards[pair.chosen.text] == max(rewards.values()) > rewards[pair.rejected.text] == min(rewards.values())
        gap = pair.reward_gap
        assert gap is not None
        assert sum(gap) == pytest.approx(rewards[pair.chosen.text] - rewards[pair.rejected.text])
        assert pair.images[0].is_relative_to(made)
        assert pair.images[0].is_file()
        assert pair.rejected.text != pair.question.answer
    summary = json.loads((made / "summary.json").read_text())
    given = [response for row in stored if row["id"].startswith("train") for response in row["responses"]]
    assert summary["train"]["right"] == sum(response["right"] for response in given) / len(given)
    assert summary["train"]["pairs"] + summary["val"]["pairs"] == len(pairs)
    assert summary["train"]["chosen_right"] > summary["train"]["rejected_right"]


def test_the_folder_is_a_corpus_to_train_on(made: Path, place: Path, tmp_path: Path) -> None:
    questions = list(read_records(made / "val_questions.jsonl", ImageQuestions, BadRows()))
    assert questions
    moved = tmp_path / "moved"
    shutil.copytree(made, moved)
    overrides = ["+experiment=fdpo_vit_unfrozen", "data.scenes=records", f"data.root={moved}", "backbone=tiny"]
    run = train(compose_run(small(place, *overrides, f"cache={tmp_path / 'cache'}")), tmp_path / "run")
    assert json.loads((run / "summary.json").read_text())["metrics"]["accuracy"] >= 0


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not_killed(
    made: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third batch, with half a line of the second in the file."""
    generate, batches = Backbone.generate, []

    def dies(self: Backbone, prompts: Any, **settings: Any) -> list[str]:
        batches.append(len(prompts))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return generate(self, prompts, **settings)

    run = tmp_path / "run"
    monkeypatch.setattr(Backbone, "generate", dies)
    with pytest.raises(KeyboardInterrupt):
        synthesize(_config(place, f"run={run}"), tmp_path / "fresh", quiet)
    path = run / PREDICTIONS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:16]) + lines[16][:20])
    assert synthesize(_config(place, f"run={run}"), tmp_path / "fresh", quiet) == run
    for name in ("train.jsonl", "val.jsonl", RESPONSES):
        assert (run / name).read_bytes() == (made / name).read_bytes()


def test_pairs_of_something_else_are_not_overwritten(made: Path, place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature: 0.9 there, 0.5 now"):
        synthesize(_config(place, f"run={made}", "temperature=0.5"), tmp_path / "fresh", quiet)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["~backbone"], "give checkpoint=RUN"),
        (["responses=1"], "at least 2"),
        (["temperature=0"], "above 0"),
        (["max_new_tokens=0"], "at least 1"),
        (["data=spatialvlm"], "data=preferences"),
        (["data.scenes=records", "data.root=there"], "procedural or clevr"),
    ],
)
def test_what_cannot_give_pairs_is_refused(place: Path, tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        synthesize(_config(place, *overrides), tmp_path / "fresh", quiet)
    assert not (tmp_path / "fresh").exists()


def test_a_policy_whose_responses_are_all_worth_nothing_gives_no_pairs(place: Path, tmp_path: Path) -> None:
    config = _config(place, "max_new_tokens=1", f"run={tmp_path / 'run'}")
    with pytest.raises(RecordError, match="raise the temperature"):
        synthesize(config, tmp_path / "fresh", quiet)


def test_the_command_line_says_how_to_train_on_the_pairs(made: Path, place: Path) -> None:
    command = [sys.executable, "synthesize.py", *SMALL, f"outputs={place / 'outputs'}", f"cache={place / 'cache'}"]
    done = subprocess.run([*command, f"run={made}"], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"data=preferences data.scenes=records data.root={made}" in done.stdout
    done = subprocess.run([*command, "tempereture=1"], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "did you mean temperature" in done.stdout
