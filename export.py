"""Write a run's model as a Hugging Face directory: `python export.py run=outputs/NAME/TIME to=DIRECTORY`."""

import sys

from spatial_lightning.runs.entry import export_main

if __name__ == "__main__":
    sys.exit(export_main())
