"""How an optimizer is put together: transforms, adaptive moments, clipping, and the step itself."""
