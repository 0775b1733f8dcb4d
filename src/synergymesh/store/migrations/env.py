"""Run the migrations on the connection that the store hands over; there is no ini file."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite's DDL is transactional, Alembic only does not count on it: a start that is killed in the middle of a
    # migration must leave the old schema.
    transactional_ddl=True,
)

with context.begin_transaction():
    context.run_migrations()
