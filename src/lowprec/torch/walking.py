"""Tensors inside what modules return: tuples, dictionaries, dataclasses, packed sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence


def tensors_in(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield tensors of real floating-point numbers with names that begin with `name`.

    Examples
    --------
    >>> [found for found, _ in tensors_in((torch.zeros(2), {"h": torch.ones(2)}), "lstm")]
    ['lstm.0', 'lstm.1.h']
    """
    if isinstance(value, torch.Tensor):
        if value.dtype.is_floating_point:
            yield name, value
    elif isinstance(value, PackedSequence):
        yield from tensors_in(value.data, name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors_in(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from tensors_in(part, f"{name}.{place}" if len(value) > 1 else name)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name), f"{name}.{field.name}")


def mapped(value: Any, function: Any, name: str) -> Any:
    """Return the same structure with every such tensor replaced by ``function(tensor, name)``."""
    if isinstance(value, torch.Tensor):
        return function(value, name) if value.dtype.is_floating_point else value
    if isinstance(value, PackedSequence):
        return value._replace(data=mapped(value.data, function, name))
    if isinstance(value, dict):
        parts = {key: mapped(part, function, f"{name}.{key}") for key, part in value.items()}
        return type(value)(parts)
    if isinstance(value, list | tuple):
        names = [f"{name}.{place}" if len(value) > 1 else name for place in range(len(value))]
        found = [mapped(part, function, n) for part, n in zip(value, names, strict=True)]
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
    return value
