"""The seams of the system as Protocols: store, executor, clock."""
