"""Tool-use traces of known quality: an imperfect policy proposes, a geometric verifier rates (arXiv:2511.00054)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from spatial_lightning.records import ImageQuestions, Trace
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.synthesis.asking import KINDS, scene_tasks
from spatial_lightning.synthesis.corpus import CorpusSummary, Progress, scene_generator, write_corpus
from spatial_lightning.synthesis.facts import measure
from spatial_lightning.synthesis.game import Game
from spatial_lightning.synthesis.policy import ErrorRates, Policy
from spatial_lightning.synthesis.tasks import Task
from spatial_lightning.synthesis.tools import Toolbox, read_scene
from spatial_lightning.synthesis.verifier import Verifier


@dataclass(frozen=True)
class TraceSettings:
    """How traces are made.

    Attributes:
        per_question: traces of each question.
        tau: a step is accepted at this rating or above, 0 to 10; 0 accepts every first attempt.
        attempts: how often a step may be proposed anew; then the best attempt is taken.
        unverified: how many of a question's traces are made with a ``tau`` of 0, so that bad steps are in them too.
        qualities: factors on the error rates, for one trace of a question after the other.
        errors: rates by name that differ from :class:`~.policy.ErrorRates`.
        noise: of the verifier, see :class:`~.verifier.Verifier`.
        max_steps: longest trace.
        tool_images: tools also return pictures.

    Raises:
        ValueError: a number out of range, or an unknown error.
    """

    per_question: int = 4
    tau: float = 4.0
    attempts: int = 3
    unverified: int = 2
    qualities: tuple[float, ...] = (0.5, 1.0, 1.0, 2.0)
    errors: Mapping[str, float] = field(default_factory=dict)
    noise: float = 1.0
    max_steps: int = 6
    tool_images: bool = False

    def __post_init__(self) -> None:
        for name, least in (("per_question", 1), ("attempts", 0), ("unverified", 0), ("max_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"data.corpus.traces.{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.tau <= 10:
            raise ValueError(f"data.corpus.traces.tau is {self.tau}; allowed: 0 to 10")
        if not self.qualities or min(self.qualities) < 0:
            raise ValueError(f"data.corpus.traces.qualities is {list(self.qualities)}; it needs factors of at least 0")
        unknown = set(self.errors) - set(asdict(ErrorRates()))
        if unknown:
            raise ValueError(f"there is no error {sorted(unknown)[0]!r}; allowed: {', '.join(asdict(ErrorRates()))}")

    def policy(self, trace: int) -> Policy:
        """The policy of a question's trace with this number."""
        factor = self.qualities[trace % len(self.qualities)]
        return Policy(ErrorRates(**self.errors).scaled(factor))

    def threshold(self, trace: int) -> float:
        """The rating at which a step is accepted in a question's trace with this number; the last ones are unverified."""
        return 0.0 if trace >= self.per_question - self.unverified else self.tau


def toolbox_of(scene: Scene, pictures: Path | None = None) -> Toolbox:
    """The tools at work on a scene; they draw into ``pictures`` if it is given."""
    facts = measure(scene)
    return Toolbox(facts, read_scene(facts), pictures)


def tasks_of(toolbox: Toolbox, *, seed: int, count: int, kinds: Sequence[str] | None = None) -> list[Task]:
    """The tasks about a scene, the same for the same seed; fewer are the first of more."""
    rng = scene_generator(seed, toolbox.facts.scene, "tool tasks")
    return scene_tasks(toolbox.facts, toolbox.readings, count=count, rng=rng, kinds=kinds or KINDS)


def play(
    task: Task,
    toolbox: Toolbox,
    policy: Policy,
    verifier: Verifier,
    rng: np.random.Generator,
    *,
    tau: float,
    attempts: int,
    max_steps: int,
) -> Game:
    """One game by the policy: each step is proposed until the verifier's rating reaches ``tau``, or the best attempt is taken.

    Attempts that were turned down stay with the step and their ratings, but for those with the text that was accepted.
    """
    game = Game(task, toolbox, max_steps)
    while not game.outcome:
        ratings: dict[str, float] = {}
        for attempt in range(attempts + 1):
            last = len(game.steps) == max_steps - 1
            text = policy.propose(task, game.steps, rng, attempt=attempt, last=last).text
            # A step that comes again keeps its rating: the verifier would not read it differently.
            ratings.setdefault(text, verifier.rate(task, game.steps, text, rng).rating)
            if ratings[text] >= tau:
                break
        taken = text if ratings[text] >= tau else max(ratings, key=lambda text: ratings[text])
        game.play(taken, ratings[taken], [(text, rating) for text, rating in ratings.items() if text != taken])
    return game


def scene_traces(
    scene: Scene,
    *,
    seed: int,
    count: int,
    settings: TraceSettings,
    kinds: Sequence[str] | None = None,
    pictures: Path | None = None,
) -> Iterator[Trace]:
    """Traces of up to ``count`` questions about a scene, those of one question behind one another."""
    toolbox = toolbox_of(scene, pictures if settings.tool_images else None)
    verifier = Verifier(settings.noise)
    for number, task in enumerate(tasks_of(toolbox, seed=seed, count=count, kinds=kinds)):
        for trace in range(settings.per_question):
            rng = scene_generator(seed, scene, f"trace {number} {trace}")
            game = play(
                task,
                toolbox,
                settings.policy(trace),
                verifier,
                rng,
                tau=settings.threshold(trace),
                attempts=settings.attempts,
                max_steps=settings.max_steps,
            )
            yield game.trace(f"{task.question.id}/{trace}")


def write_trace_corpus(
    path: Path,
    scenes: Iterable[Scene],
    *,
    seed: int,
    questions_per_image: int,
    settings: TraceSettings | None = None,
    kinds: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> CorpusSummary:
    """Write the traces of scenes, one record each; tools draw into ``tool_images`` beside the file if they draw.

    Deterministic like :func:`~.corpus.write_question_corpus`.

    Raises:
        RecordError: no scene allowed any question.
        ValueError: an unknown kind of question.
    """
    summary = CorpusSummary(path)
    chosen = settings or TraceSettings()

    def traces(scene: Scene) -> Iterator[Trace]:
        pictures = path.parent / "tool_images"
        for trace in scene_traces(
            scene, seed=seed, count=questions_per_image, settings=chosen, kinds=kinds, pictures=pictures
        ):
            summary.kinds[trace.question.kind] += 1
            yield trace

    return write_corpus(summary, scenes, traces, progress)


def write_task_questions(
    path: Path, scenes: Iterable[Scene], *, seed: int, questions_per_image: int, kinds: Sequence[str] | None = None
) -> CorpusSummary:
    """Write the questions alone, one record a scene: those that :func:`write_trace_corpus` has traces of.

    Raises:
        RecordError: no scene allowed any question.
    """
    summary = CorpusSummary(path)

    def questions(scene: Scene) -> Iterator[ImageQuestions]:
        tasks = tasks_of(toolbox_of(scene), seed=seed, count=questions_per_image, kinds=kinds)
        if tasks:
            summary.kinds.update(task.question.kind for task in tasks)
            yield ImageQuestions(
                f"{scene.split}-{scene.index:06d}", (scene.image,), tuple(task.question for task in tasks)
            )

    return write_corpus(summary, scenes, questions, None)
