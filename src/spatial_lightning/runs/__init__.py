"""Runs: configuration checked, corpus prepared, model trained, answers compared with the warm start, report written."""

import logging

# What bitsandbytes lacks on a CPU it says when it is imported, whoever imports it and whether or not it is used.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
