"""What all tests have in common."""

from hypothesis import settings

# How long an example takes says more about the machine than about the code: machines are shared.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
