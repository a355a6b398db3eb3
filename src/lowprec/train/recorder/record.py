"""What was recorded of a training: the tracks of its tensors, the facts of the run, its outcome."""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Any

from lowprec.formats import Format, get_format
from lowprec.train.optimizing.state import Slot
from lowprec.train.policy import Policy, get_policy
from lowprec.train.recorder.kinds import KINDS, Event, UnitNoise, account_of_reference, losses_of
from lowprec.train.recorder.tracks import Track
from lowprec.train.running.outcome import Account, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.train.layer_policies import LayerPolicies
    from lowprec.train.running.history import History


class Record:
    """What was recorded of a training: data that the rules judge and pages show.

    Parameters
    ----------
    every : int
        One step in `every` was recorded.
    policy : Policy or str, optional
        What the tensors were rounded to; float32 by default.
    reference : History or sequence of float, optional
        The same training in float32, or its loss by epoch.

    Raises
    ------
    ValueError
        If `every` is less than 1.
    """

    def __init__(
        self,
        every: int = 10,
        *,
        policy: Policy | str | None = None,
        reference: History | Sequence[float] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every}: record every step (1) or one in more")
        self.every = operator.index(every)
        self.policy = get_policy("float32" if policy is None else policy)
        self.reference = losses_of(reference)
        self.reference_account = account_of_reference(reference)
        self.tracks: dict[tuple[str, str], Track] = {}
        self.facts: dict[str, Any] = {"starved": [0, 0], "rates": [0.0, 0.0]}
        self.labels: dict[str, str] = {}
        self.events: list[Event] = []
        self.scales: list[tuple[int, float]] = []  # where the loss scale changed, and to what
        self.steps = 0  # seen
        self.recorded = 0
        self.skips = 0
        self.curves: dict[str, list[float]] = {}
        self.step_losses: list[float] = []
        self.skipped_steps: list[int] = []
        self.places: LayerPolicies | None = None

    def track(self, kind: str, name: str) -> Track:
        """Return the track of a tensor, a new one where there is none."""
        found = self.tracks.get((kind, name))
        if found is None:
            found = self.tracks[kind, name] = Track(kind, name, self.format_of(kind, name))
        return found

    def add_starved(self, counts: tuple[int, int]) -> None:
        """Add how many first moments were not zero, and how many of them had a second that was."""
        for place, count in enumerate(counts):
            self.facts["starved"][place] += count
        share = counts[1] / counts[0] if counts[0] else 0.0
        self.facts["starved_most"] = max(self.facts.get("starved_most", 0.0), share)

    def add_unit_noise(self, name: str, found: UnitNoise) -> None:
        """Note of a layer's units how much of what varies in them rounding hides, and why."""
        noisy = self.facts.setdefault("noisy_units", {})
        noisy[name] = max(noisy.get(name, 0.0), found.offset)
        drowned = self.facts.setdefault("drowned_units", {})
        drowned[name] = max(drowned.get(name, [0.0]), list(found[1:]))

    def format_of(self, kind: str, name: str) -> Format:
        """Return the format that a tensor is rounded to."""
        policy = self.policy_at(kind, name)
        return policy.formats.get(KINDS[kind]) or get_format("float32")

    def policy_at(self, kind: str, name: str) -> Policy:
        """Return the policy of the place that a tensor belongs to."""
        if self.places is None:
            return self.policy
        if kind == "moment":
            name = Slot.of(name).parameter
        layer = name.partition("/")[0]
        if name == "input":
            return self.places.inputs
        if not layer.isdecimal() or int(layer) >= len(self.places.layers):
            return self.policy
        return self.places.of(name)

    def lacks(self, kind: str) -> bool:
        """Whether the training has tensors of a kind, as far as known, of which none was seen."""
        has = kind in self.facts.get("kinds", KINDS)
        return has and not any(track.length for track in self.of_kind(kind))

    @property
    def is_broken(self) -> bool:
        """Whether the weights ceased to be finite."""
        return any(not event.skipped for event in self.events)

    def of_kind(self, *kinds: str) -> list[Track]:
        """Return the tracks of these kinds, in the order of the layers."""
        return [track for (kind, _), track in self.tracks.items() if kind in kinds]

    def label(self, name: str) -> str:
        """Return what to call a tensor: ``Dense 2 (1/kernel)``.

        Examples
        --------
        >>> Record().label("anything")
        'anything'
        """
        *kept, short = name.split("/")
        if name in self.labels:
            return self.labels[name]
        layer = kept[-1] if kept else short
        return f"{self.labels[layer]} ({name})" if layer in self.labels else name

    @property
    def outcome(self) -> Outcome:
        """What became of the run, beside the reference where there is one."""
        mine, reference = self._account, self.reference_account
        if reference is None:
            return judge(mine)
        if reference.start is None or len(reference.epochs) != len(mine.epochs):
            mine, reference = _at_the_same_epoch(mine, reference)
        return judge(mine, reference)

    @property
    def _account(self) -> Account:
        """The numbers by which the run is judged."""
        return Account.made(
            policy=str(self.policy),
            loss=str(self.facts.get("loss", "")),
            curves=self.curves,
            step_losses=self.step_losses,
            skipped_steps=self.skipped_steps or range(self.skips),
            steps=self.steps,
            params_are_finite=not self.is_broken,
            known=self.facts.get("outcome", {}),
        )


def _at_the_same_epoch(mine: Account, reference: Account) -> tuple[Account, Account]:
    """Return both as of the last epoch that both have: a list of losses tells nothing finer."""
    count = min(len(mine.epochs), len(reference.epochs))
    if not count:
        return mine, reference
    its = reference.epochs[:count]
    metrics = reference.metrics if count == len(reference.epochs) else {}
    return (
        dataclasses.replace(mine, end=mine.epochs[count - 1]),
        dataclasses.replace(reference, end=its[-1], epochs=its, metrics=metrics),
    )
