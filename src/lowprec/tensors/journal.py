"""The progress of a conversion of several files, by which an interrupted one is continued."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.outputs import NEVER_REPLACED, exists_error
from lowprec.tensors.opening import read_file
from lowprec.tensors.writing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lowprec.tensors.tensor import Tensor

_NAME = ".lowprec-convert.json"
_VERSION = 1


class Journal:
    """A file in the folder of results that exists until the last result is complete.

    Attributes
    ----------
    seed : SeedSequence
        Of stochastic rounding; that of the run that was cut off, where one was.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content
        entropy, spawn_key = content["seed"]
        self.seed = np.random.SeedSequence(entropy, spawn_key=tuple(spawn_key))

    @classmethod
    def open(
        cls,
        folder: Path,
        request: dict[str, Any],
        seed: np.random.SeedSequence,
        targets: Iterable[Path | None],
        overwrite: bool,
    ) -> Journal:
        """Go on with the run that was cut off in this folder, or begin one.

        Raises
        ------
        FileExistsError
            If there are files that no interrupted run has left, and they may not be replaced.
        ValueError
            If what was cut off was another conversion.
        """
        path = folder / _NAME
        earlier = _read(path)
        if earlier is not None and earlier["request"] == request:
            return cls(path, earlier)
        if not overwrite:
            if earlier is not None:
                raise ValueError(
                    f"another conversion into {folder} was cut off; finish it, or begin anew with "
                    "overwrite"
                )
            for target in targets:
                if target is not None and target.exists():
                    raise exists_error(target, NEVER_REPLACED)
        content = {
            "version": _VERSION,
            "request": request,
            "seed": plain_seed(seed),
            "finished": {},
        }
        journal = cls(path, content)
        journal._write()
        return journal

    def note(self, source: Path, target: Path) -> None:
        """Note that a file is complete."""
        self.content["finished"][target.name] = [_stamp(source), _stamp(target)]
        self._write()

    def has_finished(self, source: Path, target: Path, plan: Sequence[Tensor]) -> bool:
        """Whether a file was completed from the same source, and holds what is planned."""
        stamps = self.content["finished"].get(target.name)
        if stamps is None or not target.is_file():
            return False
        if stamps != [_stamp(source), _stamp(target)]:
            return False
        try:
            found = read_file(target).tensors
        except ValueError:
            return False
        told = [(t.name, t.shape, t.dtype, t.fmt) for t in found]
        return told == [(t.name, t.shape, t.dtype, t.fmt) for t in plan]

    def remove(self) -> None:
        """Remove the journal: all is done."""
        self.path.unlink()

    def _write(self) -> None:
        with replacing(self.path, overwrite=True) as file:
            file.write(json.dumps(self.content, indent=1).encode())


def plain_seed(seed: np.random.SeedSequence) -> list[Any]:
    """Return entropy and spawn key as JSON can hold them."""
    entropy: Any = np.asarray(seed.entropy, object)  # of any size: 128 bits are usual
    plain = [int(n) for n in entropy.reshape(-1)] if entropy.ndim else int(entropy.item())
    return [plain, [int(n) for n in seed.spawn_key]]


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path) -> dict[str, Any] | None:
    """Return an interrupted run's journal; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_known = content["version"] == _VERSION and isinstance(content["finished"], dict)
        return content if is_known and {"request", "seed"} <= set(content) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
