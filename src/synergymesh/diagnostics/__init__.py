"""Examinations: of the database and the machine, of a graph, of a run's performance, of the isolation of tenants."""
