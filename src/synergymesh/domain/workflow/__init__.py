"""Workflows as values: their definition, its settings and templates, its plan, and the state of one run of it."""
