"""Benchmarks: every figure as a number and, where noise matters, as a ratio within one run."""
