"""The classic tests of a format: what becomes of an algorithm whose every step is rounded to it."""
