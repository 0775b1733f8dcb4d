"""SynergyMesh: durable multi-tenant workflows in dependency order, with retries, quotas and fairness."""
