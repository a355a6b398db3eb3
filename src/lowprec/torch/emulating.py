"""`emulate`: the products inside a module are computed as a policy says, module by module."""

from __future__ import annotations

import copy
import fnmatch
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from lowprec.formats import float32
from lowprec.torch import replaying
from lowprec.torch.products import how_of
from lowprec.torch.replacing import replacement
from lowprec.torch.walking import tensors_in
from lowprec.train.policy import Policy, get_policy


class _Part:
    """A policy, and what its products do."""

    def __init__(self, policy: Policy | str) -> None:
        self.policy = get_policy(policy)
        self.how = None if _is_torchs_own(self.policy) else how_of(self.policy)

    def describe(self) -> str:
        """Return the formats in words."""
        if self.how is None:
            return "float32, torch's own"
        if self.policy.has_blocks or self.policy.weights is not None:
            policy = self.policy
            return (
                f"operands in {policy.compute} and {policy.weights or policy.compute}, gradients "
                f"in {policy.gradients}, sums in {policy.formats['accumulate']}"
            )
        formats = self.policy.formats
        order = self.policy.accumulator.order
        how = "" if order == "sequential" else f" ({order})"
        return (
            f"compute {formats['compute']}, gradients {formats['gradients']}, "
            f"sums in {formats['accumulate']}{how}"
        )


def _is_torchs_own(policy: Policy) -> bool:
    parts = ("compute", "gradients", "accumulate")
    is_wide = not policy.has_blocks and all(policy.formats[p] == float32 for p in parts)
    return is_wide and policy.accumulator.order == "blas"


# The mode ------------------------------------------------------------------------------------


class _Frame:
    """A module that runs; entered again, what torch runs outside of it counts as inside."""

    def __init__(self, module: torch.nn.Module, part: _Part, left: Counter[str]) -> None:
        self.module, self.part, self.left = id(module), part, left
        self.first_node, self.hook = replaying.next_node(), replaying.top_hook()

    def __enter__(self) -> None:
        _state.frames.append(self)
        _switch()

    def __exit__(self, *error: object) -> None:
        while _state.frames.pop() is not self:
            continue
        _switch()


class _State(threading.local):
    """The modules that are running, the innermost last."""

    def __init__(self) -> None:
        self.frames: list[_Frame] = []


_state = _State()


def _frame_of(node: int) -> _Frame | None:
    """Return the module in which a node of the graph was made."""
    return next((f for f in reversed(_state.frames) if f.first_node <= node), None)


def _follow_checkpoint() -> None:
    """Have what a checkpoint that the innermost module began computes again count as inside."""
    hook = replaying.top_hook()
    if _state.frames and hook is not _state.frames[-1].hook:
        replaying.surround_recomputation(hook, _state.frames[-1])


class _Mode(TorchFunctionMode):
    """Sends torch's products to lowprec's, as the innermost module's policy says."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _state.frames:
            return func(*args, **kwargs)
        frame = _state.frames[-1]
        for x in args:
            replaying.surround(x, _frame_of)
        handler, name = replacement(func)
        if not name or frame.part.how is None or _has_integers(args):
            return func(*args, **kwargs)
        _follow_checkpoint()
        if handler is not None and _is_real(args):
            result = _handled(handler, frame.part.how, args, kwargs)
            if result is not None:
                return result
        frame.left[name] += 1
        return func(*args, **kwargs)


def _is_real(args: Any) -> bool:
    tensors = (x for x in args if isinstance(x, torch.Tensor))
    return not any(x.is_complex() or x.layout is not torch.strided for x in tensors)


def _has_integers(args: Any) -> bool:
    """Whether a function takes integers alone, which are not rounded."""
    dtypes = [x.dtype for x in args if isinstance(x, torch.Tensor)]
    return bool(dtypes) and not any(d.is_floating_point or d.is_complex for d in dtypes)


def _handled(handler: Any, how: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call what replaces a function; None for arguments that are torch's alone."""
    if any(isinstance(x, torch.dtype) for x in (*args, *kwargs.values())):
        return None
    out = kwargs.get("out")
    if out is None:
        return handler(how, *args, **kwargs)
    if torch.is_grad_enabled() and any(
        isinstance(x, torch.Tensor) and x.requires_grad for x in (*args, out)
    ):
        return None  # torch says that out= has no gradient
    result = handler(how, *args, **{k: v for k, v in kwargs.items() if k != "out"})
    if result is None:
        return None
    return out.resize_(result.shape).copy_(result)


def _switch() -> None:
    """Enter the mode where the innermost module wants it, and leave it where that does not.

    torch keeps the modes: a backward pass, and what a mode of torch's calls, runs without some. One
    that the caller entered meanwhile stays on top of it, and then it hands everything on.
    """
    wanted = bool(_state.frames) and _state.frames[-1].part.how is not None
    entered = _get_current_function_mode_stack()
    if wanted and not any(isinstance(mode, _Mode) for mode in entered):
        _Mode().__enter__()
    elif not wanted and entered and isinstance(entered[-1], _Mode):
        entered[-1].__exit__(None, None, None)


_EAGER = (
    "runs in eager mode; call handle.remove() before torch.compile, torch.export, torch.jit or fx"
)


class _Hook:
    """A hook on a module that is copied with it, and not pickled."""

    def __init__(self, part: _Part, left: Counter[str]) -> None:
        self.part, self.left = part, left

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name}: an emulated module {_EAGER}")  # torch.jit.script asks

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return type(self)(self.part, copy.deepcopy(self.left, memo))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an emulated module is not pickled, because the process that loads it would compute "
            "something else; call handle.remove() first, or save module.state_dict()"
        )


class _Enter(_Hook):
    def __call__(self, module: torch.nn.Module, inputs: Any) -> None:
        is_traced = torch.jit.is_tracing() or any(isinstance(x, torch.fx.Proxy) for x in inputs)
        if is_traced or torch.compiler.is_compiling():
            raise NotImplementedError(f"an emulated module {_EAGER}")
        _follow_checkpoint()
        _Frame(module, self.part, self.left).__enter__()


class _Leave(_Hook):
    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if _state.frames and _state.frames[-1].module == id(module):
            for _, x in tensors_in(output, ""):
                replaying.surround(x, _frame_of)
            _state.frames.pop()
            _switch()


def policy_of(module: torch.nn.Module) -> Policy | None:
    """Return the policy that a module is emulated in, or the first module inside that is."""
    for inner in module.modules():
        for hook in inner._forward_pre_hooks.values():
            if isinstance(hook, _Enter) and hook.part.how is not None:
                return hook.part.policy
    return None


# The door ------------------------------------------------------------------------------------


def emulate(
    module: torch.nn.Module,
    policy: Policy | str,
    *,
    rules: Mapping[str | type, Policy | str] | None = None,
) -> Emulation:
    """Compute the products inside a module as a policy says, forward and backward.

    A linear layer rounds as `lowprec.train.Dense` does: x, W and b to ``compute``, the arriving
    gradient to ``gradients``; y = ○compute(Σ x·W, then + b in float32), dx = ○gradients(Σ g·W),
    dW = ○gradients(Σ gᵀ·x), db = ○gradients(Σ g). So do convolutions, `matmul`, `einsum`,
    attention and recurrent layers. Rows of embeddings are rounded; norms and softmax compute in
    float32, and norms' results are rounded. Results are float32 tensors that hold those values;
    parameters stay the caller's. In eager mode, on the CPU. What torch computes again for a
    checkpoint is emulated again, and so are the products in the backward of an `autograd.Function`
    of the caller's.

    Parameters
    ----------
    module : torch.nn.Module
        The model, or a part of it.
    policy : lowprec.train.Policy or str
        ``compute``, ``gradients``, ``accumulate`` and ``tensor_scales`` count here; ``params``,
        ``state`` and ``update`` are the optimizer's (`Optimizer`), ``loss_scale`` a GradScaler's.
        The name of a block format, such as ``"mxfp8_e4m3"``, quantizes the operands of every
        product along the axis that is summed.
    rules : dict, optional
        Other policies for some modules: a string is a pattern of the module's name
        (``"head"``, ``"blocks.0.*"``), a class matches its instances. The first rule that matches
        counts, also for the modules inside. ``"float32"`` with ``order="blas"`` leaves a module
        to torch.

    Returns
    -------
    Emulation
        A handle: ``remove()`` ends it, so does the end of a ``with`` statement; ``print`` lists
        every module with its formats, and what is left in float32.

    Raises
    ------
    TypeError
        If `module` is not a module.
    ValueError
        If there is no such policy, a rule matches no module, or the module is emulated already.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 1)
    >>> with emulate(model, "mixed_bfloat16"):
    ...     y = model(torch.full((1, 3), 0.1))
    >>> torch.equal(y, y.bfloat16().float())
    True
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; pass a torch.nn.Module")
    if not isinstance(rules or {}, Mapping):
        raise TypeError(
            f"rules are a {type(rules).__name__}; pass a dict, such as {{'head': 'float32'}}"
        )
    return Emulation(module, policy, rules or {})


class Emulation:
    """What `emulate` returns: hooks on modules, until `remove`."""

    def __init__(
        self, module: torch.nn.Module, policy: Policy | str, rules: Mapping[Any, Any]
    ) -> None:
        for name, inner in module.named_modules():
            if any(isinstance(h, _Hook) for h in inner._forward_pre_hooks.values()):
                raise ValueError(
                    f"{name or 'the module'} is emulated already; call remove() of its handle "
                    "first, or, if it is a copy of an emulated module, copy that before emulate"
                )
        base, parts = _Part(policy), {key: _Part(each) for key, each in rules.items()}
        self._base, self._left, self._handles = base, Counter[str](), list[Any]()
        self._parts: list[tuple[str, torch.nn.Module, _Part]] = []
        matched: set[Any] = set()
        ruled: dict[str, _Part] = {}
        for name, inner in module.named_modules():
            key = next((k for k in parts if _matches(k, name, inner)), None)
            outer = ruled.get(name.rpartition(".")[0]) if name else None
            part = parts[key] if key is not None else outer or base
            if key is not None:
                matched.add(key)
            if key is not None or outer is not None:
                ruled[name] = part
            self._parts.append((name, inner, part))
        missing = [key for key in parts if key not in matched]
        if missing:
            names = ", ".join(name for name, *_ in self._parts if name)
            raise ValueError(f"no module matches the rule {missing[0]!r}; there are {names}")
        if any(part.how is not None for *_, part in self._parts):
            for _, inner, part in self._parts:
                self._hook(inner, part)

    def _hook(self, inner: torch.nn.Module, part: _Part) -> None:
        self._handles += [
            inner.register_forward_pre_hook(_Enter(part, self._left), prepend=True),
            inner.register_forward_hook(_Leave(part, self._left), always_call=True),
        ]

    def remove(self) -> None:
        """End the emulation: the module has the hooks that it had before."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Emulation:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        base = self._base.policy.name or self._base.describe()
        lines = [f"emulating {base}"]
        own = [each for each in self._parts if each[0]] or self._parts
        width = max(len(name) for name, *_ in own)
        for name, inner, part in own:
            label = name or "(itself)"
            lines.append(f"  {label:{width}}  {type(inner).__name__}: {_what(inner, part)}")
        if self._left:
            counts = ", ".join(f"{name} {n} times" for name, n in sorted(self._left.items()))
            lines.append(f"left in float32: {counts}")
        lines += _not_emulated(self._base.policy)
        return "\n".join(lines)


_nn = torch.nn
_LEFT_MODULES = (_nn.Bilinear, _nn.EmbeddingBag, _nn.CosineSimilarity, _nn.PairwiseDistance)
_NORMS = (_nn.LayerNorm, _nn.RMSNorm, _nn.GroupNorm, _nn.modules.batchnorm._NormBase)


def _what(inner: torch.nn.Module, part: _Part) -> str:
    """Return in words what is computed in a module itself."""
    if part.how is not None and isinstance(inner, _LEFT_MODULES):
        return "float32 (left to torch)"
    has_parts = next(inner.parameters(recurse=False), None) is not None or inner._modules
    is_torchs = type(inner).__module__.startswith("torch.nn.modules.")
    if is_torchs and not has_parts and not isinstance(inner, _NORMS):
        return "float32 (nothing is multiplied)"
    return part.describe()


def _not_emulated(policy: Policy) -> list[str]:
    formats, lines = policy.formats, []
    if any(formats[part] != float32 for part in ("params", "state")) or policy.update != "nearest":
        lines.append(
            f"not emulated here: params {formats['params']}, state {formats['state']}, update "
            f"{policy.update}; use lowprec.torch.Optimizer"
        )
    if policy.hadamard:
        lines.append(f"not emulated here: hadamard {policy.hadamard}; use lowprec.train")
    if policy.loss_scale is not None:
        lines.append(
            f"not emulated here: loss_scale {policy.loss_scale.value:g}"  # type: ignore[union-attr]
            "; use torch.amp.GradScaler"
        )
    return lines


def _matches(key: Any, name: str, inner: torch.nn.Module) -> bool:
    if isinstance(key, str):
        return fnmatch.fnmatchcase(name, key)
    return isinstance(inner, key)
