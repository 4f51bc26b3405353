"""Small records, pictures and the independent formula that log-probabilities and gradients are held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_lightning.backbones import Backbone
from spatial_lightning.records import ImageQuestions, PreferencePair, Question, Response, Segment, Step, Trace
from spatial_lightning.tree import Node, TokenTree, TreeBatch, continue_positions

TEXTS = (
    "How far is the red cube from the green sphere?",
    "Is the blue cylinder to the left of the yellow cone? yes no",
    "The distance is 3.5 meters. The cube is behind the sphere and in front of the cylinder.",
    "<description>The red cube is at the left.</description>\n<reasoning>So it is closer. The answer is no.</reasoning>",
    "Which object is taller, the large gray cube or the small purple cone? the large gray cube",
)


def write_pictures(folder: Path) -> tuple[Path, ...]:
    """Three noisy RGB pictures of different sizes."""
    generator = np.random.default_rng(5)
    paths = []
    for index, (height, width) in enumerate([(48, 64), (64, 48), (32, 80)]):
        path = folder / f"picture_{index}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return tuple(paths)


def question(identity: str = "q", text: str = "How far is the cube?", answer: str = "2.5 meters") -> Question:
    """A question of a made-up kind."""
    return Question(identity, text, answer, "distance")


def asked(identity: str, images: Sequence[Path], count: int) -> ImageQuestions:
    """``count`` questions of different length about some images."""
    texts = [f"Is the {'very ' * (i % 3)}red cube left of {i}?" for i in range(count)]
    answers = ["yes" if i % 2 else f"no, it is {i}.{i} meters behind" for i in range(count)]
    questions = tuple(question(f"{identity}/{i}", t, a) for i, (t, a) in enumerate(zip(texts, answers, strict=True)))
    return ImageQuestions(identity, tuple(images), questions)


def response(description: str, reasoning: str, scores: tuple[float, float] | None = (2.0, 3.0)) -> Response:
    """A response in two tagged segments."""
    first = f"<description>{description}</description>\n"
    second = f"<reasoning>{reasoning}</reasoning>"
    rewards = ({"vc": scores[0]}, {"lc": scores[1]}) if scores else (None, None)
    return Response(
        first + second,
        (
            Segment("description", 0, len(first), rewards[0]),
            Segment("reasoning", len(first), len(first + second), rewards[1]),
        ),
    )


def pair(identity: str, images: Sequence[Path], *, scored: bool = True, extra: str = "") -> PreferencePair:
    """A pair whose rejected response has another description and a longer, wrong reasoning."""
    good, bad = ((3.0, 3.5), (1.0, 3.0)) if scored else (None, None)
    return PreferencePair(
        identity,
        tuple(images),
        question(identity),
        response(f"The cube is red{extra}.", "It is near, so no.", good),
        response("The cone is blue.", f"It is far away and behind the sphere{extra}, so yes.", bad),
    )


def trace(identity: str, images: Sequence[Path], seen: Sequence[Path]) -> Trace:
    """Three steps: a picture comes back from the first tool, text from the second; two attempts are rejected."""
    return Trace(
        identity,
        tuple(images),
        question(identity, "Which is taller?", "the cube"),
        (
            Step("look at depth", "here it is", tuple(seen), 5.0, (("guess the cube", 2.0), ("no", None))),
            Step("measure the cone", "3.5 meters", (), 8.0),
            Step("The answer is the cube", rejected=(("The answer is the cone", 1.0),)),
        ),
    )


def single_tokens(backbone: Backbone, images: Sequence[Path]) -> TokenTree:
    """A picture, then branches and inner nodes of a single token each."""
    processor = backbone.processor
    features = tuple(processor.image(path) for path in images)
    ids, _ = processor.tokenize(processor.frame(len(features)).prefix, features)
    nodes = [_node(-1, ids, processor.positions(ids, features), images=features)]
    for parent, token in [(0, 20), (0, 21), (1, 22), (1, 23), (3, 24), (0, 25)]:
        path = torch.cat([nodes[node].positions for node in _path(nodes, parent)], dim=1)
        nodes.append(_node(parent, torch.tensor([token]), continue_positions(path, 1), branch=len(nodes) - 1))
    return TokenTree("single tokens", tuple(nodes))


def _node(parent: int, ids: Tensor, positions: Tensor, *, branch: int = -1, images: tuple = ()) -> Node:
    return Node(parent, ids, positions, torch.full_like(ids, branch >= 0).bool(), torch.zeros_like(ids), branch, images)


def _path(nodes: Sequence[Node], node: int) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = nodes[node].parent
    return path[::-1]


def paths(tree: TokenTree) -> list[list[int]]:
    """Every root-to-leaf path of a tree."""
    parents = {node.parent for node in tree.nodes}
    return [_path(tree.nodes, index) for index in range(len(tree.nodes)) if index not in parents]


def stock_inputs(backbone: Backbone, tree: TokenTree, path: Sequence[int]) -> dict[str, Tensor]:
    """One path of a tree as stock model inputs: a batch of one, without padding."""
    ids = torch.cat([tree.nodes[node].ids for node in path]).unsqueeze(0)
    images = [image for node in path for image in tree.nodes[node].images]
    names = images[0].tensors if images else {}
    tensors = {name: torch.cat([image.tensors[name] for image in images]) for name in names}
    return {"input_ids": ids, "mm_token_type_ids": (ids == backbone.processor.image_token_id).int(), **tensors}


def stock_logps(backbone: Backbone, trees: Sequence[TokenTree]) -> Tensor:
    """Log-probabilities from full logits of each path alone, in the order of a packed row; ``backbone`` is a stock model."""
    values = []
    for tree in trees:
        found: dict[tuple[int, int], Tensor] = {}
        for path in paths(tree):
            inputs = stock_inputs(backbone, tree, path)
            logits = backbone.model(**inputs, use_cache=False).logits[0]
            logps = logits.log_softmax(-1)
            place = 0
            for index in path:
                node = tree.nodes[index]
                for offset in range(node.ids.numel()):
                    if node.trained[offset]:
                        found.setdefault((index, offset), logps[place - 1, node.ids[offset]])
                    place += 1
        values.extend(found[key] for key in sorted(found))
    return torch.stack(values)


def weighted_gradient(backbone: Backbone, logps: Tensor) -> dict[str, Tensor]:
    """Gradient of a loss that weighs every token differently, by parameter name."""
    backbone.zero_grad()
    (logps * torch.linspace(0.5, 1.5, logps.numel())).sum().backward()
    gradient = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    return gradient


def relative(value: Tensor, expected: Tensor) -> float:
    """Relative error in the L2 norm."""
    return float((value - expected).norm() / expected.norm())


def gradient_error(value: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative error of a whole gradient; both must reach the same parameters."""
    assert value.keys() == expected.keys()
    flat = [torch.cat([gradient[name].flatten() for name in expected]) for gradient in (value, expected)]
    return relative(*flat)


def targets_of(batch: TreeBatch, values: Tensor) -> dict[str, Tensor]:
    """Values of the trained tokens of each tree of a row, by tree id."""
    return dict(zip(batch.tree_ids, values.split(list(batch.tree_targets)), strict=True))
