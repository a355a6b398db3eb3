"""Callbacks as Keras' users write them: without a run, which their `model` then stands for."""

from __future__ import annotations

import inspect
from typing import Any

from lowprec.common.processor_state import in_its_state

HOOKS = {  # by name: how many arguments come before the run
    "on_train_begin": 0,
    "on_epoch_begin": 1,
    "on_batch_end": 2,
    "on_epoch_end": 2,
    "on_train_end": 0,
}
_KERAS_NAMES = {"on_batch_end": "on_train_batch_end"}
_NOT_CALLED = {
    "on_batch_begin": "on_epoch_begin or on_train_batch_end",
    "on_train_batch_begin": "on_epoch_begin or on_train_batch_end",
    "on_test_begin": "on_epoch_end, which has val_loss",
    "on_test_end": "on_epoch_end, which has val_loss",
    "on_test_batch_begin": "on_epoch_end, which has val_loss",
    "on_test_batch_end": "on_epoch_end, which has val_loss",
}


class _WithoutRun:
    """A callback whose hooks take Keras' arguments alone, called with lowprec's."""

    on_epoch_begin: Any
    on_batch_end: Any

    def __init__(self, callback: Any, run: Any) -> None:
        callback.model, self._run, self._first = run, run, 0
        for name, count in HOOKS.items():
            setattr(self, name, _hook(callback, name, count))
        begins, ends = self.on_epoch_begin, self.on_batch_end
        is_keras = hasattr(callback, "on_train_batch_end")

        def on_epoch_begin(epoch: int, run: Any) -> None:
            self._first = run.seen - run.before[1]
            begins(epoch, run)

        def on_batch_end(batch: int, logs: Any, run: Any) -> None:
            ends(batch - self._first if is_keras else batch, logs, run)  # Keras counts in epochs

        self.on_epoch_begin, self.on_batch_end = on_epoch_begin, on_batch_end


def with_run(callback: Any, run: Any) -> Any:
    """Return a callback that is called with the run, whatever the user's own takes.

    callback (object): A callback. Where a hook takes no run, ``callback.model`` is set to it: it
        has ``stop_training``, ``params``, ``learning_rate``.
    run (Training): What hooks are given.
    Raises TypeError if it has a hook of Keras' that nothing calls.
    """
    for name, other in _NOT_CALLED.items():
        if hasattr(callback, name):
            raise TypeError(
                f"{type(callback).__name__} defines {name}, which is not called; use {other}"
            )
    is_keras = any(hasattr(callback, name) for name in _KERAS_NAMES.values())
    if not is_keras and all(
        _takes_run(getattr(callback, name, None), count) for name, count in HOOKS.items()
    ):
        return callback
    return _WithoutRun(callback, run)


def _hook(callback: Any, name: str, count: int) -> Any:
    own = getattr(callback, name, None)
    theirs = getattr(callback, _KERAS_NAMES.get(name, ""), None)
    hook = own if theirs is None else theirs
    if hook is None:
        return _nothing
    # Keras gives logs to every hook, and an empty dict where there are none
    logs: tuple[Any, ...] = ({},) if count < 2 and _requires(hook, count + 1) else ()
    hook = in_its_state(hook)
    if theirs is None and _takes_run(own, count):
        return hook
    return lambda *arguments: hook(*arguments[:count], *logs)


def _requires(hook: Any, count: int) -> bool:
    """Whether a hook cannot be called with fewer arguments than this."""
    try:
        inspect.signature(hook).bind(*range(count - 1))
    except TypeError:
        return True
    return False


def _nothing(*_: Any) -> None:
    """Do nothing."""


def _takes_run(hook: Any, count: int) -> bool:
    """Whether a hook takes the run behind its other arguments."""
    if hook is None:
        return False
    parameters = inspect.signature(hook).parameters.values()
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
        return True
    plain = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    return len(plain) > count and plain[count].name != "logs"
