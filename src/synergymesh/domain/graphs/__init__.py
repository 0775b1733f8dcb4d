"""Graphs of components: their order, what can be said about them, and what would help."""
