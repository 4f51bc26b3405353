"""Run directories as the project itself writes them, small and with answers chosen by the test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image

from spatial_lightning.evaluation import majority_baseline, summarise
from spatial_lightning.records import Question
from spatial_lightning.runs.answering import Answered, Asked, write_samples
from spatial_lightning.runs.directory import config_hash, write_config, write_summary


def asked(folder: Path, pictures: int = 10, name: str = "scene") -> list[Asked]:
    """Three questions about each picture: a closed one, another closed one, a length."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Asked] = []
    for number in range(pictures):
        path = folder / f"{name}_{number}.png"
        if not path.exists():
            Image.new("RGB", (24, 24), (20 * number % 255, 90, 160)).save(path)
        left, behind = (("yes", "ball"), ("no", "cube"))[number % 2]
        closed = [
            Question(f"{name}-{number}-0", "Is the cube left of the ball?", left, "left_right", ("yes", "no")),
            Question(f"{name}-{number}-1", "Which is further behind?", behind, "front_behind", ("ball", "cube")),
        ]
        length = 0.3 * 1.6**number
        open_one = Question(f"{name}-{number}-2", "How far is it?", f"{length:.4f} meters", "distance", value=length)
        found += [((path,), question) for question in (*closed, open_one)]
    return found


def write_run(
    run: Path,
    asked: Sequence[Asked],
    wrong: Iterable[int],
    *,
    experiment: str = "sft",
    seed: int = 0,
    answers: dict[int, str] | None = None,
    settings: dict[str, Any] | None = None,
    **summary: Any,
) -> Path:
    """A finished training run that answers all questions right but those numbered in ``wrong``.

    Args:
        answers: texts by number, in place of what would have been said.
        settings: keys of the configuration that differ from those of other runs, dotted.
        summary: keys of the summary that differ; ``None`` leaves one out.
    """
    config = OmegaConf.create(
        {
            "name": experiment,
            "seed": seed,
            "outputs": str(run.parent),
            "objective": {"_target_": "spatial_lightning.modules.SFTModule"},
            "optimization": {"lr": 1e-3},
            "data": {"module": {"seed": seed}},
            "logger": {"wandb": "off"},
        }
    )
    for key, value in (settings or {}).items():
        OmegaConf.update(config, key, value, force_add=True)
    write_config(run, config)
    questions, wrong = [question for _, question in asked], set(wrong)
    texts = ["nothing at all" if index in wrong else question.answer for index, question in enumerate(questions)]
    for index, text in (answers or {}).items():
        texts[index] = text
    before = ["nothing at all"] * (len(questions) // 2) + [q.answer for q in questions[len(questions) // 2 :]]
    columns = {
        name: Answered(own, summarise(questions, own)) for name, own in (("warm start", before), ("after", texts))
    }
    write_samples(run, asked, columns)
    facts: dict[str, Any] = {
        "experiment": experiment,
        "objective": "SFTModule",
        "backbone": "assets/tiny-vlm",
        "corpus": "small corpus",
        "seed": seed,
        "git_sha": "abc1234",
        "config_hash": config_hash(config),
        "metrics": columns["after"].metrics(),
        "baseline": {
            "majority": majority_baseline(questions, questions).metrics(),
            "warm_start": columns["warm start"].metrics(),
        },
        "throughput": {"tokens_per_s": 1000.0 + seed, "examples_per_s": 3.0, "peak_memory_gb": 1.5 + seed / 10},
        "wall_s": 120.0 + seed,
        "steps": 10,
        "pixel_limits": [256, 12544],
    }
    write_summary(run, {key: value for key, value in (facts | summary).items() if value is not None})
    rows = ["step,eval/accuracy,train/loss,train/reward_margin,train/margin_description"]
    rows += [f"{step},{0.5 + step / 100},{1 / (step + 1 + seed)},{step / 10},{step / 20}" for step in range(0, 11, 5)]
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    return run


def write_failed(run: Path, error: str | None) -> Path:
    """A run that began; with an error's words it failed, without it was killed."""
    write_config(run, OmegaConf.create({"name": "sft", "seed": 9}))
    if error is not None:
        trace = 'Traceback (most recent call last):\n  File "x.py", line 3, in train\n    train()\n'
        (run / "error.txt").write_text(f"{trace}{error}")
    return run
