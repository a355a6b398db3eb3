"""Policies: which format each part of training uses, and how an update reaches the parameters."""

from __future__ import annotations

import dataclasses
import functools
import operator
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lowprec.accumulation import Accumulator
from lowprec.blocks.formats import AnyFormatLike, BlockFormat, ScaleRule, find_block_format
from lowprec.blocks.formats import get_format as find_format
from lowprec.common.names import named, one_of
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.train.loss_scale import LossScale

if TYPE_CHECKING:
    from collections.abc import Iterable

UPDATES = ("nearest", "stochastic", "kahan")
GRADIENT_ROUNDINGS = ("nearest", "stochastic")
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
    compute : Format, BlockFormat, str or dtype
        Of weights, inputs and activations in the forward pass. In a block format every operand of
        a product is quantized along the axis that is summed, from float32; what layers hand on
        stays float32.
    gradients : Format, BlockFormat, str or dtype, optional
        Of every gradient that leaves a layer; by default `compute`. A block format quantizes the
        gradients that are operands of products, and those that leave a layer stay float32.
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
    weights : BlockFormat or str, optional
        Of weights as operands, where `compute` is a block format; by default `compute`. In tiles,
        as ``"nvfp4_2d"``, a weight is the same in the forward and the backward product.
    gradient_rounding : str
        How gradients are quantized in a block format: ``nearest`` or ``stochastic``. Stochastic
        rounding is unbiased only where nothing is clipped, so that the named policies take the
        rule ``rceil`` for gradients.
    hadamard : int
        The size, a power of two, of the random Hadamard transform of the operands of weight
        gradients, where `gradients` is a block format; 0 for none.
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
    compute: AnyFormatLike = "float32"
    gradients: AnyFormatLike | None = None
    accumulate: Accumulator | FormatLike = "float32"
    state: FormatLike | None = None
    update: str = "nearest"
    loss_scale: LossScale | str | float | None = None
    tensor_scales: bool = False
    weights: AnyFormatLike | None = None
    gradient_rounding: str = "nearest"
    hadamard: int = 0
    name: str = dataclasses.field(default="", compare=False)
    layers: Mapping[str, Mapping[str, Any]] | Layers = ()

    def __post_init__(self) -> None:
        compute, params = find_format(self.compute), _params_format(self.params)
        accumulate = self.accumulate
        if not isinstance(accumulate, Accumulator):
            accumulate = get_format(accumulate)
        fields: dict[str, Any] = {
            "params": params,
            "compute": compute,
            "gradients": compute if self.gradients is None else find_format(self.gradients),
            "accumulate": accumulate,
            "state": params if self.state is None else get_format(self.state),
            "update": one_of(self.update, UPDATES, "kind of update"),
            "loss_scale": LossScale.get(self.loss_scale),
            "tensor_scales": bool(self.tensor_scales),
            "weights": None if self.weights is None else find_format(self.weights),
            "gradient_rounding": one_of(
                self.gradient_rounding, GRADIENT_ROUNDINGS, "rounding of gradients"
            ),
            "hadamard": operator.index(self.hadamard),
            "layers": _checked_layers(self.layers),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_formats()
        self._check_blocks()

    def _check_blocks(self) -> None:
        if self.weights is not None and not isinstance(self.weights, BlockFormat):
            raise ValueError(
                f"weights={str(self.weights)!r} is not a block format; weights in a format of "
                "single numbers are what compute= says"
            )
        if self.hadamard < 0 or self.hadamard & (self.hadamard - 1):
            raise ValueError(f"hadamard is {self.hadamard}; use a power of two such as 16, or 0")
        if self.has_blocks and self.tensor_scales:
            raise ValueError(
                "tensor_scales are for formats of single numbers, and block formats have scales of "
                "their own; leave tensor_scales away"
            )

    @property
    def has_blocks(self) -> bool:
        """Whether operands of products are quantized in blocks."""
        return isinstance(self.compute, BlockFormat) or isinstance(self.gradients, BlockFormat)

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

    @functools.cached_property
    def formats(self) -> dict[str, Format]:
        """The five formats of whole tensors by the name of their field.

        Of `accumulate` its running sum's. Where `compute` or `gradients` is a block format, tensors
        are float32, as only operands of products are quantized.
        """
        parts: dict[str, Any] = {
            "params": self.params,
            "compute": _of_tensors(self.compute),
            "gradients": _of_tensors(self.gradients),
            "accumulate": self.accumulator.fmt,
            "state": self.state,
        }
        return {name: get_format(part) for name, part in parts.items()}

    @property
    def places(self) -> Layers:
        """What is different where, as sorted tuples of key and fields."""
        return cast("Layers", self.layers)

    @functools.cached_property
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


def _of_tensors(fmt: Any) -> Any:
    return float32 if isinstance(fmt, BlockFormat) else fmt


def _checked_layers(layers: Any) -> Layers:
    """Return what is different in some places as sorted tuples, its formats looked up."""
    pairs = layers.items() if isinstance(layers, Mapping) else layers
    found: dict[str, tuple[tuple[str, Any], ...]] = {}
    for key, changes in pairs:
        if not isinstance(key, str):
            key = str(key)
        fields = dict(changes)
        allowed: tuple[str, ...] = ("compute",) if key == INPUTS else LAYER_FIELDS
        allowed = PARAMETER_FIELDS if is_parameter(key) else allowed
        for name in fields:
            if name not in allowed:
                raise ValueError(
                    f"layers={{{key!r}: {{{name!r}: …}}}}: {key} takes {', '.join(allowed)}"
                )
        found[key] = tuple(sorted((name, _field(name, value)) for name, value in fields.items()))
    numbers = string.digits  # Dense 9 comes before Dense 10
    order = {key: (key.rstrip(numbers), len(key), key) for key in found}
    return tuple(sorted(found.items(), key=lambda pair: order[pair[0]]))


def _field(name: str, value: Any) -> Any:
    if name == "update":
        return one_of(value, UPDATES, "kind of update")
    if isinstance(value, Accumulator):
        return value
    fmt = find_format(value) if name in ("compute", "gradients") else get_format(value)
    if isinstance(fmt, BlockFormat):
        return fmt
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
        "mxfp8": {
            "compute": "mxfp8_e4m3",
            "gradients": "mxfp8_e5m2:rceil",
            "gradient_rounding": "stochastic",
        },
        "mxfp4": {
            "compute": "mxfp4",
            "gradients": "mxfp4:rceil",  # what clips is not unbiased
            "gradient_rounding": "stochastic",
        },
        "nvfp4": {"compute": "nvfp4", "gradient_rounding": "stochastic"},
    }
    return {name: Policy(**fields, name=name) for name, fields in table.items()}


def layer_of(name: str) -> str:
    """Return the layer of a parameter such as ``"1/bias"``: ``"1"``; of a layer itself."""
    return name.partition("/")[0]


def is_parameter(place: str) -> bool:
    """Whether a place of a network is a parameter, such as ``"1/bias"``, and not a layer."""
    return "/" in place


def get_policy(policy: Policy | str) -> Policy:
    """Return a policy: itself, by its name, or from a spelling such as ``"compute=float16"``.

    Parameters
    ----------
    policy : Policy or str
        A `Policy`, one of `named_policies`, the name of a format in which everything but sums is
        done, or fields of `Policy` as ``name=value`` with commas between.

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
    blocks = None if policy in names else find_block_format(policy)
    if blocks is not None:
        gradients = _without_clipping(blocks)
        how: dict[str, Any] = {"gradients": gradients, "gradient_rounding": "stochastic"}
        return Policy(compute=blocks, **how, name=str(blocks))
    if policy not in names and _is_format(policy):
        sums = "float64" if get_format(policy) == float64 else "float32"
        return Policy(params=policy, compute=policy, accumulate=sums, name=policy)
    return named(policy, names, "policy")


def _without_clipping(fmt: BlockFormat) -> BlockFormat:
    """Return the format with a rule under which the largest element of a block is not clipped."""
    if fmt.rule in (ScaleRule.FLOOR, ScaleRule.EVEN):
        return dataclasses.replace(fmt, name=f"{fmt}:rceil", rule=ScaleRule.RCEIL)
    return fmt


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
    readers: dict[str, Any] = {
        "loss_scale": _read_loss_scale,
        "tensor_scales": _read_bool,
        "hadamard": int,
    }
    fields: dict[str, Any] = {}
    layers: dict[str, dict[str, str]] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{part.strip()!r} is not a field=value; write compute=float16, say")
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
