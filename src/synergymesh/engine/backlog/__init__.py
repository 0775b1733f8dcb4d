"""The backlog: which waiting runs are in memory, and how many tasks are open."""
