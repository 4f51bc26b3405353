"""Comparing finished runs: reading, grouping, figures, tables, plots and the page; ``compare_runs`` does it all."""

from spatial_lightning.runs.comparing.comparison import Comparing, compare_runs

__all__ = ["Comparing", "compare_runs"]
