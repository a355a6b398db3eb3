"""Quantized tensors in the place of the tensors that a packing lays them out in."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from lowprec.tensors.packings.bitsandbytes import read_bits
from lowprec.tensors.packings.gpt_oss import read_blocks
from lowprec.tensors.packings.packed import read_packed
from lowprec.tensors.packings.parts import Found, Model, UnknownLayoutError
from lowprec.tensors.packings.scaled import read_inverse, read_scaled
from lowprec.tensors.packings.torchao import read_torchao
from lowprec.tensors.packings.transformer_engine import read_engine
from lowprec.tensors.packings.unread import reasons_to_leave

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lowprec.tensors.quantized import QuantizedTensor
    from lowprec.tensors.tensor import Tensor, TensorFile


def folded(
    files: Sequence[TensorFile],
    config: Mapping[str, Any],
    wanted: Callable[[QuantizedTensor], bool] = lambda tensor: True,
) -> tuple[TensorFile, ...]:
    """Return files in which each quantized tensor is one, in the place of its codes.

    Parameters
    ----------
    files : sequence of TensorFile
        All files of a model: a tensor's codes and scales may lie in two of them.
    config : mapping
        The model's ``quantization_config``; empty where there is none.
    wanted : callable
        Whether a quantized tensor is asked for as one; the parts of others are left.

    Returns
    -------
    tuple of TensorFile
        With `QuantizedTensor` for codes, and without their scales. What is left has a reason.
    """
    texts: dict[str, str] = {}
    for file in files:
        texts.update(file.metadata)
    model = Model({t.name: t for file in files for t in file.tensors}, texts, config)
    found = _Folding(model, wanted, {}, set(), {}, {})
    for name in model.tensors:
        for spelling in _READERS:
            found.try_reader(spelling, name)
    taken = found.gone | set(found.instead)
    rest = [tensor for name, tensor in model.tensors.items() if name not in taken]
    reasons = reasons_to_leave(rest) | found.reasons
    if not found.instead and not reasons:
        return tuple(files)

    def folded_one(tensor: Tensor) -> Tensor:
        if tensor.name in found.instead:
            return found.instead[tensor.name]
        if not (reason := reasons.get(tensor.name, "")):
            return tensor
        part_of = found.parts.get(tensor.name, "")
        return dataclasses.replace(tensor, fmt=None, left=reason, part_of=part_of)

    return tuple(
        file._replace(
            tensors=tuple(folded_one(t) for t in file.tensors if t.name not in found.gone)
        )
        for file in files
    )


class _Spelling(NamedTuple):
    """How a packing is known: the end of a name, and what stands there in the name of the codes."""

    end: str
    codes: str
    read: Callable[[Model, str, str], Found | None]


class _Folding(NamedTuple):
    """A model's tensors, and what has become of them so far, by name."""

    model: Model
    wanted: Callable[[QuantizedTensor], bool]
    instead: dict[str, Tensor]  # the quantized tensor that stands in a tensor's place
    gone: set[str]  # is part of one, and has no place of its own
    reasons: dict[str, str]  # why a tensor is left
    parts: dict[str, str]  # of which quantized tensor it is a part, where that is not made one

    def try_reader(self, spelling: _Spelling, name: str) -> None:
        """Read the packing that a name is spelt in."""
        if not name.endswith(spelling.end) or name in self.gone or name in self.instead:
            return
        base = name.removesuffix(spelling.end) + spelling.codes
        try:
            found = spelling.read(self.model, name, base)
        except UnknownLayoutError as error:
            for other in (name, *_companions(self.model, base)):
                self.reasons.setdefault(other, f"of a packing that lowprec does not read: {error}")
            return
        if found is None:
            return
        tensor, used = found
        if tensor.name in self.model.tensors and tensor.name not in used:
            self.parts[name] = tensor.name
            self.reasons[name] = f"a part of {tensor.name}, which is there too"
        elif not self.wanted(tensor):
            self.parts.update(dict.fromkeys(used, tensor.name))
            self.reasons.update(dict.fromkeys(used, f"a part of {tensor.name}"))
        else:
            place = tensor.stored[0].name
            self.instead[place] = tensor
            self.gone.update(other for other in used if other != place)


def _companions(model: Model, base: str) -> list[str]:
    """Return the tensors whose names say that they belong to these codes."""
    names = [base, *(f"{base}{suffix}" for suffix in _COMPANIONS)]
    return [name for name in names if name in model.tensors]


_COMPANIONS = (
    *("_packed", "_scale", "_scale_inv", "_global_scale", "_scale_2", "_zero_point", "_shape"),
    *("_g_idx", "_blocks", "_scales"),
)


_READERS: tuple[_Spelling, ...] = (
    _Spelling("_packed", "", read_packed),
    _Spelling("_scale_inv", "", read_inverse),
    _Spelling("._scale", "._data", read_scaled),
    _Spelling("_scale", "", read_scaled),
    _Spelling("_scale", "_quantized", read_scaled),
    _Spelling(".scale", ".weight", read_scaled),
    _Spelling(".scale_weight", ".weight", read_scaled),
    _Spelling("_blocks", "", read_blocks),
    _Spelling("_qdata", "", read_torchao),
    _Spelling("_data", "", read_engine),
    _Spelling(".quant_state.bitsandbytes__nf4", "", read_bits),
    _Spelling(".quant_state.bitsandbytes__fp4", "", read_bits),
)
