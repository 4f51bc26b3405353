"""Answer a benchmark and score it: `python evaluate.py checkpoint=RUN benchmark=NAME`, or `predictions=FILE` to score only."""

import sys

from spatial_lightning.runs.entry import evaluate_main

if __name__ == "__main__":
    sys.exit(evaluate_main())
