"""What can be seen of work that was done: counts, durations, health, service levels, timelines."""
