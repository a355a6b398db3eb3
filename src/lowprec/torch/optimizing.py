"""`Optimizer`: parameters and state in narrow formats around any of torch's optimizers."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

import torch

from lowprec.common.names import one_of
from lowprec.formats import FormatLike, float32, get_format
from lowprec.torch.door import round_to
from lowprec.torch.dtypes import holds

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.policy import Policy

_UPDATES = ("stochastic", "kahan", "nearest")
_ARITHMETICS = ("float32", "torch")
_COMPENSATION = "compensation"


class Optimizer(torch.optim.Optimizer):
    """One of torch's optimizers, whose parameters and state are kept in narrow formats.

    The optimizer steps on float32 copies of parameters, gradients and state; what comes of it is
    rounded once when it is stored.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The one that steps; not one that evaluates a closure several times, such as LBFGS.
    params : Format, str or dtype
        The format of parameters. They keep their dtype, which holds it: float32, or torch's own
        dtype for the format. They are rounded to it, ties to even, here and now.
    state : Format, str or dtype
        The format of the optimizer's state. It is kept in the dtype of the parameter where that
        holds it, else in float32.
    update : str
        How the float32 result is rounded into `params`: ``stochastic``; ``kahan``, which keeps what
        rounding added too much in ``state[p]["compensation"]``, in `params`, and subtracts it at
        the next step, as `lowprec.train` does; or ``nearest``.
    generator : torch.Generator, optional
        Where stochastic rounding draws its keys; by default torch's CPU generator. Its state is
        yours to save.
    arithmetic : str
        ``float32``, or ``torch``: the step stays in the dtype of the parameters, as torch does
        it, with ``update="nearest"`` alone. In bfloat16 torch then rounds the learning rate too.

    Raises
    ------
    TypeError
        If `optimizer` is not an optimizer of torch.
    ValueError
        If a parameter's dtype does not hold `params`, or the arguments contradict each other.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 1).to(torch.bfloat16)
    >>> optimizer = Optimizer(torch.optim.AdamW(model.parameters()), update="kahan")
    >>> model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['compensation', 'exp_avg', 'exp_avg_sq', 'step']

    References
    ----------
    Zamirai et al. (2020), Revisiting BFloat16 Training.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        params: FormatLike = "bfloat16",
        state: FormatLike = "bfloat16",
        update: str = "stochastic",
        generator: torch.Generator | None = None,
        arithmetic: str = "float32",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer is a {type(optimizer).__name__}; pass one of torch.optim's, such as "
                "torch.optim.AdamW(model.parameters())"
            )
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                "LBFGS evaluates its closure several times a step, between which nothing would be "
                "rounded; use an optimizer that evaluates it once"
            )
        self._params, self._state = get_format(params), get_format(state)
        self._update = one_of(update, _UPDATES, "kind of update")
        self._arithmetic = one_of(arithmetic, _ARITHMETICS, "arithmetic")
        if arithmetic == "torch" and update != "nearest":
            raise ValueError(
                f"arithmetic='torch' rounds to nearest in torch's own operations, so that "
                f"update={update!r} has nothing left to round; use update='nearest', or "
                "arithmetic='float32'"
            )
        self._generator = generator
        self._wanted: dict[Any, torch.Tensor] | None = None
        self._inner = optimizer
        super().__init__(optimizer.param_groups, dict(optimizer.defaults))
        self.state = _taken_over(optimizer.state)
        self._twin = _twin_of(optimizer)
        for p in self._all():
            self._check(p)
        with torch.no_grad():
            for p in self._all():
                p.copy_(round_to(p, self._params))
                self._store(p, dict(self.state.get(p, {})))

    @property
    def inner(self) -> torch.optim.Optimizer:
        """The optimizer that was given."""
        return self._inner

    def policy(self, base: Policy) -> Policy:
        """Return a training policy with this optimizer's formats.

        Parameters
        ----------
        base : lowprec.train.Policy
            Whose other fields are taken.
        """
        return dataclasses.replace(
            base, params=self._params, state=self._state, update=self._update, name=""
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as torch does; they are rounded."""
        super().add_param_group(param_group)
        if hasattr(self, "_twin"):
            with torch.no_grad():
                for p in self.param_groups[-1]["params"]:
                    self._check(p)
                    p.copy_(round_to(p, self._params))

    def _all(self) -> list[torch.Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _check(self, p: torch.Tensor) -> None:
        if not holds(p.dtype, self._params) or p.dtype == torch.float64:
            raise ValueError(
                f"a parameter of shape {tuple(p.shape)} has dtype {p.dtype}, which does not hold "
                f"{self._params}, or is wider than float32; use params={_own_format(p)!r}, or "
                "convert the model with model.float()"
            )

    # The step ------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step once, and round what is stored.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model again and returns the loss.

        Returns
        -------
        The loss, where there is a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._inner._opt_called = True  # its schedulers look at that
        is_wide = self._arithmetic == "float32"
        copies = self._copied(is_wide)
        type(self._twin).step(self._twin)
        for p, copied in copies.items():
            state = dict(self._twin.state.get(copied, {}))
            if p.grad is not None:
                if self._wanted is not None:
                    self._wanted[p] = copied.detach().clone()
                self._put(p, copied, state)
                self._store(p, state)
            copied.grad = None
        self._twin.state.clear()
        return loss

    def _copied(self, is_wide: bool) -> dict[torch.Tensor, torch.Tensor]:
        """Hand copies of parameters, gradients and state to the optimizer that steps."""
        groups, copies = [], {}
        self._twin.state = defaultdict(dict)
        for group in self.param_groups:
            wide = []
            for p in group["params"]:
                copied = p.detach().to(torch.float32) if is_wide else p.detach()
                if copied.data_ptr() == p.data_ptr() and is_wide:
                    copied = copied.clone() if self._update == "kahan" else copied
                if p.grad is not None:
                    copied.grad = p.grad.to(torch.float32) if is_wide else p.grad
                if p in self.state:
                    self._twin.state[copied] = {
                        key: _widened(key, value) if is_wide else value
                        for key, value in self.state[p].items()
                        if key != _COMPENSATION
                    }
                copies[p] = copied
                wide.append(copied)
            groups.append({**group, "params": wide})
        self._twin.param_groups = groups
        return copies

    def _put(self, p: torch.Tensor, wide: torch.Tensor, state: dict[str, Any]) -> None:
        """Round a parameter's float32 result into its format."""
        fmt = self._params
        if self._update == "kahan":
            kept = self.state[p].get(_COMPENSATION) if p in self.state else None
            old = p.to(torch.float32)
            term = wide - old
            if kept is not None:
                term = term - kept.to(torch.float32)
            term = round_to(term, fmt)
            total = round_to(old + term, fmt)
            rest = round_to(round_to(total - old, fmt) - term, fmt)
            state[_COMPENSATION] = rest.to(p.dtype)
            p.copy_(total)
            return
        if fmt == float32:
            p.copy_(wide)
            return
        options: dict[str, Any] = {}
        if self._update == "stochastic":
            options = {"rounding": "stochastic", "generator": self._generator}
        p.copy_(round_to(wide, fmt, **options))

    def _store(self, p: torch.Tensor, state: dict[str, Any]) -> None:
        """Round the state of a parameter and keep it."""
        if not state:
            return
        kept = self.state[p]
        for key, value in state.items():
            is_rounded = _is_state(key, value) and key != _COMPENSATION
            kept[key] = self._stored(value, p.dtype) if is_rounded else value

    def _stored(self, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        fmt = self._state
        rounded = value if fmt == float32 else round_to(value.to(torch.float32), fmt)
        return rounded.to(dtype if holds(dtype, fmt) else torch.float32)

    def intend(self) -> Callable[[], dict[Any, torch.Tensor]]:
        """Keep what the next step would make of the parameters in float32; return what reads it."""
        self._wanted = {}

        def read() -> dict[Any, torch.Tensor]:
            return self._wanted or {}

        return read

    # Keeping -------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned; its tensors keep their dtypes.

        Parameters
        ----------
        state_dict : dict
            Of an optimizer of this kind around one of the same kind.
        """
        super().load_state_dict(state_dict)
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        for number, p in zip(saved, self._all(), strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor):
                    device = value.device if key == "step" else p.device
                    self.state[p][key] = value.detach().clone().to(device)
        for group, own in zip(self.param_groups, self._inner.param_groups, strict=True):
            own.update({key: value for key, value in group.items() if key != "params"})

    def __getstate__(self) -> dict[str, Any]:
        kept = {
            key: value for key, value in self.__dict__.items() if key != "step"
        }  # a scheduler's
        return {**super().__getstate__(), **kept, "_wanted": None}

    def __repr__(self) -> str:
        how = f"params={self._params}, state={self._state}, update={self._update}"
        return f"Optimizer({self._inner!r}, {how})"


def _is_state(key: str, value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and key != "step"


def _widened(key: str, value: Any) -> Any:
    return value.to(torch.float32) if _is_state(key, value) else value


def _own_format(p: torch.Tensor) -> str:
    return str(p.dtype).removeprefix("torch.") if p.dtype != torch.float64 else "float32"


def _taken_over(state: Any) -> Any:
    taken: Any = defaultdict(dict)
    for p, values in state.items():
        taken[p] = dict(values)
    return taken


def _without_wrapper(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's attributes without the `step` that a scheduler of rates puts there."""
    return {key: value for key, value in vars(optimizer).items() if key != "step"}


def _twin_of(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer of the same kind, without hooks, whose parameters are set every step."""
    twin = copy.copy(optimizer)
    twin.__dict__ = _without_wrapper(optimizer)
    for name in [name for name in twin.__dict__ if name.endswith("_hooks")]:
        setattr(twin, name, OrderedDict())
    twin.state = defaultdict(dict)
    return twin
