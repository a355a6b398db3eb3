"""Policies: which format each part of training uses, and how an update reaches the parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lowprec.accumulation import Accumulator
from lowprec.common.names import named, one_of
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.train.loss_scale import LossScale

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Policy", "get_policies", "get_policy", "named_policies"]

UPDATES = ("nearest", "stochastic", "kahan")
INPUTS = "inputs"
"""The key of `Policy.layers` that means the network's inputs."""

LAYER_FIELDS = ("params", "compute", "gradients", "accumulate", "state", "update")
"""What `Policy.layers` may change for a layer."""

PARAMETER_FIELDS = ("params", "state", "update")
"""What it may change for a single parameter."""

Layers = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


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
    layers : mapping of str to mapping, optional
        What is different in some places: ``{"Dense 2": {"compute": "float32"}}``. Keys are a
        layer's label (its class, counted by class), its index (``"2"``), a parameter (``"1/bias"``:
        params, state, update only) or ``"inputs"`` (compute only: the network's inputs); fields are
        compute, gradients, accumulate, params, state and update. It is kept as sorted tuples, so
        that a policy can be hashed. `Dense` and `Conv2D` round what they read to their own
        compute; all other layers read it as it is.
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
    >>> str(Policy(compute="bfloat16", layers={"Dense 2": {"compute": "float32"}}))
    'compute=bfloat16,Dense 2.compute=float32'

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
    layers: Mapping[str, Mapping[str, Any]] | Layers = ()

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
            "layers": _checked_layers(self.layers),
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
    def places(self) -> Layers:
        """What is different where, as sorted tuples of key and fields."""
        return cast("Layers", self.layers)

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
        spelled = self.name or self._fields_spelled()
        places = [
            f"{key}.{name}={_spelled(value)}"
            for key, fields in self.places
            for name, value in fields
        ]
        return ",".join([spelled, *places] if spelled or not places else places) or "float32"

    def _fields_spelled(self) -> str:
        """Return the fields that differ from float32's, or nothing."""
        usual, changed = Policy(), []
        defaults = {"gradients": self.compute, "state": self.params}
        for field in dataclasses.fields(self)[:-2]:
            value = getattr(self, field.name)
            if value != defaults.get(field.name, getattr(usual, field.name)):
                changed.append(f"{field.name}={_spelled(value)}")
        return ",".join(changed)


def _checked_layers(layers: Any) -> Layers:
    """Return what is different in some places as sorted tuples, its formats looked up."""
    pairs = layers.items() if isinstance(layers, Mapping) else layers
    found: dict[str, tuple[tuple[str, Any], ...]] = {}
    for key, changes in pairs:
        if not isinstance(key, str):
            key = str(key)
        fields = dict(changes)
        allowed: tuple[str, ...] = ("compute",) if key == INPUTS else LAYER_FIELDS
        allowed = PARAMETER_FIELDS if "/" in key else allowed
        for name in fields:
            if name not in allowed:
                raise ValueError(
                    f"layers={{{key!r}: {{{name!r}: …}}}}: {key} takes {', '.join(allowed)}"
                )
        found[key] = tuple(sorted((name, _field(name, value)) for name, value in fields.items()))
    return tuple(sorted(found.items()))


def _field(name: str, value: Any) -> Any:
    if name == "update":
        return one_of(value, UPDATES, "kind of update")
    if isinstance(value, Accumulator):
        return value
    fmt = get_format(value)
    if not fmt.signed or not fmt.fits(float64):
        raise ValueError(f"{name}={str(fmt)!r} cannot serve a layer; use a signed format")
    return fmt


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
    first, _, rest = text.partition(",")
    if "=" not in first:  # a named policy, and what is different from it
        base = get_policy(first.strip())
        changed = _parse_fields(rest)
        name = base.name if set(changed) == {"layers"} else ""
        return dataclasses.replace(base, **changed, name=name)
    return Policy(**_parse_fields(text))


def _parse_fields(text: str) -> dict[str, Any]:
    readers = {"loss_scale": _read_loss_scale, "tensor_scales": _read_bool}
    fields: dict[str, Any] = {}
    layers: dict[str, dict[str, str]] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{part.strip()!r} is no field=value; write compute=float16, say")
        place, dot, part_name = name.rpartition(".")
        if dot:
            layers.setdefault(place, {})[part_name] = value
            continue
        known = [field.name for field in dataclasses.fields(Policy)[:-2]]
        name = one_of(name, known, "field of a policy")
        if name in fields:
            raise ValueError(f"{name} is given twice in {text!r}")
        fields[name] = readers.get(name, str)(value)
    return fields | ({"layers": layers} if layers else {})


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
