"""Judging answers: reading them, scoring them, and saying what a comparison allows one to conclude."""

from spatial_lightning.evaluation.metrics import (
    KindSummary,
    Summary,
    majority_answers,
    majority_baseline,
    summarise,
    table,
)
from spatial_lightning.evaluation.parsing import Quantity, extract_choice, parse_quantity
from spatial_lightning.evaluation.scoring import BANDS, Score, score_answer
from spatial_lightning.evaluation.statistics import Comparison, compare, mcnemar_p, paired_bootstrap, wilson_interval

__all__ = [
    "BANDS",
    "Comparison",
    "KindSummary",
    "Quantity",
    "Score",
    "Summary",
    "compare",
    "extract_choice",
    "majority_answers",
    "majority_baseline",
    "mcnemar_p",
    "paired_bootstrap",
    "parse_quantity",
    "score_answer",
    "summarise",
    "table",
    "wilson_interval",
]
