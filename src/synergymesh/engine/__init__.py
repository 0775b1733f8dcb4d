"""Moves tasks along their way: submission, dispatch, attempt, commit, recovery, control."""
