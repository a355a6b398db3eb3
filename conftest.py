"""Examples in docstrings of the bridges run only where what they bridge to is installed."""

from importlib.util import find_spec

collect_ignore_glob = [
    f"src/lowprec/{name}/*" for name in ("torch", "jax") if find_spec(name) is None
]
