"""Who may start what, and who is next: limits, fair queues, and the reason for every wait."""
