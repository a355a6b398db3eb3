"""Python that torch runs in a backward pass: checkpointed functions, and the caller's own.

Modules say themselves that they run again. A function that is checkpointed outside of a module, and
the backward of an `autograd.Function` of the caller's, do not: here they are made to say it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import BackwardCFunction

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_top_hooks: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)
next_node: Callable[[], int] = torch.autograd._get_sequence_nr
"""Return the number that the next node of the graph gets."""


def surround(x: Any, around: Callable[[int], Any]) -> None:
    """Have the backward of the caller's function that made a tensor run in a context.

    x: A tensor, whose node is changed once; anything else has none.
    around: Returns the context for the number of the node, or None.
    """
    node: Any = x.grad_fn if isinstance(x, torch.Tensor) else None
    if not isinstance(node, BackwardCFunction) or isinstance(node, _Surrounded):
        return
    made_by: Any = type(node)._forward_cls
    context = None
    if made_by.__module__.partition(".")[0] != "lowprec":
        context = around(node._sequence_nr())
    if context is not None:
        node.surrounding = context
        kind: Any = type(node)
        node.__class__ = _surrounded(kind)


class _Surrounded:
    """A node whose Python runs in a context."""

    surrounding: AbstractContextManager[None]

    def apply(self, *gradients: Any) -> Any:
        """Run the backward."""
        with self.surrounding:
            return super().apply(*gradients)  # type: ignore[misc]


@functools.lru_cache(256)
def _surrounded(node: Any) -> type:
    return type(node.__name__, (_Surrounded, node), {})


def top_hook() -> Any:
    """Return what packs the tensors that autograd saves just now, or None."""
    hooks = _top_hooks(True)
    return hooks[0] if hooks else None


def surround_recomputation(hook: Any, context: AbstractContextManager[None]) -> None:
    """Have what a checkpoint computes again run in a context; other hooks are left alone."""
    if getattr(hook, "__module__", "") != "torch.utils.checkpoint":
        return
    for cell in hook.__closure__ or ():
        frame = cell.cell_contents
        run = getattr(frame, "recompute_fn", None)
        if run is not None and not isinstance(run, _Recomputation):
            frame.recompute_fn = _Recomputation(run, context)


class _Recomputation:
    """Computes again, in a context."""

    def __init__(self, run: Callable[..., None], context: AbstractContextManager[None]) -> None:
        self.run, self.context = run, context

    def __call__(self, *inputs: Any) -> None:
        with self.context:
            self.run(*inputs)
