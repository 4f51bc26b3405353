"""Check a backbone on this machine: `python doctor.py backbone=tiny`; exit code 1 when the engines disagree."""

import sys

from spatial_lightning.runs.cpu import keep_memory

keep_memory()

from spatial_lightning.runs.entry import doctor_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(doctor_main())
