"""fit: a training from its arguments to its history."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.common.randomness import draw_key
from lowprec.train.running.history import History
from lowprec.train.running.progress import Progress
from lowprec.train.running.training import Training

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.callbacks import Callback
    from lowprec.train.dataset import Dataset
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy
    from lowprec.train.running.training import Follower

__all__ = ["fit"]


@in_exact_state_but_users_code
def fit(
    model: Network,
    data: Dataset,
    *,
    loss: str | Loss,
    optimizer: Optimizer | str,
    policy: Policy | str = "float32",
    epochs: int = 1,
    batch_size: int = 32,
    params: Mapping[str, ArrayLike] | None = None,
    validation_split: float = 0.0,
    callbacks: Iterable[Callback] = (),
    recorder: Follower | None = None,
    resume: History | str | os.PathLike[str] | None = None,
    rng: RNGLike = 0,
    verbose: bool | str = "auto",
) -> History:
    """Train a network under a policy.

    The same seed gives the same bits, whatever the number of threads.

    Parameters
    ----------
    model : Sequential
        The network.
    data : Dataset
        What to train and to validate on.
    loss : str or callable
        A name, or a function of (y_true, y_pred) that returns (value, gradient), in float32.
    optimizer : Optimizer or str
        Such as ``train.Adam(1e-3)``; a name stands for its defaults.
    policy : Policy or str
        The formats.
    epochs : int
        How often to go through the training set; with `resume`, those before included.
    batch_size : int
        Samples a step; the last batch of an epoch may be smaller.
    params : dict of str to array_like, optional
        Where to start; by default what `model.init` draws.
    validation_split : float
        The share of the training set to validate on; 0 for the test set.
    callbacks : iterable of Callback
        Called around epochs and steps.
    recorder : Recorder, optional
        Sees the tensors of the steps it asks for.
    resume : History, str or path, optional
        What `fit` returned, or the file it was saved to: goes on from there to the same bits as
        one longer run. Everything else must be as before; seed and parameters are the saved ones.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where one seed is drawn from, for initial parameters, order of the samples, dropout and
        stochastic updates.
    verbose : bool or "auto"
        Whether to show progress on stdout; by default where stdout is a terminal or a notebook.

    Returns
    -------
    History
        Losses and metrics by epoch, the parameters, loss scales and skipped steps.

    Raises
    ------
    ValueError
        If the arguments do not fit each other.

    Examples
    --------
    >>> from lowprec import train
    >>> model = train.Sequential([train.Input((1,)), train.Dense(1)])
    >>> line = train.data.linear().scaled("standard")
    >>> history = fit(model, line, loss="mse", optimizer=train.SGD(0.1), epochs=2)
    >>> sorted(history.history)
    ['loss', 'mae', 'rmse', 'val_loss', 'val_mae', 'val_rmse']
    """
    epochs, batch_size = operator.index(epochs), operator.index(batch_size)
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs={epochs} and batch_size={batch_size} must be 1 or more")
    earlier = None
    if resume is not None:
        earlier = resume if isinstance(resume, History) else History.load(resume)
    training = Training(
        model,
        data,
        loss=loss,
        optimizer=optimizer,
        policy=policy,
        batch_size=batch_size,
        validation_split=float(validation_split),
        seed=draw_key(rng) if earlier is None else int(earlier.facts["seed"]),
        recorder=recorder,
    )
    if earlier is None:
        training.start(params)
    else:
        training.resume(earlier)
    training.run(epochs, list(callbacks), Progress(epochs, training.steps, verbose))
    return training.snapshot()
