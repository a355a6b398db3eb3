"""`diagnose` for torch models: what became of a training, which part is to blame, where, and cures.

Each experiment is a training of its own: parts of the policy are put into float32 by `emulate`
(compute, gradients, accumulate) and `Optimizer` (params, state, update), layers by its rules.
"""

from __future__ import annotations

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
        If there is no such policy, or fewer than one step.

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
    search = _Search(make, get_policy(policy), steps, rng, tolerance, budget)
    return search.diagnosis(reference)


class _ScaledBackward(TorchFunctionMode):
    """Multiplies a loss by a scaler's scale where its backward pass begins."""

    def __init__(self, scaler: Any) -> None:
        super().__init__()
        self.scaler = scaler

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.backward and len(args) == 1:
            return func(self.scaler.scale(args[0]), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _ScaledOptimizer:
    """Steps through a scaler, and counts what it skips."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: Any) -> None:
        self._optimizer, self._scaler = optimizer, scaler
        self.skipped: list[int] = []
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self) -> None:
        before = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scaler.get_scale() < before:
            self.skipped.append(self._steps)
        self._steps += 1


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
    ) -> None:
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
            if not wide:
                narrow: Any = {"params": policy.params, "state": policy.state}
                optimizer = Optimizer(optimizer, update=policy.update, **narrow)
            losses, skipped = self._steps(model, optimizer, step, policy, rules)
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
        self, model: Any, optimizer: Any, step: Any, policy: Policy, rules: Any
    ) -> tuple[list[float], list[int]]:
        losses, skipped = [], list[int]()
        with emulate(model, policy, rules=rules):
            if policy.loss_scale is None:
                for i in range(self.steps):
                    losses.append(_number(step(model, optimizer, i)))
                return losses, skipped
            scale: Any = policy.loss_scale
            factors = {"growth_factor": 1.0 + 1e-9, "backoff_factor": 1.0 - 1e-9}
            if not scale.is_static:
                factors = {
                    "growth_factor": scale.growth_factor,
                    "backoff_factor": scale.backoff_factor,
                    "growth_interval": scale.growth_interval,
                }
            scaler = torch.amp.GradScaler("cpu", init_scale=scale.value, **factors)
            scaled = _ScaledOptimizer(optimizer, scaler)
            with _ScaledBackward(scaler):
                for i in range(self.steps):
                    losses.append(_number(step(model, scaled, i)))
            return losses, scaled.skipped

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
        verdict = self._verdict(words, place, cures)
        return Diagnosis(self.outcome, words, place, cures, self.experiments, verdict)

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

        if "not precision" in cause:
            return []
        if "gradients" in cause and policy.loss_scale is None:
            offer("torch.amp.GradScaler()", loss_scale="dynamic")
        if "loss scale" in cause:
            offer("torch.amp.GradScaler(init_scale=1.0)", loss_scale=1.0)
        if "params" in cause:
            for update in ("stochastic", "kahan"):
                offer(f"lt.Optimizer(optimizer, update={update!r})", update=update)
            offer("float32 parameters", params="float32", update="nearest")
        if "state" in cause:
            offer(
                f"lt.Optimizer(optimizer, params={str(policy.params)!r}, state='float32')",
                state="float32",
            )
        for part in _IN_LAYERS:
            if part in cause and part != "accumulate":
                offer(f"{part}='bfloat16'", **{part: "bfloat16"})
            if part in cause:
                offer(f"{part}='float32'", **{part: "float32"})
        return found

    def _verdict(self, cause: str | None, place: str | None, cures: list[Cure]) -> list[str]:
        text = self.outcome.text
        told = [f"{text[:1].upper()}{text[1:]}".removesuffix(".") + "."]
        if cause == "not precision":
            told.append("Float32 parts do not help: rounding is not the cause.")
        elif cause is not None:
            where = f", in {place}" if place else ""
            told.append(f"The cause is {cause}{where}: in float32 alone it restores the training.")
        elif self.outcome.is_red:
            told.append("No part was shown to be the cause.")
        good = [cure for cure in cures if cure.rescues]
        if good:
            words = ", or ".join(f"{c.code} (ends at {c.outcome.end:.4g})" for c in good)
            told.append(f"Use {words}.")
        if self.missed:
            told.append(f"Not made within {self.budget:g} s: {', '.join(self.missed)}.")
        return told


def _number(loss: Any) -> float:
    return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
