"""What people do to runs and tenants: cancel, delete, pause, do again."""
