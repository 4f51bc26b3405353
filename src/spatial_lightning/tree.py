"""Token trees: a shared prefix with branches, packed without padding into one row.

Every training example is a tree of token nodes. A node sees its ancestors and itself, never a sibling; running the packed
row once gives the same numbers as running every root-to-leaf path as a sequence of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NO_SEGMENT = -1


class TreeError(ValueError):
    """A tree that cannot be trained on or packed; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """An image as the model takes it.

    Attributes:
        tensors: model inputs by name (e.g. ``pixel_values``, ``image_grid_thw``), to be concatenated along dimension 0.
        tokens: how many positions of the sequence the image fills.
        key: content hash of pixels and preprocessing.
        text: what its placeholder in a conversation becomes, image tokens and markers around them.
    """

    tensors: Mapping[str, Tensor]
    tokens: int
    key: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked to continue: a conversation up to the answer, and its images in order."""

    ids: Int[Tensor, " tokens"]
    images: tuple[ImageFeatures, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens that all paths through it share.

    Attributes:
        parent: index of the parent node in the tree, -1 for the root.
        ids: token ids, image placeholders included.
        positions: rotary position of each token along its path, one row per axis.
        trained: which tokens are targets.
        segment: segment index of each trained token, -1 where there is none.
        branch: index of the branch (question, response, step) that the trained tokens belong to, -1 for pure context.
        images: images whose placeholders are in ``ids``, in order.
    """

    parent: int
    ids: Int[Tensor, " tokens"]
    positions: Int[Tensor, "axes tokens"]
    trained: Bool[Tensor, " tokens"]
    segment: Int[Tensor, " tokens"]
    branch: int = -1
    images: tuple[ImageFeatures, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenTree:
    """One example: nodes in an order where parents come before their children.

    Attributes:
        id: names the example in errors and caches.
        values: numbers that the objective needs, one row per pair, branch or token (first dimension), concatenated by packing.

    Raises:
        TreeError: no node, a parent that comes later, a second root, no trained token, or trained tokens without a branch.
    """

    id: str
    nodes: tuple[Node, ...]
    values: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nodes:
            raise TreeError(f"{self.id}: a tree needs at least one node")
        for index, node in enumerate(self.nodes):
            if not (-1 <= node.parent < index) or (node.parent == -1) != (index == 0):
                raise TreeError(
                    f"{self.id}: node {index} has parent {node.parent}; parents come first, node 0 is the root"
                )
            if node.ids.numel() == 0:
                raise TreeError(f"{self.id}: node {index} has no token")
            if node.branch < 0 and bool(node.trained.any()):
                raise TreeError(f"{self.id}: node {index} has trained tokens but belongs to no branch")
        if bool(self.nodes[0].trained[0]):
            raise TreeError(f"{self.id}: the first token of a sequence has nothing before it and cannot be trained")
        if not any(bool(node.trained.any()) for node in self.nodes):
            raise TreeError(f"{self.id}: no token is trained")

    @property
    def tokens(self) -> int:
        """Tokens of the packed tree, image tokens counted."""
        return sum(node.ids.numel() for node in self.nodes)

    @property
    def trained_tokens(self) -> int:
        """Tokens that are targets."""
        return sum(int(node.trained.sum()) for node in self.nodes)

    @property
    def branches(self) -> int:
        """Number of branches."""
        return 1 + max(node.branch for node in self.nodes)

    def key(self) -> str:
        """Content hash of everything that the log-probabilities of the trained tokens depend on, weights aside."""
        digest = hashlib.blake2b(digest_size=16)
        for node in self.nodes:
            digest.update(f"{node.parent},{node.ids.numel()}".encode())
            for tensor in (node.ids, node.positions, node.trained):
                digest.update(tensor.contiguous().numpy().tobytes())
            for image in node.images:
                digest.update(image.key.encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Many trees in one row, without padding.

    Attributes:
        ids: token ids of all nodes, node after node, tree after tree.
        positions: rotary positions, one row per axis.
        node_starts: start of each node in the row, with the row's length as last entry.
        node_parents: parent of each node among the nodes of the row, -1 for a root.
        targets: row index of each trained token, ascending.
        predictors: row index whose hidden state predicts that token (the parent's last token for a node's first).
        branch: branch of each trained token, counted through the row.
        segment: segment of each trained token, -1 where there is none.
        branches: number of branches in the row.
        images: model inputs for the images, in token order.
        values: numbers that the objective needs, rows of all trees concatenated.
        tree_ids: id of each tree.
        tree_keys: content hash of each tree; empty unless packing was asked for it.
        tree_targets: number of trained tokens of each tree.
        image_counts: number of images of each node.
        image_rows: rows that each image takes of every image input.
    """

    ids: Int[Tensor, " tokens"]
    positions: Int[Tensor, "axes tokens"]
    node_starts: tuple[int, ...]
    node_parents: tuple[int, ...]
    targets: Int[Tensor, " targets"]
    predictors: Int[Tensor, " targets"]
    branch: Int[Tensor, " targets"]
    segment: Int[Tensor, " targets"]
    branches: int
    images: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    tree_ids: tuple[str, ...]
    tree_keys: tuple[str, ...]
    tree_targets: tuple[int, ...]
    image_counts: tuple[int, ...]
    image_rows: Mapping[str, tuple[int, ...]]

    @property
    def tokens(self) -> int:
        """Length of the row."""
        return self.node_starts[-1]

    def node(self, index: int) -> range:
        """Row positions of a node."""
        return range(self.node_starts[index], self.node_starts[index + 1])

    def path(self, node: int) -> list[int]:
        """Nodes from the root down to ``node``."""
        path = [node]
        while self.node_parents[path[-1]] >= 0:
            path.append(self.node_parents[path[-1]])
        return path[::-1]

    def leaves(self) -> list[int]:
        """Nodes without children."""
        parents = set(self.node_parents)
        return [index for index in range(len(self.node_parents)) if index not in parents]

    def images_of(self, nodes: Sequence[int]) -> dict[str, Tensor]:
        """Image inputs of some nodes, in the order of ``nodes``."""
        picked = [image for node in nodes for image in self._images_at(node)]
        rows: dict[str, Tensor] = {}
        for name, lengths in self.image_rows.items():
            starts = [0]
            for length in lengths:
                starts.append(starts[-1] + length)
            if picked:
                rows[name] = torch.cat([self.images[name][starts[i] : starts[i + 1]] for i in picked])
        return rows

    def _images_at(self, node: int) -> range:
        start = sum(self.image_counts[:node])
        return range(start, start + self.image_counts[node])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TreeBatch:
        """The batch with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TreeBatch:
        """The batch with every tensor in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> TreeBatch:
        changed = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                changed[entry.name] = function(value)
            elif entry.name in ("images", "values"):
                changed[entry.name] = {name: function(tensor) for name, tensor in value.items()}
        return dataclasses.replace(self, **changed)


def continue_positions(parent: Int[Tensor, "axes path"], length: int) -> Int[Tensor, "axes tokens"]:
    """Positions of ``length`` text tokens after a path: all axes go on from the path's global maximum plus one."""
    start = int(parent.max()) + 1 if parent.numel() else 0
    return (start + torch.arange(length)).expand(parent.shape[0], length)


def pack(trees: Sequence[TokenTree], *, keys: bool = False) -> TreeBatch:
    """Pack trees into one row; ``keys`` adds the content hash of each tree, for caches.

    Raises:
        TreeError: no tree, or trees that carry different values or image inputs.
    """
    if not trees:
        raise TreeError("there is no tree to pack")
    names = {tuple(sorted(tree.values)) for tree in trees}
    if len(names) > 1:
        raise TreeError(f"trees of one row must carry the same values, got {sorted(names)}")
    starts, parents, image_counts = [0], [], []
    predictors, branches = [], []
    images: list[ImageFeatures] = []
    first_node = first_branch = 0
    for tree in trees:
        for node in tree.nodes:
            start, length = starts[-1], node.ids.numel()
            previous = torch.arange(start - 1, start + length - 1)
            if node.parent >= 0:
                previous[0] = starts[first_node + node.parent + 1] - 1
            predictors.append(previous[node.trained])
            branches.append(torch.full((int(node.trained.sum()),), first_branch + node.branch))
            starts.append(start + length)
            parents.append(first_node + node.parent if node.parent >= 0 else -1)
            image_counts.append(len(node.images))
            images.extend(node.images)
        first_node += len(tree.nodes)
        first_branch += tree.branches
    nodes = [node for tree in trees for node in tree.nodes]
    kinds = {tuple(sorted(image.tensors)) for image in images}
    if len(kinds) > 1:
        raise TreeError(f"images of one row must have the same inputs, got {sorted(kinds)}")
    inputs = sorted(images[0].tensors) if images else []
    return TreeBatch(
        ids=torch.cat([node.ids for node in nodes]),
        positions=torch.cat([node.positions for node in nodes], dim=1),
        node_starts=tuple(starts),
        node_parents=tuple(parents),
        targets=torch.cat([node.trained for node in nodes]).nonzero().flatten(),
        predictors=torch.cat(predictors),
        branch=torch.cat(branches),
        segment=torch.cat([node.segment[node.trained] for node in nodes]),
        branches=first_branch,
        images={name: join_rows([image.tensors[name] for image in images]) for name in inputs},
        values={name: torch.cat([tree.values[name] for tree in trees]) for name in trees[0].values},
        tree_ids=tuple(tree.id for tree in trees),
        tree_keys=tuple(tree.key() for tree in trees) if keys else (),
        tree_targets=tuple(tree.trained_tokens for tree in trees),
        image_counts=tuple(image_counts),
        image_rows={name: tuple(image.tensors[name].shape[0] for image in images) for name in inputs},
    )


def join_rows(pieces: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other along the first dimension; other dimensions are filled up at their end with zeros."""
    sizes = [max(lengths) for lengths in zip(*(piece.shape[1:] for piece in pieces), strict=True)]

    def fill(piece: Tensor) -> Tensor:
        missing = [wanted - own for wanted, own in zip(sizes, piece.shape[1:], strict=True)]
        return torch.nn.functional.pad(piece, [amount for gap in missing[::-1] for amount in (0, gap)])

    return torch.cat([piece if list(piece.shape[1:]) == sizes else fill(piece) for piece in pieces])


def split_by_budget(trees: Iterable[TokenTree], budget: int) -> Iterator[list[TokenTree]]:
    """Cut a sequence of trees into rows of at most ``budget`` tokens, keeping their order.

    Raises:
        TreeError: a single tree is longer than the budget.
    """
    row: list[TokenTree] = []
    used = 0
    for tree in trees:
        if tree.tokens > budget:
            raise TreeError(f"{tree.id}: {tree.tokens} tokens do not fit the token budget of {budget}")
        if row and used + tree.tokens > budget:
            yield row
            row, used = [], 0
        row.append(tree)
        used += tree.tokens
    if row:
        yield row
