"""Judging answers: reading them, scoring them, and saying what a comparison allows one to conclude."""

from spatial_lightning.evaluation.families import Family, correct
from spatial_lightning.evaluation.metrics import (
    KindSummary,
    Summary,
    figures_table,
    majority_answers,
    majority_baseline,
    summarise,
    table,
)
from spatial_lightning.evaluation.parsing import Quantity, extract_choice, parse_quantity
from spatial_lightning.evaluation.protocols import Protocol
from spatial_lightning.evaluation.scoring import BANDS, Score, score_answer
from spatial_lightning.evaluation.seeds import SeedComparison, compare_seeds, seed_interval
from spatial_lightning.evaluation.statistics import (
    Comparison,
    compare,
    mcnemar_p,
    minimum_detectable,
    paired_bootstrap,
    wilson_interval,
)

__all__ = [
    "BANDS",
    "Comparison",
    "Family",
    "KindSummary",
    "Protocol",
    "Quantity",
    "Score",
    "SeedComparison",
    "Summary",
    "compare",
    "compare_seeds",
    "correct",
    "extract_choice",
    "figures_table",
    "majority_answers",
    "majority_baseline",
    "mcnemar_p",
    "minimum_detectable",
    "paired_bootstrap",
    "parse_quantity",
    "score_answer",
    "seed_interval",
    "summarise",
    "table",
    "wilson_interval",
]
