"""The update that an optimizer intends: its class, stepped once on float32 copies."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from typing import Any

import torch

_NARROW = (torch.float16, torch.bfloat16)


def as_float32(x: Any) -> Any:
    """Return a copy of a tensor, float32 where it is a narrower float; other values as they are."""
    if not isinstance(x, torch.Tensor):
        return copy.deepcopy(x)
    return x.detach().to(torch.float32) if x.dtype in _NARROW else x.detach().clone()


class Twin:
    """An optimizer's step on float32 copies of parameters, gradients and state.

    optimizer: Before its step.
    scale: What its gradients are still multiplied by.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scale: float) -> None:
        self.copies: dict[torch.Tensor, torch.Tensor] = {}
        groups = []
        for group in optimizer.param_groups:
            made = dict(group)
            made["params"] = [self._copy(p, scale) for p in group["params"]]
            groups.append(made)
        self.optimizer = object.__new__(type(optimizer))
        kept = {k: v for k, v in optimizer.__dict__.items() if k not in ("grad_scale", "found_inf")}
        self.optimizer.__dict__.update(kept)
        self.optimizer.param_groups = groups
        state: Any = defaultdict(dict)
        for p, copied in self.copies.items():
            if p in optimizer.state:
                state[copied] = {k: as_float32(v) for k, v in optimizer.state[p].items()}
        self.optimizer.state = state
        for hooks in [name for name in kept if name.endswith("_hooks")]:
            setattr(self.optimizer, hooks, OrderedDict())
        # what optimizers register of themselves refers to the one that was copied
        self.optimizer._warned_capturable_if_run_uncaptured = True

    def _copy(self, p: torch.Tensor, scale: float) -> torch.Tensor:
        copied = as_float32(p)
        if p.grad is not None:
            gradient = as_float32(p.grad)
            copied.grad = gradient if scale == 1 else gradient / scale
        self.copies[p] = copied
        return copied

    def step(self) -> None:
        """Step; the originals are not touched."""
        function: Any = type(self.optimizer).step
        with torch.no_grad():
            function(self.optimizer)

    def parameter(self, p: torch.Tensor) -> torch.Tensor:
        """Return the float32 copy of a parameter."""
        return self.copies[p]

    def state(self, p: torch.Tensor) -> dict[str, Any]:
        """Return the float32 state of a parameter."""
        return dict(self.optimizer.state.get(self.copies[p], {}))
