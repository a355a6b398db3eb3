"""fit: a training from its arguments to its history."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lowprec.common.processor_state import in_exact_state_but_users_code
from lowprec.common.randomness import draw_key
from lowprec.train.running.feeding import check_epochs
from lowprec.train.running.history import History
from lowprec.train.running.progress import Progress
from lowprec.train.running.training import Training

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from lowprec.common.randomness import RNGLike
    from lowprec.train.callbacks import Callback
    from lowprec.train.losses import Loss
    from lowprec.train.network import Network
    from lowprec.train.optimizing.optimizer import Optimizer
    from lowprec.train.policy import Policy
    from lowprec.train.running.training import Follower


@in_exact_state_but_users_code
def fit(
    model: Network,
    data: Any,
    *,
    loss: str | Loss,
    optimizer: Optimizer | str,
    policy: Policy | str = "float32",
    metrics: Iterable[Any] = (),
    epochs: int = 1,
    batch_size: int = 32,
    params: Mapping[str, ArrayLike] | None = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: ArrayLike | None = None,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    callbacks: Iterable[Callback] | Callback = (),
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
        The network, which stays as it is.
    data : Dataset, pair (x, y), or iterable of batches
        What to train on: a `Dataset`, on whose test part is validated; a pair of arrays or of
        pandas' tables; or batches (x, y), or (x, y, sample weights), of a torch ``DataLoader`` or
        a generator, which are read one at a time and shuffle as they do. A function that makes a
        generator is called once an epoch.
    loss : str or callable
        A name, or a function of (y_true, y_pred) that returns (value, gradient), in float32. A
        cross-entropy reads logits: a softmax or sigmoid at the model's end is left out in training.
    optimizer : Optimizer or str
        Such as ``train.Adam(1e-3)``; a name stands for its defaults.
    policy : Policy or str
        The formats.
    metrics : iterable of str, Metric or callable
        As for `metrics.get`; by default accuracy, or mae and rmse, as suits the loss.
    epochs : int
        How often to go through the training set; with `resume`, those before included.
    batch_size : int
        Samples a step; the last batch of an epoch may be smaller.
    params : dict of str to array_like, optional
        Where to start; by default what `model.init` draws.
    validation_split : float
        The share of the training set to validate on, drawn by the seed, of each class its share;
        0 for the test set.
    validation_data : (x, y), (x, y, weights), Dataset or iterable of batches, optional
        What to validate on, whatever the data say.
    class_weight : dict of int to float, optional
        How often each class counts in the training loss; 1 where it is not named.
    sample_weight : array_like, shape (samples,), optional
        How often each sample counts in the training loss, Σ wᵢ·lossᵢ / n; in a metric each counts
        once. Not together with `class_weight`.
    shuffle : bool
        Whether each epoch has an order of its own; batches that are given keep theirs.
    steps_per_epoch : int, optional
        How many batches of a generator make an epoch.
    validation_steps : int, optional
        How many batches of a generator in `validation_data` are validated on.
    callbacks : iterable of Callback, or one
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
    earlier = None
    if resume is not None:
        earlier = resume if isinstance(resume, History) else History.load(resume)
    epochs, batch_size = _counts(epochs, batch_size)
    before = 0 if earlier is None else int(earlier.facts["epoch"])
    check_epochs(data, epochs - before, steps_per_epoch)
    training = Training(
        model,
        data,
        loss=loss,
        optimizer=optimizer,
        policy=policy,
        metrics=metrics,
        batch_size=batch_size,
        validation_split=float(validation_split),
        validation_data=validation_data,
        class_weight=class_weight,
        sample_weight=sample_weight,
        shuffle=shuffle,
        steps_per_epoch=steps_per_epoch,
        validation_steps=validation_steps,
        seed=draw_key(rng) if earlier is None else int(earlier.facts["seed"]),
        recorder=recorder,
    )
    if earlier is None:
        training.start(params)
    else:
        training.resume(earlier)
    training.run(epochs, _listed(callbacks), Progress(epochs, training.steps, verbose))
    return training.snapshot()


@in_exact_state_but_users_code
def go_on(
    model: Network,
    data: Any,
    earlier: History | None,
    params: Mapping[str, ArrayLike] | None,
    *,
    epochs: int,
    batch_size: int,
    callbacks: Iterable[Callback] | Callback,
    verbose: bool | str,
    rng: RNGLike = 0,
    initial_epoch: int = 0,
    **how: Any,
) -> History:
    """Train some epochs, on any data, perhaps after others: what ``model.fit`` does.

    model, data, batch_size, callbacks, verbose, rng, **how: As for `fit`.
    earlier: Whose optimizer state, loss scale and count of steps go on.
    params: Where to start; by default what `rng` draws.
    epochs: The number of the last epoch, as callbacks and the history count them.
    initial_epoch: The number of the first, from 0.
    Returns: Of this call; its state is that of both.
    """
    epochs, batch_size = _counts(epochs, batch_size)
    initial_epoch = operator.index(initial_epoch)
    if not 0 <= initial_epoch < epochs:
        raise ValueError(
            f"initial_epoch={initial_epoch} and epochs={epochs}: epochs is the number of the last "
            f"one; write epochs={initial_epoch + epochs} for {epochs} epochs more"
        )
    more = epochs - initial_epoch
    check_epochs(data, more, how.get("steps_per_epoch"))
    seed = draw_key(rng) if earlier is None else int(earlier.facts["seed"])
    training = Training(model, data, batch_size=batch_size, seed=seed, **how)
    if earlier is None:
        training.start(params)
    else:
        assert params is not None
        training.go_on(earlier, params)
    training.before = (training.epoch - initial_epoch, training.before[1])
    progress = Progress(epochs, training.steps, verbose)
    training.run(training.epoch + more, _listed(callbacks), progress)
    return training.snapshot()


def _listed(callbacks: Iterable[Callback] | Callback) -> list[Callback]:
    """Return callbacks as a list; one alone serves too."""
    return list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]


def _counts(epochs: int, batch_size: int) -> tuple[int, int]:
    epochs, batch_size = operator.index(epochs), operator.index(batch_size)
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs={epochs} and batch_size={batch_size} must be 1 or more")
    return epochs, batch_size
