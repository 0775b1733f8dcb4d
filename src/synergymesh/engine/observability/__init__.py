"""What people see of runs, tasks and tenants, and who is told of what happens."""
