"""`watch` for JAX: functions that hand tensors of a training to a recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from lowprec.train.recorder.recorder import Recorder


class Watching:
    """Hands tensors to a recorder, from inside of jit too.

    JAX has no modules to hook on: the training calls it. Every tensor of a recorded step is copied
    to the host by `jax.debug.callback`.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._step = recorder.steps

    def activation(self, name: str, x: jax.Array) -> jax.Array:
        """Record an activation, and its gradient where there is one; return it.

        name: What to call it.
        """
        watching = self

        @jax.custom_vjp
        def shown(x: jax.Array) -> jax.Array:
            watching.observe("activation", name, x)
            return x

        def forward(x: jax.Array) -> Any:
            watching.observe("activation", name, x)
            return x, None

        def backward(_: None, g: jax.Array) -> Any:
            watching.observe("activation_gradient", name, g)
            return (g,)

        shown.defvjp(forward, backward)
        result: jax.Array = shown(x)
        return result

    def observe(self, kind: str, name: str, x: jax.Array) -> None:
        """Record a tensor of this step.

        kind: As for `Recorder.observe`.
        name: What to call it.
        """

        def hear(array: Any) -> None:
            if self._step % self.recorder.every == 0:
                self.recorder.observe(self._step, kind, name, np.asarray(array, np.float32))

        jax.debug.callback(hear, x)

    def step(self, params: Any, gradients: Any, updates: Any = None) -> None:
        """Record weights, their gradients and updates, and go on to the next step.

        params, gradients, updates: As they are before the updates are added; names are their paths.
        """
        jax.effects_barrier()
        if self._step % self.recorder.every == 0:
            for kind, tree in (("weight", params), ("weight_gradient", gradients)):
                for name, leaf in _named(tree):
                    self.recorder.observe(self._step, kind, name, leaf)
            for (name, update), (_, w) in zip(_named(updates), _named(params), strict=False):
                self.recorder.observe(self._step, "update", name, update, parameter=w)
        self._step += 1
        self.recorder.steps = max(self.recorder.steps, self._step)


def _named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        (".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path), np.asarray(leaf))
        for path, leaf in leaves
    ]


def watch(recorder: Recorder) -> Watching:
    """Return what hands tensors of a training to a recorder, by `jax.debug.callback`.

    Parameters
    ----------
    recorder : lowprec.train.Recorder
        Where to.

    Returns
    -------
    Watching
        ``activation(name, x)`` inside of the model, ``step(params, gradients, updates)`` after
        each step.

    Raises
    ------
    TypeError
        If `recorder` is not a recorder.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from lowprec import train
    >>> recorder = train.Recorder(every=1, policy="compute=float16")
    >>> watching = watch(recorder)
    >>> @jax.jit
    ... def loss(w, x):
    ...     return watching.activation("hidden", x @ w).sum()
    >>> w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    >>> watching.step({"w": w}, {"w": jax.grad(loss)(w, x)})
    >>> sorted(kind for kind, name in recorder.tracks)
    ['activation', 'activation_gradient', 'weight', 'weight_gradient']
    """
    if not hasattr(recorder, "tracks"):
        raise TypeError(f"recorder is a {type(recorder).__name__}; pass a lowprec.train.Recorder()")
    return Watching(recorder)
