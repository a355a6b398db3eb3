"""What compiled code calls to show a tensor: an operator with an ordered effect.

torch.compile takes no hook that keeps numbers elsewhere. The operator is kept in its place by the
compiler because an effect is registered for it; that registration is private to torch, and where a
version has it not, activations of compiled code are said to be unseen.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch

from lowprec.torch.operators import define, implement, register_fake

_places = itertools.count()
_watching: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def register(watching: Any) -> int:
    """Give something that watches a number, by which compiled code finds it."""
    place = next(_places)
    _watching[place] = watching
    return place


def unregister(place: int) -> None:
    """Forget what was registered."""
    _watching.pop(place, None)


def _observe(x: torch.Tensor, place: int, name: str, is_gradient: bool) -> None:
    watching = _watching.get(place)
    if watching is not None:
        watching.steps.quietly(watching.compiled, x, name, is_gradient)


define("observe(Tensor x, int place, str name, bool is_gradient) -> ()")
implement("observe", _observe, "CompositeExplicitAutograd")
register_fake("observe", lambda x, place, name, is_gradient: None)
_operator = torch.ops.lowprec.observe.default


def _register_effect() -> bool:
    try:
        from torch._higher_order_ops.effects import _EffectType, _register_effectful_op

        _register_effectful_op(_operator, _EffectType.ORDERED)
    except (ImportError, AttributeError, TypeError):
        return False
    return True


IS_ORDERED = _register_effect()
"""Whether compiled code keeps the operator in its place."""


class _Notice(torch.autograd.Function):
    """The identity, which shows a tensor and its gradient."""

    @staticmethod
    def forward(x: torch.Tensor, place: int, name: str) -> torch.Tensor:
        _operator(x, place, name, False)
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.place, ctx.name = inputs

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        _operator(g, ctx.place, ctx.name, True)
        return g.view_as(g), None, None


class Noticed:
    """Shows the tensors of a module to what watches."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, x: torch.Tensor, name: str) -> Any:
        """Return the tensor, shown."""
        return _Notice.apply(x, self.place, name)
