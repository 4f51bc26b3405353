"""Before a run starts: one small tree through both engines and through the stock forward, which must say the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.inputs import stock_inputs
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.data import Encoder
from spatial_lightning.records import ImageQuestions, Question
from spatial_lightning.tree import TreeBatch, pack

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Largest relative L2 difference of log-probabilities, by the type that the weights compute in."""


def ensure_engines_agree(backbone: Backbone, say: Callable[[str], None]) -> None:
    """Compare engines as ``backbone.check`` says, and stop or go on with the separate engine where they disagree.

    Raises:
        BackboneError: they disagree, and ``backbone.check`` is ``refuse``.
    """
    if backbone.check == "off" or backbone.engine != "shared":
        return
    allowed = TOLERANCE.get(backbone.model.dtype, TOLERANCE[torch.float32])
    try:
        error = engine_error(backbone)
    except BackboneError as refusal:
        problem = str(refusal)
    else:
        if error <= allowed:
            return
        problem = (
            f"the shared engine differs from separate runs of {backbone.path} by {error:.1e} on a small tree "
            f"({allowed:.0e} is allowed in {backbone.model.dtype})"
        )
    if backbone.check == "fallback":
        say(f"{problem}: going on with backbone.engine=separate")
        backbone.use("separate")
        return
    raise BackboneError(f"{problem}: set backbone.engine=separate, or backbone.check=fallback to do so by itself")


@torch.no_grad()
def engine_error(backbone: Backbone) -> float:
    """Largest relative L2 difference of log-probabilities: shared against separate, and separate against stock logits."""
    batch = _small_tree(backbone).to(backbone.device)
    training = backbone.training
    backbone.eval()
    try:
        logps = {}
        for engine in ("shared", "separate"):
            with backbone.running(engine):
                logps[engine] = backbone.logps(batch).float()
        with backbone.running("separate"):
            stock = _stock_logps(backbone, batch)
    finally:
        backbone.train(training)
    first = logps["separate"][batch.branch == 0]
    return max(_relative(logps["shared"], logps["separate"]), _relative(first, stock))


def _small_tree(backbone: Backbone) -> TreeBatch:
    """Two pictures, two questions."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 84, 3), dtype=np.uint8)
    questions = (Question("a", "Is it near?", "yes, 2 meters", "check"), Question("b", "How tall?", "3 feet", "check"))
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(Path(folder) / f"{index}.png" for index in range(2))
        for path, picture in zip(paths, pixels, strict=True):
            Image.fromarray(picture).save(path)
        return pack([Encoder(backbone.processor).questions(ImageQuestions("check", paths, questions))])


def _stock_logps(backbone: Backbone, batch: TreeBatch) -> Tensor:
    """Log-probabilities of the first branch from the logits of the whole model."""
    path = batch.path(batch.leaves()[0])
    row = torch.cat([torch.tensor(batch.node(node)) for node in path])
    ids = batch.ids.cpu()[row]
    inputs = stock_inputs(
        backbone.processor, [ids], batch.images_of(path), prompts=[len(batch.node(path[0]))], side="right"
    )
    inputs = {name: tensor.to(backbone.device) for name, tensor in inputs.items()}
    logps = backbone.model(**inputs, use_cache=False).logits[0].float().log_softmax(-1)
    targets = torch.isin(row, batch.targets.cpu()).nonzero().flatten().to(backbone.device)
    return logps[targets - 1].gather(-1, ids.to(backbone.device)[targets].unsqueeze(-1)).squeeze(-1)


def _relative(value: Tensor, expected: Tensor) -> float:
    error = float((value - expected).norm() / expected.norm())
    return error if error == error else float("inf")
