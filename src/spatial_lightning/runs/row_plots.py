"""A packed row drawn: its trees with parents and branches, and which token attends to which."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from jaxtyping import Bool, Int
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from spatial_lightning.backbones.attention import plan_attention
from spatial_lightning.records import SEGMENTS
from spatial_lightning.runs.curves import STYLE, Plot
from spatial_lightning.tree import TreeBatch

SORTS = {"context": "#b9bdc4", "trained": "#3a9a68", **dict(zip(SEGMENTS, ("#3b7cc4", "#e08a2c"), strict=True))}
"""Sorts of tokens and their colours: those of the page that shows examples token by token, darker."""
_TINTS = [(*to_rgb(color), 0.6) for color in SORTS.values()]
_BAR = 0.86
"""Width of a node's bar, of the room between two depths."""


def attended(batch: TreeBatch) -> Bool[Tensor, "tokens tokens"]:
    """For each token of a row (first dimension), the tokens that the plan of tree attention lets it attend to.

    Read from the plan that the shared engine runs, for causal layers without a window.
    """
    plan = plan_attention(batch)
    seen = torch.zeros(plan.queries.numel(), batch.tokens, dtype=torch.bool)
    first_query = first_key = 0
    for mask in plan.masks:
        chains, _, width, length = mask.shape
        chain, _, query, key = mask.nonzero(as_tuple=True)
        seen[first_query + chain * width + query, plan.keys[first_key + chain * length + key]] = True
        first_query, first_key = first_query + chains * width, first_key + chains * length
    return seen[plan.inverse]


def sorts_of(batch: TreeBatch) -> Int[Tensor, " tokens"]:
    """For each token the place of its sort in :data:`SORTS`: context, trained without a segment, or its segment."""
    sorts = torch.zeros(batch.tokens, dtype=torch.long)
    # A segment of -1 is "trained".
    sorts[batch.targets] = 2 + batch.segment
    return sorts


def draw_tree(batch: TreeBatch, path: Path) -> Plot:
    """Draw the trees of a row as PNG: a bar a node, to the right of its parent, cut by what its tokens are."""
    places = _places(batch)
    wide, high = 1 + max(depth for depth, _ in places), 1 + max(row for _, row in places)
    sorts = sorts_of(batch)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.9 * wide + 0.2, 0.5 * high + 0.5), dpi=100, layout="constrained")
        axes = figure.subplots()
        for node, (depth, row) in enumerate(places):
            if (parent := batch.node_parents[node]) >= 0:
                above, between = places[parent], depth - 0.5
                line = [above[0] + _BAR / 2, between, between, depth - _BAR / 2]
                axes.plot(line, [above[1], above[1], row, row], color="#888888")
            counts = torch.bincount(sorts[list(batch.node(node))], minlength=len(SORTS))
            widths = _BAR * counts / counts.sum()
            lefts = depth - _BAR / 2 + widths.cumsum(0) - widths
            axes.barh([row] * len(SORTS), widths, 0.72, lefts, color=_TINTS)
            text = f"{_name(batch, node)}\n{_described(batch, node, counts)}"
            axes.text(depth, row, text, ha="center", va="center", fontsize=7)
        axes.set_xlim(-0.5, wide - 0.5)
        axes.set_ylim(high - 0.5, -0.5)
        axes.axis("off")
        _explain(figure, sorts)
        figure.savefig(path, metadata={"Software": None})
    return Plot(path, "Nodes of a packed row; each sees itself and what is to its left along the lines, nothing else")


def draw_mask(batch: TreeBatch, path: Path) -> Plot:
    """Draw who attends to whom as PNG: queries downwards, keys to the right, in the colour of the key's sort."""
    sorts = sorts_of(batch)
    picture = torch.where(attended(batch), 1 + sorts, 0)
    edges = torch.tensor(batch.node_starts) - 0.5
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(8.2, 7.2), dpi=100, layout="constrained")
        axes = figure.subplots()
        colours = ListedColormap(["white", *SORTS.values()])
        axes.imshow(picture.numpy(), cmap=colours, vmin=0, vmax=len(SORTS), interpolation="nearest")
        for lines in (axes.hlines, axes.vlines):
            lines(edges.tolist(), -0.5, batch.tokens - 0.5, color="#000000", linewidth=0.3, alpha=0.4)
        # Names of narrow nodes would lie over one another.
        named = [node for node, middle in enumerate(middles) if len(batch.node(node)) * 55 >= batch.tokens]
        axes.set_yticks([middles[node] for node in named], [_name(batch, node) for node in named], fontsize=7)
        axes.set_xlabel("position in the row that is attended to")
        axes.set_ylabel("token that attends")
        _explain(figure, sorts)
        figure.savefig(path, metadata={"Software": None})
    return Plot(path, "Who attends to whom in a packed row; white is hidden")


def _places(batch: TreeBatch) -> list[tuple[int, float]]:
    """Depth of each node and its row: leaves one below the other, parents in the middle of their children."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(batch.node_parents):
        children.setdefault(parent, []).append(node)
    rows: dict[int, float] = {}
    leaves = 0

    def place(node: int) -> float:
        nonlocal leaves
        own = [place(child) for child in children.get(node, [])]
        leaves += not own
        rows[node] = (own[0] + own[-1]) / 2 if own else leaves - 1
        return rows[node]

    for root in children[-1]:
        place(root)
    return [(len(batch.path(node)) - 1, rows[node]) for node in range(len(batch.node_parents))]


def _name(batch: TreeBatch, node: int) -> str:
    """A node by its number, and by the branch that its trained tokens belong to."""
    places = batch.node(node)
    own = batch.branch[(batch.targets >= places.start) & (batch.targets < places.stop)]
    return f"node {node}, branch {int(own[0])}" if len(own) else f"node {node}"


def _described(batch: TreeBatch, node: int, counts: Tensor) -> str:
    """What a node holds, in words."""
    pictures = batch.image_counts[node]
    said = [f"{count} {name}" for name, count in zip(SORTS, counts.tolist(), strict=True) if count]
    return ", ".join(said) + (f" ({pictures} picture{'s' * (pictures > 1)})" if pictures else "")


def _explain(figure: Figure, sorts: Tensor) -> None:
    """A legend of the sorts that there are."""
    found = set(sorts.tolist())
    shown = [Patch(color=color, label=name) for at, (name, color) in enumerate(SORTS.items()) if at in found]
    figure.legend(handles=shown, loc="outside upper right", ncols=len(shown))
