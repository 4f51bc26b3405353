"""Loss maths on log-probabilities: pure functions of tensors that know no model, no trainer and no configuration."""

from spatial_lightning.objectives.fdpo import fdpo_loss, segment_betas
from spatial_lightning.objectives.kto import kto_loss
from spatial_lightning.objectives.offline import (
    advantage_weights,
    effective_sample_size,
    expectile_loss,
    rating_filter,
    weighted_nll,
)
from spatial_lightning.objectives.preference import (
    PREFERENCE_KINDS,
    bco_pair_loss,
    preference_loss,
    preference_metrics,
    simpo_loss,
)
from spatial_lightning.objectives.q_learning import q_loss, q_targets, v_loss
from spatial_lightning.objectives.returns import rating_rewards, rival_returns, step_returns
from spatial_lightning.objectives.segments import length_desensitised_weights, segment_counts, segment_sums

__all__ = [
    "PREFERENCE_KINDS",
    "advantage_weights",
    "bco_pair_loss",
    "effective_sample_size",
    "expectile_loss",
    "fdpo_loss",
    "kto_loss",
    "length_desensitised_weights",
    "preference_loss",
    "preference_metrics",
    "q_loss",
    "q_targets",
    "rating_filter",
    "rating_rewards",
    "rival_returns",
    "segment_betas",
    "segment_counts",
    "segment_sums",
    "simpo_loss",
    "step_returns",
    "v_loss",
    "weighted_nll",
]
