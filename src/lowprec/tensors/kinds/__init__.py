"""The kinds of files that hold tensors: one module a kind."""
