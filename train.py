"""Train, evaluate and report: `python train.py +experiment=NAME`, `+sweep=NAME`, or `-m` with lists of values."""

import sys

from spatial_lightning.runs.cpu import keep_memory

keep_memory()

from spatial_lightning.runs.entry import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
