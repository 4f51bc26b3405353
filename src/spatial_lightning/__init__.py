"""Teach vision-language models to reason about space, and compare ways of doing so."""

__version__ = "0.1.0"
