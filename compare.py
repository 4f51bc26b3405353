"""Compare finished runs: `python compare.py runs=[RUN,RUN]`, or `runs=outputs/SWEEP/TIME` for all runs of a sweep."""

import sys

from spatial_lightning.runs.entry import compare_main

if __name__ == "__main__":
    sys.exit(compare_main())
