"""What a comparison of policies found: runs by policy and seed, and what they add up to."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state
from lowprec.train.policy import Policy, get_policy
from lowprec.train.running.json_values import as_json
from lowprec.train.running.outcome import Outcome, judge
from lowprec.train.studies.runs import account_of
from lowprec.train.studies.seed_statistics import Spread

if TYPE_CHECKING:
    from lowprec.train.memory import BytesPerParameter
    from lowprec.train.studies.runs import Run

BASELINE = Policy(name="float32")


@dataclasses.dataclass(frozen=True)
class PolicyResult:
    """What one policy came to over the seeds, beside float32.

    Attributes
    ----------
    policy : Policy
        The policy.
    runs : tuple of Run
        One a seed.
    baseline : tuple of Run
        Those of float32 with the same seeds.
    metric : str
        Which value of the last epoch judges.
    memory : BytesPerParameter
        What a parameter takes.
    resolution : float
        The least change that the metric can show: an accuracy counts samples.
    """

    policy: Policy
    runs: tuple[Run, ...]
    baseline: tuple[Run, ...]
    metric: str
    memory: BytesPerParameter
    resolution: float = 0.0

    @property
    def is_baseline(self) -> bool:
        """Whether this is float32 itself."""
        return self.policy == BASELINE

    @property
    def values(self) -> list[float]:
        """The metric at the end, by seed."""
        return [run.history[self.metric][-1] for run in self.runs]

    @property
    def differences(self) -> list[float]:
        """The metric minus that of float32 with the same seed."""
        reference = [run.history[self.metric][-1] for run in self.baseline]
        return [mine - its for mine, its in zip(self.values, reference, strict=True)]

    @property
    @in_exact_state
    def spread(self) -> Spread:
        """Mean and standard deviation of the metric over the seeds."""
        return Spread.of(self.values)

    @property
    @in_exact_state
    def difference(self) -> Spread:
        """Mean and standard deviation of the paired differences to float32."""
        return Spread.of(self.differences)

    @property
    @in_exact_state
    def noise(self) -> float:
        """How far `difference` may be from what infinitely many seeds would give.

        With 95 % confidence by Student's t; the standard deviation is taken to be that of rounding
        to the metric's resolution at least, because few seeds may well agree by chance.
        """
        found = self.difference
        return found._replace(sd=max(found.sd, self.resolution / math.sqrt(12))).uncertainty

    @property
    @in_exact_state
    def loss_rise(self) -> Spread:
        """How much higher the training loss of the last epoch is than float32's, as a share."""
        pairs = zip(self.runs, self.baseline, strict=True)
        ends = [(mine.history["loss"][-1], its.history["loss"][-1]) for mine, its in pairs]
        return Spread.of([mine / its - 1 if its else math.nan for mine, its in ends])

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each run, beside float32 with the same seed."""
        if self.is_baseline:
            return [judge(account_of(run)) for run in self.runs]
        pairs = zip(self.runs, self.baseline, strict=True)
        return [judge(account_of(mine), account_of(its)) for mine, its in pairs]

    @property
    def lag(self) -> Spread | None:
        """The share of float32's progress that is lacking; None where a run does not tell it."""
        made = [outcome.progress for outcome in self.outcomes]
        known = [1 - progress for progress in made if progress is not None]
        return Spread.of(known) if len(known) == len(made) else None

    @property
    @in_exact_state
    def diverged(self) -> list[Run]:
        """The runs that diverged, or skipped more than half of their steps."""
        return [
            run
            for run in self.runs
            if run.diverged_at is not None or account_of(run).is_mostly_skipped
        ]

    @property
    @in_exact_state
    def skipped_share(self) -> float:
        """The share of skipped steps."""
        return sum(len(run.skipped_steps) for run in self.runs) / sum(r.steps for r in self.runs)

    @property
    @in_exact_state
    def unchanged(self) -> float:
        """The share of the parameters that the last epoch left as they were."""
        return math.fsum(run.unchanged for run in self.runs) / len(self.runs)

    @property
    def seconds(self) -> float:
        """How long an epoch took, the median run's."""
        return sorted(run.seconds for run in self.runs)[len(self.runs) // 2]

    @in_exact_state
    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it; what is not finite is None."""
        memory = {**self.memory._asdict(), "total": self.memory.total}
        found: dict[str, Any] = as_json(
            {
                "policy": str(self.policy),
                "formats": {name: str(fmt) for name, fmt in self.policy.formats.items()},
                "update": self.policy.update,
                self.metric: self.spread._asdict(),
                "difference_to_float32": self.difference._asdict(),
                "training_loss_rise": self.loss_rise._asdict(),
                "outcomes": [outcome.to_dict() for outcome in self.outcomes],
                "bytes_per_parameter": memory,
                "unchanged": self.unchanged,
                "seconds_per_epoch": self.seconds,
                "runs": [dataclasses.asdict(run) for run in self.runs],
            }
        )
        return found


@dataclasses.dataclass(frozen=True, repr=False)
class PolicyResults:
    """What the policies came to: the data of a `PolicyComparison`.

    Attributes
    ----------
    results : tuple of PolicyResult
        One a policy, in the order given.
    baseline_added : bool
        Whether float32 was not asked for.
    facts : dict
        What was trained: model, data, loss, optimizer, epochs, batch_size, seeds.
    """

    results: tuple[PolicyResult, ...]
    baseline_added: bool
    facts: dict[str, Any]

    def __getitem__(self, policy: Policy | str) -> PolicyResult:
        """Return what a policy came to."""
        wanted = get_policy(policy)
        for result in self.results:
            if result.policy == wanted:
                return result
        raise KeyError(str(wanted))

    @property
    def metric(self) -> str:
        """Which value of the last epoch judges."""
        return self.results[0].metric
