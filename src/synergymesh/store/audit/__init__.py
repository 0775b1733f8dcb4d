"""The audit log in the database: how entries get into their chains, how they are read, and how they are deleted."""
