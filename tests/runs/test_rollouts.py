"""Rollouts: the game that training prepares for, played by a backbone that was trained on it and by one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import small

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.modules import OfflineRLModule
from spatial_lightning.records import BadRows, Trace, read_records
from spatial_lightning.runs.answering import said
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import ConfigError, compose_run
from spatial_lightning.runs.corpora import prepare
from spatial_lightning.runs.rollouts import Arena, arena_of, roll_out
from spatial_lightning.runs.training import check, train
from spatial_lightning.scenes import read_scenes, write_scenes
from spatial_lightning.synthesis.game import MALFORMED
from spatial_lightning.synthesis.policy import ErrorRates, Policy
from spatial_lightning.synthesis.traces import TraceSettings
from spatial_lightning.tree import pack

FLAWLESS = Policy(ErrorRates(0, 0, 0, 0, 0, 0), alternative=0)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, "val", 2, seed=4, size=(48, 48), difficulty="easy", workers=1)
    return Arena.of(read_scenes(root, "val"), TraceSettings(max_steps=4), seed=0, count=1)


def test_an_untrained_backbone_is_scored_and_everything_is_kept(tiny: Backbone, arena: Arena) -> None:
    questions = [*arena.tasks, *arena.tasks]
    rollouts = roll_out(tiny, arena, questions, max_new_tokens=4, batch_size=3)
    assert len(rollouts.games) == len(questions)
    assert [game.task.question.id for game in rollouts.games] == questions
    assert {game.outcome for game in rollouts.games} == {MALFORMED}
    assert rollouts.answers == [""] * len(questions)
    figures = rollouts.metrics("x/")
    assert figures == {
        "x/answered": 0,
        "x/exact": 0,
        "x/malformed": 1,
        "x/steps": 1,
        "x/tool_calls": 0,
        "x/rating": 1,
    }
    first, *_ = rollouts.transcripts()
    assert first[0]["rating"] == 1.0
    assert json.dumps(rollouts.transcripts())
    assert "100.0 % of the steps malformed" in rollouts.report()


def test_a_backbone_trained_on_a_policy_plays_like_it(policy: Backbone, arena: Arena) -> None:
    """Every step sees in play exactly what it saw in training, or the memorised games would not come out."""
    identities = list(arena.tasks)
    games = []
    for identity in identities:
        game = arena.game(identity)
        rng = np.random.default_rng(0)
        while not game.outcome:
            game.play(FLAWLESS.propose(game.task, game.steps, rng).text)
        games.append(game)
    encoder = Encoder(policy.processor)
    row = pack([encoder.trace(game.trace("t")) for game in games])
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(300):
        loss = -policy.logps(row).mean()
        if float(loss.detach()) < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01, "it has not learned the games by heart"
    rollouts = roll_out(policy, arena, identities, max_new_tokens=120, batch_size=8)
    assert [[s.text for s in game.steps] for game in rollouts.games] == [[s.text for s in game.steps] for game in games]
    figures = rollouts.metrics()
    assert (figures["exact"], figures["malformed"], figures["rating"]) == (1.0, 0.0, 10.0)
    assert figures["steps"] == figures["tool_calls"] + 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"reasoning":"no, not so","action":"final_answer","text":"yes"}', "yes"),
        ("yes", "yes"),
        ('{"action":"tool_call","tool_name":"depth"}', '{"action":"tool_call","tool_name":"depth"}'),
    ],
)
def test_where_no_scene_is_known_a_final_step_is_scored_by_its_answer(text: str, answer: str) -> None:
    assert said(text) == answer


SMALL_TRACES = ("data.corpus.per_image=2", "data.corpus.val_questions=2", "data.corpus.size=[48,48]")


def test_a_trace_corpus_is_made_once_and_its_questions_are_those_of_the_arena(tmp_path: Path) -> None:
    config = compose_run(small(tmp_path, "data=traces", *SMALL_TRACES))
    corpus = build(config.data.corpus)
    files = prepare(corpus, tmp_path / "cache")
    again = prepare(corpus, tmp_path / "cache")
    assert again.train == files.train
    bad = BadRows()
    held_out = list(read_records(Path(str(files.val)), Trace, bad))
    asked = {question.id for _, question in files.questions("val")}
    playing = arena_of(corpus, tmp_path / "cache", files)
    assert playing is not None
    assert set(playing.tasks) == asked == {trace.question.id for trace in held_out}
    for trace in held_out:
        task, _ = playing.tasks[trace.question.id]
        assert task.question == trace.question


def test_a_run_on_traces_is_evaluated_by_its_games(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(compose_run(small(tmp_path, "+experiment=sft_traces", *SMALL_TRACES, "trainer.max_steps=1")), run)
    summary = json.loads((run / "summary.json").read_text())
    for figures in (summary["metrics"], summary["baseline"]["warm_start"]):
        assert {"game/exact", "game/malformed", "game/steps", "game/rating", "accuracy"} <= set(figures)
    assert "majority" in summary["baseline"]
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert rows
    assert all(row["games"]["after"][0]["step"] for row in rows)
    assert "steps malformed" in (run / "report.md").read_text()


def test_token_values_guide_the_games_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    plain = OfflineRLModule.generate

    def generate(self: OfflineRLModule, *args: Any, guidance: float = 0.0, **options: Any) -> list[str]:
        used.append(guidance)
        return plain(self, *args, guidance=guidance, **options)

    monkeypatch.setattr(OfflineRLModule, "generate", generate)
    settings = ("data=traces", "objective=ilql", *SMALL_TRACES, "evaluation.guidance=2.5", "trainer.max_steps=1")
    run = train(compose_run(small(tmp_path, *settings)), tmp_path / "run")
    assert set(used) == {2.5}
    assert json.loads((run / "summary.json").read_text())["metrics"]["game/answered"] >= 0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["data=traces", "data.module.include_rejected=true"], "would imitate attempts that the verifier turned down"),
        (["data=traces", "objective=dpo", "reference=cached"], "DPOModule trains on preferences, .* is traces"),
        (["+experiment=step_dpo_traces", "data.module.include_rejected=false"], "learns from rejected attempts"),
        (["+experiment=awr_traces", "data.module.answers_only=true"], "has no rated steps"),
        (
            [
                *("data=mixture", "~data.corpora.general", "+data@data.corpora.games=traces"),
                "data.corpora.games.module.include_rejected=true",
            ],
            r"set data\.corpora\.games\.module\.include_rejected=false",
        ),
        (["+experiment=awr_traces", "evaluation.guidance=1"], "only objective=ilql learns"),
        (["objective=awr"], "OfflineRLModule trains on traces, data.corpus.kind is questions: choose data=traces"),
    ],
)
def test_objectives_and_traces_that_do_not_fit_are_refused(overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check(compose_run(overrides))
