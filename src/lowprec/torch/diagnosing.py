"""`diagnose` for torch models: what became of a training, which part is to blame, where, and cures.

Each experiment is a training of its own: parts of the policy are put into float32 by `emulate`
(compute, gradients, accumulate) and `Optimizer` (params, state, update), layers by its rules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from lowprec.formats import float32
from lowprec.torch.emulating import emulate
from lowprec.torch.optimizing import Optimizer
from lowprec.train.diagnosis.bench import gap_of, rescues
from lowprec.train.diagnosis.diagnosis import Cure, Diagnosis, Experiment
from lowprec.train.diagnosis.parts import PARTS, narrow_parts, only, widened
from lowprec.train.diagnosis.places import least
from lowprec.train.policy import Policy, get_policy
from lowprec.train.recorder.kinds import account_of_reference
from lowprec.train.running.outcome import Account, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowprec.train.loss_scale import LossScale
    from lowprec.train.running.history import History

    Make = Callable[[int], tuple[torch.nn.Module, torch.optim.Optimizer, Callable[..., Any]]]

_IN_LAYERS = ("gradients", "accumulate", "compute")


def diagnose(
    make: Make,
    *,
    policy: Policy | str,
    steps: int = 200,
    rng: int = 0,
    reference: History | Sequence[float] | None = None,
    tolerance: float = 0.05,
    budget: float | None = 60.0,
    progress: Callable[[str, int], None] | None = None,
) -> Diagnosis:
    """Find out what became of a torch training, what part of its policy is to blame, and the cure.

    The training is made under the policy and in float32. Where it ends worse, each part of the
    policy is put into float32 alone, then single layers, and each cure is tried.

    Parameters
    ----------
    make : callable
        ``make(seed)`` returns ``(model, optimizer, step)``, made anew, in float32;
        ``step(model, optimizer, i)`` takes the training step i, by ``loss.backward()`` and
        ``optimizer.step()``, and returns the loss.
    policy : lowprec.train.Policy or str
        The formats.
    steps : int
        The length of the training.
    rng : int
        The seed that `make` and `torch.manual_seed` get in every training.
    reference : History or sequence of float, optional
        The losses of the same training in float32; by default it is made here.
    tolerance : float
        The share of float32's progress that may be lacking.
    budget : float or None
        Seconds for all trainings, in this order: the outcome, the parts, the cures, the place.
        What was not made is named. None makes all.
    progress : callable, optional
        Called as ``progress(description, done)`` after each training.

    Returns
    -------
    lowprec.train.Diagnosis
        Its ``outcome``, ``cause``, ``place``, ``cures`` and ``experiments``; it prints as its
        verdict. The place is looked for where the cause is compute, gradients or accumulate.

    Raises
    ------
    TypeError
        If `make` does not return a module, an optimizer and a step.
    ValueError
        If there is no such policy, or fewer than one step; if the step function does not call
        ``step()`` of the optimizer that `make` returned, or a loss scale meets no `backward`.

    Examples
    --------
    >>> import torch
    >>> def make(seed):
    ...     model = torch.nn.Linear(4, 1)
    ...     x = torch.randn(64, 4)
    ...     def step(model, optimizer, i):
    ...         optimizer.zero_grad()
    ...         loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    ...         loss.backward()
    ...         optimizer.step()
    ...         return loss
    ...     return model, torch.optim.SGD(model.parameters(), 2e-3), step
    >>> diagnose(make, policy="bfloat16", steps=400, budget=None).cause
    'params'
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a training has one step or more")
    search = _Search(make, get_policy(policy), steps, rng, tolerance, budget, progress)
    return search.diagnosis(reference)


class _Scaling(TorchFunctionMode):
    """Multiplies a loss by a scale where its backward pass begins, and divides gradients after it.

    A step function that clips or looks at gradients so sees them without the scale.
    """

    def __init__(self, scale: LossScale, model: torch.nn.Module) -> None:
        super().__init__()
        self.scale, self.params = scale, list(model.parameters())
        self.is_finite, self.passes = True, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.backward:
            return func(*args, **(kwargs or {}))
        self.passes += 1
        before = [p.grad for p in self.params]
        for p in self.params:
            p.grad = None
        func(args[0] * self.scale.value, *args[1:], **(kwargs or {}))
        for p, kept in zip(self.params, before, strict=True):
            if p.grad is not None:
                p.grad.mul_(float(self.scale.inverse))
                values = p.grad.coalesce().values() if p.grad.is_sparse else p.grad
                self.is_finite &= bool(values.isfinite().all())
            if kept is not None:
                p.grad = kept if p.grad is None else kept.add_(p.grad)
        return None

    def allows_step(self) -> bool:
        """Whether all gradients since the last step were finite; the scale follows."""
        is_finite, self.is_finite = self.is_finite, True
        self.scale = self.scale.adjust(is_finite)
        return is_finite


class _Made(NamedTuple):
    """A training that was made."""

    account: Account
    losses: list[float]


class _Search:
    """One diagnosis in progress."""

    def __init__(
        self,
        make: Make,
        policy: Policy,
        steps: int,
        seed: int,
        tolerance: float,
        budget: float | None,
        progress: Callable[[str, int], None] | None = None,
    ) -> None:
        self.progress = progress
        self.make, self.policy, self.steps, self.seed = make, policy, steps, seed
        self.tolerance, self.budget = tolerance, budget
        self.begun = time.monotonic()
        self.longest = 0.0
        self.start: float | None = None
        self.experiments: list[Experiment] = []
        self.missed: list[str] = []
        self.layers: list[str] = []

    # Trainings -----------------------------------------------------------------------------------

    def train(self, name: str, policy: Policy, rules: Any = None, must: bool = False) -> Any:
        """Make a training, or note that the budget does not allow it."""
        spent = time.monotonic() - self.begun
        if not must and self.budget is not None and spent + self.longest > self.budget:
            self.missed.append(name)
            return None
        begin = time.monotonic()
        made = self._trained(policy, rules or {})
        self.longest = max(self.longest, time.monotonic() - begin)
        self.experiments.append(Experiment(name, made.account.end, None, self.steps))
        if self.progress is not None:
            self.progress(name, len(self.experiments))
        return made

    def _trained(self, policy: Policy, rules: Any) -> _Made:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model, optimizer, step = self._checked(self.make(self.seed))
            self.layers = [
                name
                for name, m in model.named_modules()
                if name and list(m.parameters(recurse=False))
            ]
            formats = policy.formats
            wide = formats["params"] == formats["state"] == float32
            stepper = optimizer
            if not wide:
                narrow: Any = {"params": policy.params, "state": policy.state}
                stepper = Optimizer(optimizer, update=policy.update, **narrow)
            losses, skipped = self._steps(model, optimizer, stepper, step, policy, rules)
            is_finite = all(bool(p.isfinite().all()) for p in model.parameters())
        known = {"start": self.start, "unit_roundoff": formats["compute"].unit_roundoff}
        account = Account.made(
            policy=str(policy),
            loss="",
            curves={},
            step_losses=losses,
            skipped_steps=skipped,
            steps=self.steps,
            params_are_finite=is_finite,
            known=known,
        )
        return _Made(account, losses)

    def _steps(
        self, model: Any, optimizer: Any, stepper: Any, step: Any, policy: Policy, rules: Any
    ) -> tuple[list[float], list[int]]:
        """Train; `optimizer`, whoever holds it, steps as `stepper` does, where the scale allows."""
        scale: Any = policy.loss_scale
        scaling = None if scale is None else _Scaling(scale, model)
        advance, skipped, calls = stepper.step, list[int](), 0

        def counted(closure: Any = None) -> Any:
            nonlocal calls
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            optimizer._opt_called = True  # which schedulers look at
            if scaling is None or scaling.allows_step():
                advance()
            else:
                skipped.append(calls)
            calls += 1
            return loss

        counted._wrapped_by_lr_sched = True  # type: ignore[attr-defined]  # so do they at that
        is_counted = scaling is not None or stepper is not optimizer
        if is_counted:
            optimizer.step = counted
        with emulate(model, policy, rules=rules), scaling or contextlib.nullcontext():
            losses = [_number(step(model, optimizer, i)) for i in range(self.steps)]
        if is_counted and not calls:
            raise ValueError(
                "step(model, optimizer, i) never called step() of the optimizer that make "
                "returned, which the policy narrows; call it in every step"
            )
        if scaling is not None and not scaling.passes:
            raise ValueError(
                f"the policy has a loss scale ({scale.value:g}), and step(model, optimizer, i) "
                "never called loss.backward(), where it is applied; call that instead of "
                "torch.autograd's functions"
            )
        return losses, skipped

    @staticmethod
    def _checked(made: Any) -> Any:
        is_whole = (
            isinstance(made, tuple)
            and len(made) == 3
            and isinstance(made[0], torch.nn.Module)
            and isinstance(made[1], torch.optim.Optimizer)
            and callable(made[2])
        )
        if not is_whole:
            raise TypeError(
                "make(seed) must return (model, optimizer, step): a torch.nn.Module, a "
                "torch.optim.Optimizer, and step(model, optimizer, i), which returns the loss"
            )
        return made

    # The search ----------------------------------------------------------------------------------

    def diagnosis(self, reference: Any) -> Diagnosis:
        """Make the experiments in their order, and say what they show."""
        wide = self.train("float32", widened(self.policy, PARTS), must=True)
        self.start = wide.losses[0]
        its = dataclasses.replace(wide.account, start=self.start)
        given = account_of_reference(reference)
        if given is not None:
            its = given if given.start is not None else dataclasses.replace(given, start=self.start)
        mine = self.train("as it is", self.policy, must=True).account
        self.reference = its
        self.outcome = judge(mine, its, self.tolerance)
        cause: list[str] = []
        place: str | None = None
        cures: list[Cure] = []
        if self.outcome.is_red:
            self.lost = gap_of(mine, its, self.outcome.reason)
            cause = self._cause()
            cures = self._cures(cause)
            place = self._place(cause)
        words = "+".join(cause) or None
        topics, verdict = zip(*self._verdict(words, place, cures), strict=True)
        return Diagnosis(
            self.outcome, words, place, cures, self.experiments, [*verdict], topics=topics
        )

    def _rescues(self, name: str, policy: Policy, rules: Any = None) -> bool | None:
        made = self.train(name, policy, rules)
        if made is None:
            return None
        answer = bool(rescues(made.account, self.reference, self.outcome, self.lost, 0.0))
        self.experiments[-1] = self.experiments[-1]._replace(rescues=answer)
        return answer

    def _cause(self) -> list[str]:
        parts = narrow_parts(self.policy)
        if self.outcome.kind == "float32 too" or not parts:
            return ["not precision"]
        answers = [self._rescues(f"{part} wide", widened(self.policy, [part])) for part in parts]
        rescuing = [part for part, answer in zip(parts, answers, strict=True) if answer]
        if rescuing or None in answers:
            return rescuing[:1]
        alone = [self._rescues(f"{p} alone as it is", only(self.policy, p)) for p in parts]
        failing = [part for part, is_fine in zip(parts, alone, strict=True) if is_fine is False]
        if len(failing) > 1 and self._rescues(
            f"{'+'.join(failing)} wide", widened(self.policy, failing)
        ):
            return failing
        return [] if None in alone else ["not precision"]

    def _place(self, cause: list[str]) -> str | None:
        """Return the least set of layers that decides, found by halving."""
        if not cause or not set(cause) <= set(_IN_LAYERS):
            return None
        wide = widened(self.policy, cause)

        def decides(some: Sequence[str]) -> bool | None:
            name = f"{'+'.join(cause)} wide in {', '.join(some)}"
            return self._rescues(name, self.policy, dict.fromkeys(some, wide))

        found = least(self.layers, decides)
        return ", ".join(found) if found != self.layers else None

    def _cures(self, cause: list[str]) -> list[Cure]:
        found = []
        for code, policy in self._candidates(cause):
            made = self.train(code, policy)
            if made is None:
                continue
            answer = bool(rescues(made.account, self.reference, self.outcome, self.lost, 0.0))
            self.experiments[-1] = self.experiments[-1]._replace(rescues=answer)
            outcome = judge(made.account, self.reference, self.tolerance)
            found.append(Cure(code, outcome, answer))
        return sorted(found, key=lambda cure: not cure.rescues)

    def _candidates(self, cause: list[str]) -> list[tuple[str, Policy]]:
        """Return code to paste and the policy that it stands for, the cheapest first."""
        policy, found = dataclasses.replace(self.policy, name=""), list[tuple[str, Policy]]()

        def offer(code: str, **changes: Any) -> None:
            changed = dataclasses.replace(policy, **changes)
            if changed != policy:
                found.append((code, changed))

        def emulated(changed: Policy) -> str:
            products: dict[str, Any] = {"params": "float32", "state": "float32"}
            products |= {"update": "nearest", "loss_scale": None}
            spelled = dataclasses.replace(changed, **products, name="")
            return f"lt.emulate(model, {str(spelled)!r})"

        def stored(**changes: Any) -> str:
            own = {"params": policy.params, "state": policy.state, "update": policy.update}
            words = ", ".join(f"{key}={str(value)!r}" for key, value in (own | changes).items())
            return f"lt.Optimizer(optimizer, {words})"

        if "not precision" in cause:
            return []
        if "gradients" in cause and policy.loss_scale is None:
            offer("torch.amp.GradScaler()", loss_scale="dynamic")
        if "loss scale" in cause:
            offer("torch.amp.GradScaler(init_scale=1.0)", loss_scale=1.0)
        if "params" in cause:
            for update in ("stochastic", "kahan"):
                offer(stored(update=update), update=update)
            wide = {"params": "float32", "update": "nearest"}
            offer(stored(**wide), **wide)
        if "state" in cause:
            offer(stored(state="float32"), state="float32")
        for part in _IN_LAYERS:
            for fmt in ("bfloat16", "float32"):
                if part in cause and (part, fmt) != ("accumulate", "bfloat16"):
                    changes: dict[str, Any] = {part: fmt}
                    offer(emulated(dataclasses.replace(policy, **changes)), **changes)
        return found

    def _verdict(
        self, cause: str | None, place: str | None, cures: list[Cure]
    ) -> list[tuple[str, str]]:
        """Return the sentences, each after what it is about."""
        text = self.outcome.text
        told = [("outcome", f"{text[:1].upper()}{text[1:]}".removesuffix(".") + ".")]
        if cause == "not precision":
            told.append(("cause", "Float32 parts do not help: rounding is not the cause."))
        elif cause is not None:
            where = f", in {place}" if place else ""
            words = f"The cause is {cause}{where}: in float32 alone it restores the training."
            told.append(("cause", words))
        elif self.outcome.is_red:
            told.append(("cause", "No part was shown to be the cause."))
        good = [cure for cure in cures if cure.rescues]
        if good:
            words = ", or ".join(f"{c.code} (ends at {c.outcome.end:.4g})" for c in good)
            told.append(("cure", f"Use {words}."))
        if self.missed:
            words = f"Not made within {self.budget:g} s: {', '.join(self.missed)}."
            told.append(("not made", words))
        return told


def _number(loss: Any) -> float:
    return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
