"""SoftFloat through softfloatpy; tests that use it skip where that is not installed."""

import pytest

try:
    import softfloatpy as softfloat
    from softfloatpy import ExceptionFlag, RoundingMode
except ModuleNotFoundError:

    class _Missing:
        """Stands for the module and all that it has, until a test calls it."""

        def __getattr__(self, name):
            return self

        def __call__(self, *arguments):
            pytest.skip("softfloatpy is not installed; it has no wheels for Python 3.14")

    softfloat = ExceptionFlag = RoundingMode = _Missing()

__all__ = ["ExceptionFlag", "RoundingMode", "softfloat"]
