"""Everything that has to happen at a certain time, and what takes too long."""
