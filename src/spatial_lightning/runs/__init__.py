"""Runs: configuration checked, corpus prepared, model trained, answers compared with the warm start, report written."""
