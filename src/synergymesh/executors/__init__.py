"""The only places where user code runs."""
