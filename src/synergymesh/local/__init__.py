"""The channel between processes of one user on one machine: whoever does not own a database asks the one that does."""
