"""`watch`: one line hands all that flows through a model's training to a recorder."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from lowprec.torch import observing
from lowprec.torch.emulating import policy_of
from lowprec.torch.stepping import FollowedSteps
from lowprec.torch.walking import mapped, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.train.recorder.recorder import Recorder

_OUTER = (torch.nn.MultiheadAttention,)  # whose inside is computed without calling its modules


def watch(
    module: torch.nn.Module,
    recorder: Recorder,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    scaler: Any = None,
    eval: bool = False,  # noqa: A002 - torch's word
) -> Watching:
    """Record a training: activations, weights, their gradients, moments and updates.

    No bit of the training changes. What was seen, and what was not, is part of the recorder's
    verdict, and of what the handle prints.

    Parameters
    ----------
    module : torch.nn.Module
        The model, or a part of it; compiled ones too.
    recorder : lowprec.train.Recorder
        Where to. One of policy float32, as by default, takes over the formats that the model
        computes in.
    optimizer : torch.optim.Optimizer or several, optional
        Whose steps count; by default any that owns a parameter of the module.
    scaler : torch.amp.GradScaler, optional
        Where given, a step is one call of its ``step``, and gradients are told without the scale.
    eval : bool
        Whether passes in evaluation mode are recorded too.

    Returns
    -------
    Watching
        A handle: ``remove()`` ends it, so does the end of a ``with`` statement; ``print`` tells
        what it has seen.

    Raises
    ------
    TypeError
        If `module` is not a module, or `recorder` no recorder.

    Examples
    --------
    >>> import torch
    >>> from lowprec import train
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
    >>> recorder = train.Recorder(every=1)
    >>> with watch(model, recorder):
    ...     model(torch.ones(2, 3)).sum().backward()
    ...     optimizer.step()
    >>> sorted(kind for kind, name in recorder.tracks if name == "weight")
    ['update', 'weight', 'weight_gradient']
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; pass a torch.nn.Module")
    if not hasattr(recorder, "tracks"):
        raise TypeError(f"recorder is a {type(recorder).__name__}; pass a lowprec.train.Recorder()")
    return Watching(module, recorder, optimizer, scaler, eval)


class Watching:
    """What `watch` returns: hooks on modules, optimizers and a scaler, until `remove`."""

    def __init__(
        self,
        module: torch.nn.Module,
        recorder: Recorder,
        optimizer: Any,
        scaler: Any,
        evaluates: bool,
    ) -> None:
        self.recorder, self._evaluates = recorder, evaluates
        self._running, self._records, self._handles = list[int](), False, list[Any]()
        names = {_plain_name(name): parameter for name, parameter in module.named_parameters()}
        self.steps = FollowedSteps(
            recorder, {p: name for name, p in names.items()}, optimizer, scaler
        )
        self.seen: set[str] = set()
        self.place = observing.register(self)
        self._note_compiled(module)
        self.leaves = _leaves(module)
        me = weakref.ref(self)
        for m in module.modules():
            self._handles.append(m.register_forward_pre_hook(_Entering(me)))
        for name, m in self.leaves:
            label = name or type(m).__name__
            self._handles.append(m.register_forward_hook(_Leaf(me, self.place, label)))
        for m in module.modules():
            self._handles.append(m.register_forward_hook(_Leaving(me), always_call=True))
        self.steps.coverage = self._coverage
        self.steps.tell()

    # Passes --------------------------------------------------------------------------------------

    def enter(self, module: torch.nn.Module) -> None:
        """Note that a module begins; the outermost decides whether the pass is recorded."""
        self._running.append(id(module))
        if len(self._running) > 1:
            return
        self._records = False
        if torch._C._current_graph_task_id() != -1 or not self.steps.is_due:
            return
        is_training = torch.is_grad_enabled() and module.training
        if (is_training or self._evaluates) and self.steps.begins_pass():
            self.steps.learn_formats(policy_of(module))
            self._records = True

    def leave(self, module: torch.nn.Module) -> None:
        """Note that a module has ended, by an error too; one before it began counts as nothing."""
        if self._running[-1:] != [id(module)]:
            return
        self._running.pop()
        if not self._running and self._records:
            self._records = False
            self.steps.tell()

    def output(self, name: str, read: Any, output: Any) -> None:
        """Record what a leaf module made of what it read, and its gradient when that arrives."""
        is_replay = torch._C._current_graph_task_id() != -1
        if not (self._records or (is_replay and self.steps.is_due and self.steps.passes)):
            return
        for found, tensor in tensors_in(output, name):
            if not is_replay:
                self.seen.add(name)
                self.steps.observe("activation", found, tensor, read=read)
            if tensor.requires_grad:
                tensor.register_hook(_once(weakref.ref(self), found, self.steps.step))

    def compiled(self, x: torch.Tensor, name: str, is_gradient: bool) -> None:
        """Record what compiled code shows: a tensor of a training pass, or its gradient."""
        if not self.steps.is_due:
            return
        if is_gradient:
            self.steps.observe_gradient(name, x, self.steps.step)
            return
        label = max((n for n, _ in self.leaves if name.startswith(n)), key=len, default=name)
        self.seen.add(label)
        self.steps.observe("activation", name, x)

    # Coverage ------------------------------------------------------------------------------------

    def _note_compiled(self, module: torch.nn.Module) -> None:
        """Have code that was compiled before be compiled again, with what observes it."""
        if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in module.modules()):
            torch.compiler.reset()
            self.steps.note(
                "compiled code was discarded by torch.compiler.reset(), to be compiled again with "
                "what observes it"
            )
        if not observing.IS_ORDERED:
            self.steps.note("activations of compiled code are not seen by this version of torch")

    def _coverage(self) -> dict[str, Any]:
        missing = [name or type(m).__name__ for name, m in self.leaves]
        missing = [name for name in missing if name not in self.seen]
        return {"seen": len(self.leaves) - len(missing), "of": len(self.leaves), "unseen": missing}

    def remove(self) -> None:
        """End the recording: hooks and the scaler's method are as they were before."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.steps.remove()
        observing.unregister(self.place)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        found = self._coverage()
        lines = [
            (
                f"watching {found['seen']} of {found['of']} modules, {len(self.steps.names)} "
                f"parameters: {self.steps.step} steps seen, one in {self.recorder.every} recorded"
            ),
            *self.steps.sentences(),
        ]
        if self.steps.copies:
            lines.append(f"tensors on {self.steps.copies} are copied to the CPU when recorded")
        return "\n".join(lines)


def _leaves(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Return the modules that compute, each once: the innermost, but for parts of a parameter."""
    found: dict[torch.nn.Module, str] = {}

    def walk(m: torch.nn.Module, name: str) -> None:
        parts = {key: part for key, part in m.named_children() if key != "parametrizations"}
        if isinstance(m, _OUTER) or not parts:
            found.setdefault(m, _plain_name(name))
            return
        for key, part in parts.items():
            walk(part, f"{name}.{key}" if name else key)

    walk(module, "")
    return [(name, m) for m, name in found.items()]


def _plain_name(name: str) -> str:
    """Return a name without what torch.compile puts into it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


# Hooks ---------------------------------------------------------------------------------------


class _Hook:
    """A hook on a module, which neither copies of the module nor what is pickled keep."""

    def __init__(self, me: Callable[[], Watching | None], place: int = 0, name: str = "") -> None:
        self.me, self.place, self.name = me, place, name

    def __reduce__(self) -> Any:
        return NoHook, ()


class NoHook:
    """Stands where a watched module had a hook, in its copies."""

    def __call__(self, *arguments: Any) -> None:
        """Do nothing."""


class _Entering(_Hook):
    def __call__(self, module: torch.nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        watching = self.me()
        if watching is not None:
            watching.enter(module)


class _Leaving(_Hook):
    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        watching = self.me()
        if watching is not None:
            watching.leave(module)


class _Leaf(_Hook):
    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if torch.compiler.is_compiling():
            if observing.IS_ORDERED and module.training and torch.is_grad_enabled():
                return mapped(output, observing.Noticed(self.place), self.name)
            return None
        watching = self.me()
        if watching is not None and watching.steps.is_due:
            watching.steps.quietly(watching.output, self.name, inputs, output)
        return None


def _once(me: Callable[[], Watching | None], name: str, step: int) -> Any:
    """Return a hook that records a gradient, the first time that it arrives."""
    pending = [True]

    def hook(gradient: torch.Tensor) -> None:
        watching = me()
        if pending and watching is not None:
            pending.clear()
            watching.steps.quietly(watching.steps.observe_gradient, name, gradient, step)

    return hook
