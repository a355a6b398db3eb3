"""Settings shared by all tests."""

from hypothesis import settings

settings.register_profile("laws", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("laws")
