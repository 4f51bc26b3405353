"""Rollouts: a backbone plays the tool game on held-out scenes, tools answer from the geometry, the verifier rates each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from spatial_lightning.data import Encoder
from spatial_lightning.records import RecordError
from spatial_lightning.runs.answerers import Answerer
from spatial_lightning.runs.corpora import Corpus, trace_scenes
from spatial_lightning.runs.corpus_files import CorpusFiles
from spatial_lightning.runs.published import Published
from spatial_lightning.scenes import Scene
from spatial_lightning.synthesis.game import ANSWERED, MALFORMED, Game
from spatial_lightning.synthesis.tasks import Task
from spatial_lightning.synthesis.tools import Toolbox
from spatial_lightning.synthesis.traces import TraceSettings, tasks_of, toolbox_of
from spatial_lightning.synthesis.verifier import Verifier


@dataclass(frozen=True)
class Arena:
    """Tasks that a policy may be tried on, by the id of their question.

    Attributes:
        max_steps: steps after which a game ends without an answer.
    """

    tasks: dict[str, tuple[Task, Toolbox]]
    max_steps: int

    @classmethod
    def of(
        cls,
        scenes: Iterable[Scene],
        settings: TraceSettings,
        *,
        seed: int,
        count: int,
        kinds: Sequence[str] | None = None,
        pictures: Path | None = None,
    ) -> Arena:
        """The tasks that a trace corpus has questions about; tools draw into ``pictures`` if they did for the corpus."""
        tasks = {}
        for scene in scenes:
            toolbox = toolbox_of(scene, pictures if settings.tool_images else None)
            tasks |= {
                task.question.id: (task, toolbox) for task in tasks_of(toolbox, seed=seed, count=count, kinds=kinds)
            }
        return cls(tasks, settings.max_steps)

    def game(self, question: str) -> Game:
        """A new game about the question with this id."""
        task, toolbox = self.tasks[question]
        return Game(task, toolbox, self.max_steps)


@dataclass(frozen=True)
class Rollouts:
    """Finished games, in the order asked.

    Attributes:
        games: each with what was played and how it ended.
    """

    games: tuple[Game, ...]

    @property
    def answers(self) -> list[str]:
        """The final answers; empty where a game ended without one."""
        return [game.answer or "" for game in self.games]

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """How the games were played.

        ``answered`` and ``exact`` are shares of games in [0, 1] with an answer and with the true one, ``malformed`` is the
        share of steps that could not be read, ``steps`` and ``tool_calls`` are means per game, ``rating`` is the mean
        rating of all steps in [1, 10].
        """
        steps = [step for game in self.games for step in game.steps]
        broken = sum(game.outcome == MALFORMED for game in self.games)
        figures = {
            "answered": fmean(game.outcome == ANSWERED for game in self.games),
            "exact": fmean(game.correct for game in self.games),
            "malformed": broken / len(steps),
            "steps": len(steps) / len(self.games),
            "tool_calls": sum(bool(step.observation) for step in steps) / len(self.games),
            "rating": fmean(step.rating for step in steps if step.rating is not None),
        }
        return {f"{prefix}{name}": float(value) for name, value in figures.items()}

    def report(self) -> str:
        """The metrics in words."""
        figures = self.metrics()
        return (
            f"{100 * figures['answered']:.1f} % of {len(self.games)} games answered, {100 * figures['exact']:.1f} % exactly "
            f"right; {100 * figures['malformed']:.1f} % of the steps malformed, {figures['steps']:.2f} steps and "
            f"{figures['tool_calls']:.2f} tool calls a game, mean rating {figures['rating']:.2f}"
        )

    def transcripts(self) -> list[list[dict[str, Any]]]:
        """What was written and seen in each game, step by step, with ratings, as plain JSON values."""
        return [
            [{"step": step.text, "observation": step.observation, "rating": step.rating} for step in game.steps]
            for game in self.games
        ]


def arena_of(corpus: Corpus | Published, cache: Path, files: CorpusFiles) -> Arena | None:
    """The held-out tasks of a trace corpus; None for other corpora, and for ready records, whose scenes nobody knows."""
    scenes = trace_scenes(corpus, cache)
    if not scenes or not isinstance(corpus, Corpus) or not isinstance(files.val, Path):
        return None
    settings, pictures = corpus.traces or TraceSettings(), files.val.parent / "tool_images"
    return Arena.of(
        scenes, settings, seed=corpus.seed, count=corpus.val_questions, kinds=corpus.kinds, pictures=pictures
    )


def roll_out(
    backbone: Answerer,
    arena: Arena,
    questions: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    verifier: Verifier | None = None,
    rng: np.random.Generator | None = None,
    system: str | None = None,
) -> Rollouts:
    """Play the games of all questions side by side, a step of each at a time, greedily.

    Args:
        questions: ids of the questions, each a task of the arena.
        max_new_tokens: longest step in tokens; a longer one is cut, which makes it malformed.
        batch_size: steps generated together.
        verifier: rates the steps; None takes one without noise.
        rng: for the verifier's noise.
        system: system turn, as in training.

    Raises:
        KeyError: a question that is no task of the arena.
    """
    encoder, judge = Encoder(backbone.processor, system), verifier or Verifier()
    games = [arena.game(question) for question in questions]
    while playing := [game for game in games if not game.outcome]:
        prompts = [
            encoder.step_prompt((game.toolbox.facts.scene.image,), game.task.question, game.steps) for game in playing
        ]
        texts = backbone.generate(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
        for game, text in zip(playing, texts, strict=True):
            written = _recorded(backbone, text)
            game.play(written, judge.rate(game.task, game.steps, written, rng).rating)
    return Rollouts(tuple(games))


def _recorded(backbone: Answerer, text: str) -> str:
    """A step as it can go on record: neither empty nor with control tokens, which are malformed one way or the other."""
    try:
        backbone.processor.check_text(text)
    except RecordError:
        return "(control tokens)"
    return text if text.strip() else "(nothing)"
