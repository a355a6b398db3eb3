"""Packings: how libraries lay a quantized tensor out in several tensors of a file.

A packing is known by its names, and its shapes must agree; the group sizes follow from the shapes
and, where those leave a choice, from the model's `quantization_config`. What has the names of a
packing and not its shapes is left as it is, with the reason, and so are packings that are known by
name alone: their scales are not weights, and are never judged as such.
"""

from lowprec.tensors.packings.folding import folded as folded
