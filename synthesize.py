"""Preference pairs from a policy's own responses: `python synthesize.py checkpoint=RUN`, or `backbone=NAME`."""

import sys

from spatial_lightning.runs.entry import synthesize_main

if __name__ == "__main__":
    sys.exit(synthesize_main())
