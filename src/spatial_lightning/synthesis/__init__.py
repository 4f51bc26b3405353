"""Corpora made from scenes: questions, reasoned answers and preference pairs whose truth is exact geometry."""
