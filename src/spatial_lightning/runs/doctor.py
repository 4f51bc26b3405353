"""Checks a backbone on this machine: engines agree, gradients reach what is trained and only that, memory and speed."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.backbone import Engine
from spatial_lightning.backbones.towers import TowerPlan, TowerReport, format_report
from spatial_lightning.data import Encoder
from spatial_lightning.records import ImageQuestions, PreferencePair, Question, Step, Trace
from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.memory import measure_activations
from spatial_lightning.scenes import generate, render
from spatial_lightning.synthesis.longcot import preference_pair
from spatial_lightning.synthesis.spatialvlm import question_set
from spatial_lightning.tree import TokenTree, pack


@dataclass(frozen=True, slots=True)
class Case:
    """Shared against separate engine on one row of trees: relative L2 errors of log-probabilities and of all gradients."""

    name: str
    tokens: int
    logps_rel_err: float
    grad_rel_err: float


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What the doctor found.

    Attributes:
        unreached: trained parameters that got no gradient in any case (some modules never do, see the backbone's family).
        leaked: frozen parameters that got one; must be empty.
        tokens_per_s: forward and backward of each engine on eight questions about one image.
        activations_mb: what each engine's forward pass keeps for the backward pass on the same row, MiB.
    """

    cases: tuple[Case, ...]
    towers: tuple[TowerReport, ...]
    unreached: tuple[str, ...]
    leaked: tuple[str, ...]
    tokens_per_s: dict[str, float]
    activations_mb: dict[str, float]
    peak_memory_gb: float
    tolerance: float

    @property
    def logps_max_rel_err(self) -> float:
        """Largest relative error of log-probabilities."""
        return max(case.logps_rel_err for case in self.cases)

    @property
    def grad_max_rel_err(self) -> float:
        """Largest relative error of gradients."""
        return max(case.grad_rel_err for case in self.cases)

    @property
    def passed(self) -> bool:
        """Whether engines agree within the tolerance and no frozen parameter got a gradient."""
        # Written so that a nan fails.
        equal = self.logps_max_rel_err <= self.tolerance and self.grad_max_rel_err <= self.tolerance
        return equal and not self.leaked

    def table(self) -> str:
        """The findings for the screen."""
        lines = [f"{'case':<34} {'tokens':>7} {'log-probs':>10} {'gradients':>10}"]
        lines += [f"{c.name:<34} {c.tokens:>7} {c.logps_rel_err:>10.1e} {c.grad_rel_err:>10.1e}" for c in self.cases]
        lines += ["", format_report(list(self.towers)), ""]
        lines += [f"trained without gradient: {', '.join(self.unreached[:6]) or 'none'}"]
        lines += [f"frozen with gradient: {', '.join(self.leaked[:6]) or 'none'}"]
        lines += [
            f"{engine} engine: {rate:,.0f} tokens/s, keeps {self.activations_mb[engine]:.1f} MiB"
            for engine, rate in self.tokens_per_s.items()
        ]
        lines += [f"peak memory: {self.peak_memory_gb:.2f} GB"]
        verdict = "passed" if self.passed else "FAILED"
        lines += [f"{verdict}: largest relative errors {self.logps_max_rel_err:.1e} and {self.grad_max_rel_err:.1e}, "]
        lines[-1] += f"tolerance {self.tolerance:.0e}"
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write ``doctor.json``."""
        values = asdict(self) | {
            "logps_max_rel_err": self.logps_max_rel_err,
            "grad_max_rel_err": self.grad_max_rel_err,
            "passed": self.passed,
        }
        write_text(path, json.dumps(values, indent=1))


def examine(backbone: Backbone, towers: TowerPlan, *, tolerance: float = 1e-5, repeats: int = 3) -> DoctorReport:
    """Examine a backbone whose engine is ``shared``; its weights do not change.

    Args:
        tolerance: largest relative error that passes; 1e-5 fits float32.
        repeats: timed passes of each engine.
    """
    report = towers.apply(backbone)
    backbone.train()
    reached: set[str] = set()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(backbone, Path(folder))
        for name, trees in rows.items():
            logps, gradients = _pass(backbone, trees, "shared")
            reference, expected = _pass(backbone, trees, "separate")
            reached |= set(gradients)
            cases.append(Case(name, pack(trees).tokens, _error(logps, reference), _gradient_error(gradients, expected)))
        eight = rows["8 questions about an image"]
        speeds = {engine: _speed(backbone, eight, engine, repeats) for engine in _ENGINES}
        kept = {engine: _kept(backbone, eight, engine) for engine in _ENGINES}
    backbone.zero_grad()
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if backbone.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    return DoctorReport(
        tuple(cases),
        tuple(report),
        tuple(sorted(trained - reached)),
        tuple(sorted(reached - trained)),
        speeds,
        kept,
        peak,
        tolerance,
    )


_ENGINES: tuple[Engine, ...] = ("shared", "separate")


def _rows(backbone: Backbone, folder: Path) -> dict[str, list[TokenTree]]:
    """Rows of trees of every form, about freshly rendered scenes."""
    encoder = Encoder(backbone.processor)
    independent = Encoder(backbone.processor, segment_context="independent")
    scenes = [generate(0, index, split="doctor") for index in range(2)]
    images = []
    for index, scene in enumerate(scenes):
        images.append(folder / f"{index}.png")
        Image.fromarray(render(scene).rgb).save(images[-1])
    rng = np.random.default_rng(0)
    questions = tuple(question_set(scenes[0], count=8, rng=rng))
    pair = preference_pair(scenes[0], rng=rng, error="relation")
    assert pair is not None
    pair = PreferencePair("pair", (images[0],), pair.question, pair.chosen, pair.rejected)
    two = PreferencePair("two images", tuple(images), pair.question, pair.chosen, pair.rejected)
    steps = (
        Step("Look from above.", "Here is the view.", (images[1],), 7.0, (("Guess.", 2.0), ("Ask.", 3.0))),
        Step("The cube is behind. The final answer is yes."),
    )
    trace = Trace("trace", (images[0],), questions[0], steps)
    text = ImageQuestions("text only", (), (Question("t", "How far is 2 meters?", "2 meters", "text"), questions[1]))
    eight = encoder.questions(ImageQuestions("questions", (images[0],), questions))
    return {
        "8 questions about an image": [eight],
        "pair": [encoder.pair(pair)],
        "pair, independent segments": [independent.pair(pair)],
        "pair about two images": [encoder.pair(two)],
        "trace with a picture from a tool": [encoder.trace(trace)],
        "text only": [encoder.questions(text)],
        "three trees in a row": [eight, replace(encoder.trace(trace), values={}), encoder.questions(text)],
    }


def _pass(backbone: Backbone, trees: list[TokenTree], engine: Engine) -> tuple[Tensor, dict[str, Tensor]]:
    backbone.zero_grad()
    batch = pack(trees).to(backbone.device)
    with backbone.running(engine):
        logps = backbone.logps(batch)
        # Uneven weights, so that an exchange of two tokens would show.
        (logps * torch.linspace(0.5, 1.5, logps.numel(), device=logps.device)).mean().backward()
    gradients = {
        n: p.grad.detach().float().cpu().clone() for n, p in backbone.model.named_parameters() if p.grad is not None
    }
    return logps.detach().float().cpu(), gradients


def _speed(backbone: Backbone, trees: list[TokenTree], engine: Engine, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        _pass(backbone, trees, engine)
        seconds.append(time.perf_counter() - began)
    return pack(trees).tokens / float(np.median(seconds[1:]))


def _kept(backbone: Backbone, trees: list[TokenTree], engine: Engine) -> float:
    with backbone.running(engine):
        return measure_activations(backbone, pack(trees).to(backbone.device)).kept / 2**20


def _error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def _gradient_error(value: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    if value.keys() != expected.keys():
        return float("inf")
    return _error(*(torch.cat([gradients[name].flatten() for name in expected]) for gradients in (value, expected)))
