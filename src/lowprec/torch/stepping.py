"""Steps of a training in torch: when one ends, and what it did to weights and moments."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from lowprec.formats import float32
from lowprec.torch.cpu import as_array
from lowprec.torch.intended_updates import Twin
from lowprec.torch.walking import tensors_in
from lowprec.train.numerics import numerics_of
from lowprec.train.policy import Policy, get_policy
from lowprec.train.recorder.kinds import GRADIENTS, Event, as_float32
from lowprec.train.recorder.observing import rounded
from lowprec.train.recorder.tracks import Seen, tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.train.recorder.recorder import Recorder

Array = np.ndarray[Any, Any]
_Noticed = tuple[Seen, Any]  # what to count, and the tensor where one that is not finite is a fault

_MOST_EVENTS = 50
_STATES = {  # torch's words for an optimizer's state, and lowprec's
    "exp_avg": "first_moment",
    "exp_avg_sq": "second_moment",
    "square_avg": "second_moment",
    "exp_inf": "infinity_norm",
    "momentum_buffer": "momentum",
    "sum": "sum_of_squares",
}
_NUMBERS = {  # the same of its numbers
    "lr": "learning_rate",
    "eps": "epsilon",
    "alpha": "rho",
    "rho": "rho",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
}


class FollowedSteps:
    """Follows the optimizers of a model.

    names: The model's parameters.
    optimizer (Optimizer, several, or None): Whose steps count.
    scaler (GradScaler or None): What scales the loss.
    step (int): The step that comes next.
    passes (int): Recorded passes since the last step.
    coverage (callable): Returns what of the model was seen.
    """

    def __init__(
        self, recorder: Recorder, names: dict[Any, str], optimizer: Any, scaler: Any
    ) -> None:
        self.recorder, self.names = recorder, names
        self.step, self.passes = recorder.steps, 0
        self.coverage: Callable[[], dict[str, Any]] = dict
        self.copies = ""
        self._first = self.step
        self._scaler, self._handles = scaler, list[Any]()
        self._notes: list[str] = []
        self._in_step = self._in_twin = False
        self._stepping: Any = None
        self._closed_passes = 0
        self._bad: tuple[str, str, str] | None = None  # kind, name, what made it so
        self._before: _Snapshot | None = None
        self._learn_policy(optimizer)
        self._hook(optimizer)

    # When ----------------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether the step that comes next is recorded."""
        return self.step % self.recorder.every == 0

    def begins_pass(self) -> bool:
        """Count a pass; of those that an optimizer asks for, the first alone is recorded."""
        if self._in_step:
            self._closed_passes += 1
            if self._closed_passes > 1:
                return False
        self.passes += 1
        return True

    def _hook(self, optimizer: Any) -> None:
        if self._scaler is not None:
            self._wrap_scaler()
            return
        if optimizer is None:
            self._handles = [
                register_optimizer_step_pre_hook(self._pre_step),
                register_optimizer_step_post_hook(self._post_step),
            ]
            return
        for one in optimizer if isinstance(optimizer, list | tuple) else [optimizer]:
            self._handles += [
                one.register_step_pre_hook(self._pre_step),
                one.register_step_post_hook(self._post_step),
            ]

    def _wrap_scaler(self) -> None:
        scaler, inner = self._scaler, self._scaler.step
        self._restore = vars(scaler).get("step")

        def step(optimizer: Any, *arguments: Any, **options: Any) -> Any:
            if self._owned(optimizer):
                self.quietly(self._begin, optimizer, arguments or options, self._carried(optimizer))
            try:
                result = inner(optimizer, *arguments, **options)
            finally:
                self._in_step = False
            if self._owned(optimizer):
                self.quietly(self._end, optimizer)
            return result

        scaler.step = step

    def _carried(self, optimizer: Any) -> float:
        """Return the scale that an optimizer's gradients still carry."""
        from torch.amp.grad_scaler import OptState

        stage = self._scaler._per_optimizer_states[id(optimizer)]["stage"]
        return 1.0 if stage is OptState.UNSCALED else self.scale

    @property
    def scale(self) -> float:
        """The loss scale now."""
        if self._scaler is None or not self._scaler.is_enabled():
            return 1.0
        return float(self._scaler.get_scale())

    def _owned(self, optimizer: Any) -> bool:
        return any(p in self.names for group in optimizer.param_groups for p in group["params"])

    def _pre_step(self, optimizer: Any, arguments: Any, options: Any) -> None:
        if not self._in_twin and not self._in_step and self._owned(optimizer):
            closure = arguments[1:] or options.get("closure")
            self._in_step, self._stepping = True, optimizer
            self.quietly(self._begin, optimizer, closure, 1.0)

    def _post_step(self, optimizer: Any, arguments: Any, options: Any) -> None:
        if not self._in_twin and self._in_step and optimizer is self._stepping:
            self._in_step, self._stepping = False, None
            self.quietly(self._end, optimizer)

    # A step --------------------------------------------------------------------------------------

    def _begin(self, optimizer: Any, closure: Any, carried: float) -> None:
        self._in_step, self._closed_passes = True, 0
        scale = self.scale
        if not self.recorder.scales or self.recorder.scales[-1][1] != scale:
            self.recorder.scales.append((self.step, scale))
        self._before = None
        is_finite = bool(closure) or self._are_finite(optimizer)
        skips = self._scaler is not None and not is_finite
        snapshot = _Snapshot(carried, skips, bool(closure), is_finite)
        self._before = snapshot
        if not self.is_due:
            return
        owned, noticed = self._all(optimizer), list[_Noticed]()
        for p in owned:
            noticed += self._seen("weight", self.names[p], p)
            if p.grad is not None and not closure:
                noticed += self._gradient(p, carried)
        self._count(self.step, noticed)
        if not skips:
            snapshot.old = {p: p.detach().clone() for p in owned if p.grad is not None or closure}
            if not closure and not self._is_float32(optimizer):
                snapshot.states = {
                    p: {k: v.detach().clone() for k, v in optimizer.state[p].items() if _narrow(v)}
                    for p in owned
                    if p in optimizer.state
                }
                self._twin(snapshot, optimizer, carried)

    def _twin(self, snapshot: _Snapshot, optimizer: Any, carried: float) -> None:
        intended = getattr(optimizer, "intend", None)
        self._in_twin = True
        try:
            if intended is not None:  # lowprec's own keeps what it intends
                snapshot.intends = intended()
                return
            twin = Twin(optimizer, carried)
            twin.step()
            snapshot.twin = twin
        except Exception as error:
            self.note(
                f"how many updates of {type(optimizer).__name__} are lost is unknown: it does not "
                f"step on float32 copies ({type(error).__name__}: {error})"
            )
            snapshot.is_unknown = True
        finally:
            self._in_twin = False

    def _is_float32(self, optimizer: Any) -> bool:
        """Whether the optimizer's step is what a float32 twin would do."""
        if hasattr(optimizer, "intend"):
            return False
        wide = (torch.float32, torch.float64)
        return all(
            p.dtype in wide
            and (p.grad is None or p.grad.dtype in wide)
            and all(
                not isinstance(v, torch.Tensor) or not v.is_floating_point() or v.dtype in wide
                for v in optimizer.state.get(p, {}).values()
            )
            for group in optimizer.param_groups
            for p in group["params"]
        )

    def _end(self, optimizer: Any) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        self._note_event(optimizer, before)
        if before.skips:
            self.recorder.skips += 1
            self.recorder.skipped_steps.append(self.step)
        elif self.is_due:
            if before.has_closure:
                self.note(
                    f"how many updates of {type(optimizer).__name__} are lost is unknown: its step "
                    "evaluates a closure"
                )
            noticed = list[_Noticed]()
            for p in before.old:
                if before.has_closure and p.grad is not None:
                    noticed += self._gradient(p, 1.0)
                noticed += self._update(optimizer, p, before)
            self._count(self.step, noticed)
        self._learn_numbers(optimizer)
        self.recorder.recorded += self.is_due
        self.step += 1
        self.recorder.steps = self.step
        self.passes, self._bad = 0, None
        self.tell()

    def _note_event(self, optimizer: Any, before: _Snapshot) -> None:
        recorder = self.recorder
        if before.is_finite and not (self.is_due and before.old):
            return
        if recorder.is_broken or len(recorder.events) >= _MOST_EVENTS:
            return
        if not before.is_finite:
            self._find_bad(optimizer, "weight_gradient", lambda p: p.grad)
        elif not before.skips:
            self._find_bad(optimizer, "update", lambda p: p)
        if self._bad is not None and (not before.is_finite or self._bad[0] == "update"):
            kind, name, made = self._bad
            recorder.events.append(Event(self.step, before.skips, kind, name, math.inf))
            recorder.facts.setdefault("made", {})[str(self.step)] = [made]

    def _find_bad(self, optimizer: Any, kind: str, tensor_of: Callable[[Any], Any]) -> None:
        if self._bad is not None or (kind == "update" and _are_finite(self._all(optimizer))):
            return
        for group in optimizer.param_groups:
            for p in group["params"]:
                found = tensor_of(p)
                if p in self.names and found is not None and not _is_finite(found):
                    self._bad = (kind, self.names[p], self._made_by(kind, self.names[p], found))
                    return

    def _made_by(self, kind: str, name: str, tensor: torch.Tensor) -> str:
        """Return what `recorder.kinds.made_by` would say, as far as a tensor's numbers tell.

        An infinity in a format of less range than float32 is a number that was too large for it.
        """
        values = tensor.coalesce().values() if tensor.is_sparse else tensor
        if bool(torch.isnan(values).any()):
            return "NaN"
        most = min(torch.finfo(tensor.dtype).max, self.recorder.format_of(kind, name).max)
        return "rounding" if most < torch.finfo(torch.bfloat16).max else "infinity"

    def _all(self, optimizer: Any) -> list[torch.Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"] if p in self.names]

    def _are_finite(self, optimizer: Any) -> bool:
        """Whether gradients are finite; on other devices, asked at recorded steps alone."""
        if self._scaler is not None:
            state = self._scaler._per_optimizer_states.get(id(optimizer), {})
            found = state.get("found_inf_per_device", {})
            if any(float(v.item()) for v in found.values()):
                return False
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
            and p in self.names
            and (p.grad.device.type == "cpu" or self.is_due or self._scaler is not None)
        ]
        return _are_finite(gradients)

    # What is recorded ----------------------------------------------------------------------------

    def observe(
        self, kind: str, name: str, tensor: torch.Tensor, scale: float = 1.0, read: Any = ()
    ) -> None:
        """Record a tensor of this step, made of what a module read."""
        was_finite = self._bad is None
        self._count(self.step, self._seen(kind, name, tensor, scale))
        if was_finite and self._bad and not _are_finite([x for _, x in tensors_in(read, name)]):
            self._bad = (kind, name, "given")

    def observe_gradient(self, name: str, gradient: torch.Tensor, step: int) -> None:
        """Record the gradient of an activation."""
        self._count(step, self._seen("activation_gradient", name, gradient, self.scale))

    def _gradient(self, p: Any, carried: float) -> list[_Noticed]:
        g = p.grad.coalesce().values() if p.grad.is_sparse else p.grad
        return self._seen("weight_gradient", self.names[p], g, carried)

    def _seen(
        self, kind: str, name: str, tensor: torch.Tensor, scale: float = 1.0
    ) -> list[_Noticed]:
        """Return a tensor for `_count`; nothing of an empty one."""
        array = self.to_array(tensor)
        if not array.size:
            return []
        track = self.recorder.track(kind, name)
        if track.fmt is float32 and array.dtype == np.float32:
            return [(Seen(track, array, array, scale), tensor)]
        if self.recorder.policy.tensor_scales:
            array, numerics = as_float32(array), numerics_of(self.recorder.policy)
            rounding = numerics.gradient if kind in GRADIENTS else numerics.compute
            return [(Seen(track, array, rounding(array), scale), tensor)]
        return [(rounded(track, array, scale), tensor)]

    def _count(self, step: int, noticed: list[_Noticed]) -> None:
        """Add tensors to their tracks in one call; note the first that is not finite."""
        wrong = tally(step, [seen for seen, _ in noticed])
        if not wrong or self._bad is not None:
            return
        for (track, before, *_), tensor in noticed:
            if tensor is not None and not np.isfinite(before).all():
                self._bad = track.kind, track.name, self._made_by(track.kind, track.name, tensor)
                return

    def to_array(self, tensor: torch.Tensor) -> Array:
        """Return a tensor's numbers on the CPU."""
        tensor = tensor.detach()
        if tensor.dtype is torch.float32 and _lies_flat(tensor):
            return np.asarray(tensor.numpy())
        if hasattr(tensor, "to_local"):  # a distributed tensor: what of it lies here
            tensor = tensor.to_local()
        if tensor.device.type != "cpu":
            self.copies = str(tensor.device)
            tensor = tensor.cpu()
        return as_array(tensor)

    def _update(self, optimizer: Any, p: Any, before: _Snapshot) -> list[_Noticed]:
        name, track = self.names[p], self.recorder.track("update", self.names[p])
        old, new = self.to_array(before.old[p]), self.to_array(p)
        wanted = new
        if before.intends is not None:
            wanted = self.to_array(before.intends()[p]) if p in before.intends() else new
        elif before.twin is not None:
            wanted = self.to_array(before.twin.parameter(p))
        with np.errstate(all="ignore"):
            change = as_float32(wanted - old)
        if before.is_unknown or before.has_closure:
            seen = Seen(track, change, change)
        else:
            seen = Seen(track, change, change, old=as_float32(old), new=_shown(old, new))
        return [(seen, None), *self._moments(optimizer, p, name, before)]

    def _moments(self, optimizer: Any, p: Any, name: str, before: _Snapshot) -> list[_Noticed]:
        noticed, state = list[_Noticed](), optimizer.state.get(p, {})
        wide = before.twin.state(p) if before.twin is not None else {}
        arrays = {}
        for key, value in state.items():
            if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
                continue
            if value.shape != p.shape or not value.numel() or key == "compensation":
                continue
            label = f"{_STATES.get(key, key)}/{name}"
            wanted = wide.get(key)
            if wanted is None or not _narrow(value):
                noticed += self._seen("moment", label, value)
                arrays[_STATES.get(key, key)] = noticed[-1][0].before
            else:
                stored = arrays[_STATES.get(key, key)] = as_float32(self.to_array(value))
                wide_array, track = self.to_array(wanted), self.recorder.track("moment", label)
                noticed.append((Seen(track, wide_array, stored), None))
                before_it = before.states.get(p, {}).get(key)
                if before_it is not None:
                    was = as_float32(self.to_array(before_it))
                    seen = Seen(track, wide_array - was, old=was, new=stored, has_gaps=False)
                    noticed.append((seen, None))
        first, second = arrays.get("first_moment"), arrays.get("second_moment")
        if second is not None:
            moving = (first != 0) if first is not None else self._has_gradient(p)
            starved = int(np.count_nonzero(moving & (second == 0)))
            self.recorder.add_starved((int(np.count_nonzero(moving)), starved))
        return noticed

    def _has_gradient(self, p: Any) -> Array:
        gradient = p.grad.to_dense() if p.grad.is_sparse else p.grad
        return np.asarray(self.to_array(gradient) != 0)

    # What is known of the training ---------------------------------------------------------------

    def _learn_policy(self, optimizer: Any) -> None:
        """Take over the formats of the model where the recorder has none of its own."""
        if self.recorder.tracks or self.recorder.policy != get_policy("float32"):
            return
        narrow = {p.dtype for p in self.names if p.dtype in (torch.float16, torch.bfloat16)}
        policy: Policy = self.recorder.policy
        if len(narrow) == 1:
            policy = get_policy(str(narrow.pop()).removeprefix("torch."))
            if self._scaler is not None:
                policy = dataclasses.replace(policy, loss_scale="dynamic", name="")
        own = optimizer if hasattr(optimizer, "intend") else None
        if own is not None:
            policy = own.policy(policy)
        self.recorder.policy = policy

    def learn_formats(self, emulated: Policy | None) -> None:
        """Take over an emulation's or autocast's formats where the recorder has none of its own."""
        if self.recorder.tracks or self.recorder.policy != get_policy("float32"):
            return
        if emulated is not None:
            changes: dict[str, Any] = {"params": "float32", "state": "float32", "update": "nearest"}
            changes["loss_scale"] = None if self._scaler is None else "dynamic"
            self.recorder.policy = dataclasses.replace(emulated, **changes, name="")
            return
        device = next((p.device.type for p in self.names), "cpu")
        if not torch.is_autocast_enabled(device):
            return
        name = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        policy = get_policy(f"compute={name}")
        if self._scaler is not None:
            policy = dataclasses.replace(policy, loss_scale="dynamic")
        self.recorder.policy = policy

    def _learn_numbers(self, optimizer: Any) -> None:
        group = optimizer.param_groups[0]
        rate = float(group.get("lr", 0.0))
        highest, total = self.recorder.facts["rates"]
        self.recorder.facts["rates"] = [max(highest, rate), total + rate]
        if self.step > self._first:
            return
        numbers = {
            ours: float(group[word]) for word, ours in _NUMBERS.items() if _real(group, word)
        }
        betas = group.get("betas") or ()
        numbers |= {f"beta_{i + 1}": float(b) for i, b in enumerate(betas)}
        self.recorder.facts["hyperparameters"] = numbers
        self.recorder.facts["optimizer"] = type(optimizer).__name__
        tensors = (v for s in optimizer.state.values() for v in s.values())
        has_state = any(isinstance(v, torch.Tensor) and v.ndim for v in tensors)
        kinds = ["activation", "weight", "weight_gradient", "update", "activation_gradient"]
        self.recorder.facts["kinds"] = kinds + (["moment"] if has_state else [])

    # What is told --------------------------------------------------------------------------------

    def quietly(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function; an error is noted and never raised into the training."""
        try:
            with torch.no_grad():
                function(*arguments)
        except Exception as error:
            self.note(f"recording failed once or more ({type(error).__name__}: {error})")

    def note(self, text: str) -> None:
        """Keep a sentence about what is not known."""
        if text not in self._notes:
            self._notes.append(text)
            self.tell()

    def sentences(self) -> list[str]:
        """Return what is not known, in words."""
        if self.step == self._first:
            first = "no step was seen: weights, gradients, moments and updates are unknown"
            return [first, *self._notes]
        return list(self._notes)

    def tell(self) -> None:
        """Give the recorder's verdict what was seen and what was not."""
        found = self.coverage()
        self.recorder.facts["coverage"] = found | {"notes": self.sentences()}

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._scaler is not None and "step" in vars(self._scaler):
            del self._scaler.step
            if self._restore is not None:
                self._scaler.step = self._restore
        self.tell()


@dataclasses.dataclass
class _Snapshot:
    """What is kept between the beginning and the end of a step."""

    carried: float
    skips: bool
    has_closure: bool
    is_finite: bool
    old: dict[Any, torch.Tensor] = dataclasses.field(default_factory=dict)
    states: dict[Any, dict[str, torch.Tensor]] = dataclasses.field(default_factory=dict)
    twin: Twin | None = None
    intends: Any = None
    is_unknown: bool = False


def _lies_flat(x: torch.Tensor) -> bool:
    """Whether the numbers of a float32 tensor are an array as they lie."""
    is_plain = type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout is torch.strided
    return is_plain and x.is_cpu and x.is_contiguous() and not x.is_neg()


def _narrow(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16)


def _is_finite(x: torch.Tensor) -> bool:
    values = x.coalesce().values() if x.is_sparse else x
    return not values.numel() or bool(torch.isfinite(values.detach().abs().max()))


def _are_finite(tensors: list[torch.Tensor]) -> bool:
    """Whether all are finite: those that lie flat in one call, those of a device by their sums."""
    numerics, others = numerics_of(get_policy("float32")), list[torch.Tensor]()
    arrays: dict[str, Array] = {}
    for x in tensors:
        if x.dtype is torch.float32 and _lies_flat(x):
            arrays[str(len(arrays))] = x.detach().numpy()
        else:
            others.append(x)
    if not numerics.is_finite(arrays):
        return False
    dense = [x.detach() for x in others if not x.is_sparse and x.dtype == torch.float32]
    if len({x.device for x in dense}) == 1:
        sums = torch.stack(torch._foreach_norm(dense, 1.0))
        if bool(torch.isfinite(sums).all()):
            others = [x for x in others if x.is_sparse or x.dtype != torch.float32]
    return all(map(_is_finite, others))


def _real(group: dict[str, Any], word: str) -> bool:
    value = group.get(word)
    return isinstance(value, int | float) or (
        isinstance(value, torch.Tensor) and value.numel() == 1
    )


def _shown(old: Array, new: Array) -> Array:
    """Return the new weights as float32, distinct from the old ones exactly where they are."""
    narrow = as_float32(new)
    if new.dtype != np.float64:
        return narrow
    hidden = (new != old) & (narrow == as_float32(old))
    return np.where(hidden, np.nextafter(narrow, np.float32(np.inf)), narrow)
