"""Policies: which format each part of training uses, and how an update reaches the parameters."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from lowprec.accumulation import Accumulator
from lowprec.common.names import named, one_of
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.train.loss_scale import LossScale

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Policy", "get_policies", "get_policy", "named_policies"]

UPDATES = ("nearest", "stochastic", "kahan")


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which format each part of training uses.

    Parameters
    ----------
    params : Format, str or dtype
        Of the stored (master) parameters.
    compute : Format, str or dtype
        Of weights, inputs and activations in the forward pass.
    gradients : Format, str or dtype, optional
        Of every gradient that leaves a layer; by default `compute`.
    accumulate : Accumulator, or Format, str or dtype
        Inside matrix products.
    state : Format, str or dtype, optional
        Of the optimizer's state; by default `params`.
    update : str
        How the float32 sum of a parameter and its update is rounded into `params`: ``nearest``,
        ``stochastic`` or ``kahan`` (what rounding lost is kept, in the format of `params`, and
        added at the next step).
    loss_scale : LossScale, ``"dynamic"``, number or None
        What the loss is multiplied by before the backward pass: ``"dynamic"`` is
        ``LossScale.torch()``, a number a static scale.
    tensor_scales : bool
        Whether every tensor in `compute` and `gradients` is rounded under a power of two that
        brings its largest element just below the format's maximum, saturating.
    name : str, optional
        What the policy is called; policies are equal without regard to it.

    Raises
    ------
    ValueError
        If a name is unknown, or a format cannot serve.

    Examples
    --------
    >>> Policy(compute="bfloat16").gradients.name
    'bfloat16'
    >>> get_policy("mixed_float16").loss_scale.value
    65536.0
    >>> str(get_policy("compute=float16,gradients=bfloat16"))
    'compute=float16,gradients=bfloat16'

    References
    ----------
    Micikevicius et al. (2018), Mixed Precision Training, ICLR. Zamirai et al. (2020), Revisiting
    BFloat16 Training, for stochastic and Kahan updates.
    """

    params: FormatLike = "float32"
    compute: FormatLike = "float32"
    gradients: FormatLike | None = None
    accumulate: Accumulator | FormatLike = "float32"
    state: FormatLike | None = None
    update: str = "nearest"
    loss_scale: LossScale | str | float | None = None
    tensor_scales: bool = False
    name: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        compute, params = get_format(self.compute), _params_format(self.params)
        accumulate = self.accumulate
        if not isinstance(accumulate, Accumulator):
            accumulate = get_format(accumulate)
        fields: dict[str, Any] = {
            "params": params,
            "compute": compute,
            "gradients": compute if self.gradients is None else get_format(self.gradients),
            "accumulate": accumulate,
            "state": params if self.state is None else get_format(self.state),
            "update": one_of(self.update, UPDATES, "kind of update"),
            "loss_scale": LossScale.get(self.loss_scale),
            "tensor_scales": bool(self.tensor_scales),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_formats()

    def _check_formats(self) -> None:
        widest = float64 if self.is_float64 else float32
        for name, fmt in self.formats.items():
            if not fmt.signed:
                raise ValueError(f"{name}={str(fmt)!r} has no sign; use a signed format")
            if not fmt.fits(widest):
                raise ValueError(
                    f"{name}={str(fmt)!r} does not fit float32, in which training computes; "
                    "use a narrower format, or float64 everywhere"
                )

    @property
    def formats(self) -> dict[str, Format]:
        """The five formats by the name of their field; of `accumulate` its running sum's."""
        parts: dict[str, Any] = {
            "params": self.params,
            "compute": self.compute,
            "gradients": self.gradients,
            "accumulate": self.accumulator.fmt,
            "state": self.state,
        }
        return {name: get_format(part) for name, part in parts.items()}

    @property
    def accumulator(self) -> Accumulator:
        """How matrix products are summed."""
        if isinstance(self.accumulate, Accumulator):
            return self.accumulate
        return Accumulator(self.accumulate)

    @property
    def is_float64(self) -> bool:
        """Whether everything is computed in float64, to check what float32 does."""
        return all(fmt == float64 for fmt in self.formats.values())

    def __str__(self) -> str:
        if self.name:
            return self.name
        usual, changed = Policy(), []
        defaults = {"gradients": self.compute, "state": self.params}
        for field in dataclasses.fields(self)[:-1]:
            value = getattr(self, field.name)
            if value != defaults.get(field.name, getattr(usual, field.name)):
                changed.append(f"{field.name}={_spelled(value)}")
        return ",".join(changed) or "float32"


def _spelled(value: Any) -> str:
    """Spell a field so that `get_policy` reads it back; what it cannot read, as its repr."""
    if isinstance(value, LossScale):
        presets = {name: LossScale.get(name) for name in ("dynamic", "keras", "jmp")}
        names = [name for name, preset in presets.items() if preset == value]
        plain = repr(value.value) if value == LossScale.static(value.value) else repr(value)
        return names[0] if names else plain
    return repr(value) if isinstance(value, Accumulator) else str(value)


@functools.cache
def named_policies() -> dict[str, Policy]:
    """Return the named policies, plain float32 first.

    Examples
    --------
    >>> list(named_policies())[:3]
    ['float32', 'mixed_bfloat16', 'mixed_float16']
    """
    table: dict[str, dict[str, Any]] = {
        "float32": {},
        "mixed_bfloat16": {"compute": "bfloat16"},
        "mixed_float16": {"compute": "float16", "loss_scale": "dynamic"},
        "bfloat16": {"params": "bfloat16", "compute": "bfloat16"},
        "float16": {"params": "float16", "compute": "float16"},
        "bfloat16_stochastic": {
            "params": "bfloat16",
            "compute": "bfloat16",
            "update": "stochastic",
        },
        "bfloat16_kahan": {"params": "bfloat16", "compute": "bfloat16", "update": "kahan"},
        "mixed_float8": {
            "compute": "float8_e4m3fn",
            "gradients": "float8_e5m2",
            "tensor_scales": True,
        },
    }
    return {name: Policy(**fields, name=name) for name, fields in table.items()}


def get_policy(policy: Policy | str) -> Policy:
    """Return a policy: itself, by its name, or from a spelling such as ``"compute=float16"``.

    Parameters
    ----------
    policy : Policy or str
        A `Policy`, one of `named_policies`, the name of a format in which everything but sums is
        done, or fields of `Policy` as ``name=value`` with commas between.

    Returns
    -------
    Policy

    Raises
    ------
    ValueError
        If there is no such name or field.

    Examples
    --------
    >>> get_policy("params=float32,compute=float16,loss_scale=1024").loss_scale.value
    1024.0
    """
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"policy is a {type(policy).__name__}; pass a Policy or its name")
    if "=" in policy:
        return _parse(policy)
    names = named_policies()
    if policy not in names and _is_format(policy):
        sums = "float64" if get_format(policy) == float64 else "float32"
        return Policy(params=policy, compute=policy, accumulate=sums, name=policy)
    return named(policy, names, "policy")


def get_policies(policies: Iterable[Policy | str] | Policy | str) -> list[Policy]:
    """Return policies as a list; a single one serves too.

    Examples
    --------
    >>> [str(policy) for policy in get_policies("mixed_float16")]
    ['mixed_float16']
    """
    if isinstance(policies, Policy | str):
        policies = [policies]
    return [get_policy(policy) for policy in policies]


def _params_format(params: FormatLike) -> Format:
    """Return the format of the parameters; answer those who write ``Policy("mixed_float16")``."""
    try:
        return get_format(params)
    except ValueError:
        if params in named_policies():
            raise ValueError(
                f"{params!r} is the name of a policy, and Policy takes formats; use "
                f"train.get_policy({params!r})"
            ) from None
        raise


def _is_format(name: str) -> bool:
    try:
        get_format(name)
    except ValueError:
        return False
    return True


def _parse(text: str) -> Policy:
    readers = {"loss_scale": _read_loss_scale, "tensor_scales": _read_bool}
    fields: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{part.strip()!r} is no field=value; write compute=float16, say")
        known = [field.name for field in dataclasses.fields(Policy)[:-1]]
        name = one_of(name, known, "field of a policy")
        if name in fields:
            raise ValueError(f"{name} is given twice in {text!r}")
        fields[name] = readers.get(name, str)(value)
    return Policy(**fields)


def _read_loss_scale(text: str) -> str | float | None:
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _read_bool(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return named(text.lower(), words, "answer")
