"""Memory: how many bytes each parameter takes while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lowprec.common.processor_state import in_exact_state
from lowprec.train.policy import get_policy

if TYPE_CHECKING:
    from lowprec.formats import Format
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy


class BytesPerParameter(NamedTuple):
    """What must be kept of each parameter between steps, and its copy for the forward pass.

    Gradients and activations are not counted: they live for a step, and the latter depend on the
    batch. They are kept in the policy's 16 or 8 bits, which is where mixed precision saves.

    state: The optimizer's state: Adam has two moments; what Kahan's update keeps is state too.
    copy: The parameter in the compute format, 0 where that is the stored one.
    """

    params: int
    state: float
    copy: int

    @property
    def total(self) -> float:
        """All together."""
        return self.params + self.state + self.copy

    def __str__(self) -> str:
        return f"{self.total:g} = {self.params:g} + {self.state:g} + {self.copy:g}"


@in_exact_state
def bytes_per_parameter(policy: Policy | str, optimizer: Optimizer) -> BytesPerParameter:
    """Return the bytes that a policy and an optimizer take for each trained parameter.

    Formats are stored in whole bytes: those that NumPy and ml_dtypes use for their codes.

    Parameters
    ----------
    policy : Policy or str
        The formats.
    optimizer : Optimizer
        How many arrays of state.

    Examples
    --------
    >>> from lowprec.train import Adam
    >>> str(bytes_per_parameter("mixed_bfloat16", Adam()))  # float32 parameter, moments, copy
    '14 = 4 + 8 + 2'
    >>> bytes_per_parameter("bfloat16", Adam()).total
    6.0
    """
    return bytes_with_state(get_policy(policy), _arrays_of_state(optimizer))


def bytes_with_state(policy: Policy, arrays: float) -> BytesPerParameter:
    """Return the same, where an optimizer keeps `arrays` numbers for each parameter."""
    params, compute = policy.formats["params"], policy.formats["compute"]
    state = arrays * _bytes(policy.formats["state"])
    if policy.update == "kahan":
        state += _bytes(params)
    copy = 0 if compute == params else _bytes(compute)
    return BytesPerParameter(_bytes(params), state, copy)


def _arrays_of_state(optimizer: Optimizer) -> float:
    """Return how many numbers an optimizer keeps for each parameter."""
    sample = np.zeros(64, np.float32)
    kept = sum(values.size for values in optimizer.init({"0/kernel": sample}).values())
    return kept / sample.size


def _bytes(fmt: Format) -> int:
    return fmt.code_dtype.itemsize
