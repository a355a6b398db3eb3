"""What is asked of a conversion: which tensors, to which format, with which random bits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.blocks.formats import BlockFormat
from lowprec.common.randomness import draw_key
from lowprec.formats import scaled
from lowprec.tensors.converted import Converted, scale_for
from lowprec.tensors.journal import plain_seed
from lowprec.tensors.layouts import can_be_quantized, quantized_parts
from lowprec.tensors.selection import check_patterns, in_words, is_selected
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lowprec.blocks.formats import AnyFormat
    from lowprec.common.randomness import RNGLike
    from lowprec.formats import Format
    from lowprec.rounding import Overflow, Rounding
    from lowprec.tensors.kinds.raw import Raw


@dataclasses.dataclass(frozen=True)
class ConversionRequest:
    """Which tensors are converted, to what, and with which random bits.

    fmt: What they are converted to; None where a plan says it of each.
    modes: How they are rounded.
    seed: Where the random bits of each tensor come from.
    scale: Whether each tensor is multiplied by a power of two before it is rounded.
    include, exclude: Patterns of names that are converted, and of those of them that are not.
    raw: What bare codes are.
    plan: The format of each tensor by its name; those that it does not name pass unchanged.
    """

    fmt: AnyFormat | None
    modes: tuple[Rounding, Overflow]
    seed: np.random.SeedSequence
    scale: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    raw: Raw | None = None
    plan: Mapping[str, AnyFormat] | None = None

    def identity(self, paths: Sequence[Path], rng: RNGLike) -> dict[str, Any]:
        """Return what must be the same for an interrupted run to go on."""
        return {
            "files": [str(path.resolve()) for path in paths],
            "to": repr(self.fmt),
            "modes": [mode.value for mode in self.modes],
            "scale": self.scale,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "plan": self.plan and {name: repr(fmt) for name, fmt in self.plan.items()},
            "rng": self._named(rng),
        }

    def _named(self, rng: RNGLike) -> Any:
        """Return the identity of a seed; that of a generator is drawn anew every time."""
        if rng is None or isinstance(rng, np.random.Generator):
            return None if rng is None else "a generator"
        return plain_seed(self.seed)

    def check_patterns(self, tensors: Sequence[Tensor]) -> None:
        """Raise unless every pattern matches a name, and something is left to convert.

        Raises ValueError: It names the pattern and the names that come near.
        """
        check_patterns([tensor.name for tensor in tensors], self.include, self.exclude)
        if (self.include != ("*",) or self.exclude) and not any(map(self.selects, tensors)):
            raise ValueError(
                f"nothing is left to convert: {in_words(self.include, self.exclude)} select no "
                "tensor of real numbers; widen include or drop exclude"
            )

    def selects(self, tensor: Tensor) -> bool:
        """Whether a tensor holds real numbers that are to be converted."""
        if tensor.fmt is None or not is_selected(tensor.name, self.include, self.exclude):
            return False
        fmt = self.format_of(tensor)
        if isinstance(fmt, BlockFormat):
            is_asked_for = self.plan is not None or self.include != ("*",)
            return can_be_quantized(tensor, fmt, is_asked_for=is_asked_for)
        return fmt is not None

    def does_not_hold(self, tensor: Tensor) -> bool:
        """Whether a block format is asked for whose layout does not hold this weight."""
        fmt = self.format_of(tensor)
        return (
            isinstance(fmt, BlockFormat)
            and tensor.fmt is not None
            and len(tensor.shape) > 1
            and is_selected(tensor.name, self.include, self.exclude)
            and not can_be_quantized(tensor, fmt, is_asked_for=True)
        )

    def format_of(self, tensor: Tensor) -> AnyFormat | None:
        """Return the format that a tensor is converted to; None where it passes unchanged."""
        return self.fmt if self.plan is None else self.plan.get(tensor.name)

    def apply(self, tensor: Tensor) -> list[Tensor]:
        """Return what a tensor is written as: converted while it is read, or itself."""
        return self._made_of(tensor, None)

    def planned(self, tensor: Tensor, scale: float = 1.0) -> list[Tensor]:
        """Return the same, for this scale, with nothing read."""
        return self._made_of(tensor, scale)

    def _made_of(self, tensor: Tensor, scale: float | None) -> list[Tensor]:
        """Return what a tensor is written as; what a scale is given for is only planned."""
        fmt = self.format_of(tensor)
        if not self.selects(tensor) or fmt is None:
            return [tensor]
        if isinstance(fmt, BlockFormat):
            return quantized_parts(tensor, fmt, self.modes[0], is_plan=scale is not None)
        if scale is None:
            scale = scale_for(tensor, fmt) if self.scale else 1.0
        return [self._converted(tensor, fmt, scale)]

    def _converted(self, tensor: Tensor, fmt: Format, scale: float) -> Tensor:
        key = draw_key(tensor_seed(self.seed, tensor.name)) if self.modes[0].is_stochastic else 0
        dtype = fmt.dtype or fmt.code_dtype
        source = Converted(tensor, scaled(fmt, scale), dtype, self.modes, key)
        return Tensor(tensor.name, tensor.shape, dtype, source, fmt, scale)


def tensor_seed(rng: RNGLike, name: str) -> np.random.SeedSequence:
    """Return the seed of one tensor's stochastic rounding.

    Parameters
    ----------
    rng : None, int, SeedSequence or Generator
        What `convert` was given.
    name : str
        The tensor's name.

    Returns
    -------
    SeedSequence
        With it, `lowprec.cast` gives what `convert` writes.

    Examples
    --------
    >>> tensor_seed(0, "w").spawn_key
    (119,)
    """
    base = seed_sequence(rng)
    return np.random.SeedSequence(base.entropy, spawn_key=(*base.spawn_key, *name.encode()))


def seed_sequence(rng: RNGLike) -> np.random.SeedSequence:
    """Return the seed that `rng` stands for; a generator is drawn from."""
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):
        return np.random.SeedSequence(int(rng.integers(2**63)))
    return np.random.SeedSequence(rng)
