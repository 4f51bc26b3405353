"""From per-token log-probabilities to sums per branch and segment, the numbers that preference objectives compare."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spatial_lightning.objectives.checks import at_least_float32, require_same_shape


def segment_sums(
    logps: Float[Tensor, " tokens"],
    branch: Int[Tensor, " tokens"],
    segment: Int[Tensor, " tokens"],
    *,
    branches: int,
    segments: int,
) -> Float[Tensor, "branches segments"]:
    """Log-probability of each segment of each branch: its tokens' log-probabilities, summed.

    Args:
        logps: log-probability of each token in nats.
        branch: which branch a token belongs to, in [0, branches); negative leaves the token out.
        segment: which segment of its branch, in [0, segments); negative leaves the token out. Zeros with ``segments=1``
            give whole responses.
        branches: rows of the result.
        segments: columns of the result.

    Returns:
        Sums in nats, in float32 or better; 0 where a branch has no token in a segment. A token that is left out gets
        zero gradient, and its log-probability may be ``-inf``.

    Raises:
        ValueError: the three inputs differ in shape.
        IndexError: a branch or segment past the end (on CUDA the device asserts).
    """
    require_same_shape(logps=logps, branch=branch, segment=segment)
    kept = (branch >= 0) & (segment >= 0)
    values = torch.where(kept, at_least_float32(logps), 0.0)
    return _scatter(values, branch, segment, kept, branches, segments)


def segment_counts(
    branch: Int[Tensor, " tokens"],
    segment: Int[Tensor, " tokens"],
    *,
    branches: int,
    segments: int,
) -> Int[Tensor, "branches segments"]:
    """Number of tokens in each segment of each branch; arguments and errors as for :func:`segment_sums`."""
    require_same_shape(branch=branch, segment=segment)
    kept = (branch >= 0) & (segment >= 0)
    return _scatter(kept.long(), branch, segment, kept, branches, segments)


def length_desensitised_weights(
    position: Int[Tensor, " tokens"],
    shared_length: Int[Tensor, " tokens"],
    *,
    alpha: float,
) -> Float[Tensor, " tokens"]:
    """Token weights that take response length out of a preference (LD-DPO, arXiv:2409.06411).

    Tokens within the length that both responses of a pair have in common weigh 1, the surplus of the longer one weighs
    alpha. Multiply the log-probabilities of policy and reference alike by the weights before :func:`segment_sums`, so
    that policy = reference still gives a margin of 0.

    Args:
        position: index of a token within its own response, from 0.
        shared_length: tokens in the shorter response of the token's pair.
        alpha: weight of the surplus, in [0, 1]; 1 is DPO, 0 ignores the surplus.

    Raises:
        ValueError: alpha outside [0, 1], or shapes that differ.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; the weight of tokens past the shared length must be in [0, 1]")
    require_same_shape(position=position, shared_length=shared_length)
    return torch.where(position < shared_length, 1.0, alpha)


def _scatter(values: Tensor, branch: Tensor, segment: Tensor, kept: Tensor, branches: int, segments: int) -> Tensor:
    # index_put checks each index against its own axis (a flattened index would spill into the next branch) and, unlike
    # index_add, adds up in a fixed order on CUDA. Tokens left out add 0 to the first cell.
    indices = (torch.where(kept, branch, 0), torch.where(kept, segment, 0))
    return values.new_zeros(branches, segments).index_put(indices, values, accumulate=True)
