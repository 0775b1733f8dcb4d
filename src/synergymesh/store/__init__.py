"""The database: schema, queries by noun, migrations, and the adapters that implement `ports.store`."""
