"""Tensors measured by the workers of a dask cluster, which read the files themselves.

Nothing but places in files goes to the workers, and nothing but measurements comes back. Large
tensors are cut into ranges of elements, small ones travel together. What is cut depends on the
files alone, and measurements merge exactly, so that neither the number of workers, nor the order
in which they finish, nor one that dies and whose work is done again changes a figure.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lowprec.analysis.counting import measure_blocks, merge_measurements
from lowprec.rounding import Overflow, Rounding
from lowprec.tensors.cluster import connected, finished
from lowprec.tensors.kinds.npy import FortranRange
from lowprec.tensors.kinds.npz import Member, read_npz
from lowprec.tensors.kinds.safetensors import PackedBits
from lowprec.tensors.quantized import QuantizedTensor
from lowprec.tensors.sources import FileRange, Stamp
from lowprec.tensors.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lowprec.analysis.measurement import Measurement
    from lowprec.formats import Format
    from lowprec.tensors.tensor import Array, Source

    _Result = tuple[str, int, list[Measurement]]

_PART_BYTES = 64 << 20  # a fraction of a second's work, to which a task adds a millisecond


class _RemotePart(NamedTuple):
    """A tensor, or a range of its elements, whose place a worker can be told."""

    name: str
    tensor: Tensor


def measure_remotely(
    tensors: Mapping[str, Tensor],
    formats: Sequence[Format],
    address: str,
    *,
    part_bytes: int = _PART_BYTES,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, list[Measurement]]:
    """Measure the tensors of files on a cluster, rounded with ties to even.

    tensors: What to measure. The workers open the files under the same absolute paths, so they must
        share a file system with this machine. Tensors that are arrays in memory, as those of
        torch's own files, are measured here meanwhile.
    address: Of the scheduler, such as ``tcp://127.0.0.1:8786``.
    part_bytes: About how much a task reads. A tensor in an ``.npz`` archive, in Fortran's order or
        of four bits is read by one task.
    progress: Called as ``progress("comparing", bytes_done, bytes_in_all)``.
    Returns: By name, in the order of the formats: what `lowprec.measure` gives, but for the means
        of a tensor that was cut, which agree to 1e-12.
    Raises ModuleNotFoundError without dask's distributed.
    Raises OSError if no scheduler answers or it has no worker, if a worker does not see a file, or
        if the cluster gives up.
    Raises ValueError if a file is damaged or has changed since it was opened, or the address is
        none.
    """
    parts, kept = divide(tensors, part_bytes)
    total, done = sum(tensor.nbytes for tensor in tensors.values()), 0
    found: dict[str, list[list[Measurement]]] = {name: [] for name in tensors}
    with connected(address) as client:
        measure = functools.partial(measure_parts, formats=list(formats))
        tasks = client.map(measure, list(bundled(parts, part_bytes)), pure=False)
        here = (measure([part]) for part in kept)
        for results in itertools.chain(here, finished(client, tasks)):
            for name, size, measurements in results:
                found[name].append(measurements)
                done += size
            if progress is not None:
                progress("comparing", done, total)
    return {name: merge_measurements(pieces) for name, pieces in found.items()}


# How the work is divided ---------------------------------------------------------------------


def divide(
    tensors: Mapping[str, Tensor], part_bytes: int
) -> tuple[list[_RemotePart], list[_RemotePart]]:
    """Return what workers can read, in parts, and what only this process can."""
    parts: list[_RemotePart] = []
    kept: list[_RemotePart] = []
    for name, tensor in tensors.items():
        source = _elsewhere(tensor)
        if source is None:
            kept.append(_RemotePart(name, tensor))
        else:
            tensor = dataclasses.replace(tensor, source=source)
            parts += [_RemotePart(name, piece) for piece in _cut(tensor, part_bytes)]
    return parts, kept


def _elsewhere(tensor: Tensor) -> Source | None:
    """Return a source that gives the same elements in another process; None if there is none."""
    match tensor:
        case QuantizedTensor():
            return tensor.source if all(map(_elsewhere, tensor.stored)) else None
        case Tensor(source=FileRange() | FortranRange() | PackedBits() as source):
            return source
        case Tensor(source=Member() as member):
            return _ArchivedArray.of(member)
    return None


@dataclasses.dataclass(frozen=True)
class _ArchivedArray:
    """A member of an archive ``.npz`` that is opened when it is read."""

    path: Path
    stamp: Stamp
    name: str

    @classmethod
    def of(cls, member: Member) -> _ArchivedArray:
        """Return the place of a member."""
        path = Path(str(member.archive.filename)).absolute()
        with path.open("rb") as file:
            return cls(path, Stamp.of(file), member.info.filename.removesuffix(".npy"))

    def blocks(self, elements: int) -> Iterator[Array]:
        """Yield all elements, in blocks of this many."""
        return self._source().blocks(elements)

    def array(self) -> Array:
        """Return all elements."""
        return self._source().array()

    def _source(self) -> Source:
        with self.path.open("rb") as file:
            if Stamp.of(file) != self.stamp:
                raise ValueError(f"{self.path} has changed since it was opened; open it again")
        return _members(self.path, self.stamp)[self.name]


@functools.lru_cache(maxsize=4)
def _members(path: Path, stamp: Stamp) -> dict[str, Source]:
    """Open an archive once for all its members; the stamp tells a new file of the same name."""
    return {tensor.name: tensor.source for tensor in read_npz(path).tensors}


def _cut(tensor: Tensor, part_bytes: int) -> Iterator[Tensor]:
    """Yield a tensor in ranges of elements, or as it is where it cannot be cut."""
    source = tensor.source
    if not isinstance(source, FileRange) or tensor.nbytes <= part_bytes:
        yield tensor
        return
    width = tensor.dtype.itemsize
    step = max(1, part_bytes // width)
    for first in range(0, tensor.size, step):
        size = min(step, tensor.size - first)
        place = dataclasses.replace(source, offset=source.offset + first * width, size=size)
        yield dataclasses.replace(tensor, shape=(size,), source=place)


def bundled(parts: Iterable[_RemotePart], part_bytes: int) -> Iterator[list[_RemotePart]]:
    """Yield parts in lists that are worth a task."""
    bundle: list[_RemotePart] = []
    size = 0
    for part in parts:
        if bundle and size + part.tensor.nbytes > part_bytes:
            yield bundle
            bundle, size = [], 0
        bundle.append(part)
        size += part.tensor.nbytes
    if bundle:
        yield bundle


# What a worker does --------------------------------------------------------------------------


def measure_parts(parts: list[_RemotePart], formats: list[Format]) -> list[_Result]:
    """Return each part's name, its bytes and its measurements."""
    how = (formats, Rounding.TIES_TO_EVEN, Overflow.IEEE, None)
    try:
        return [
            (name, tensor.nbytes, measure_blocks(tensor.values(), *how)) for name, tensor in parts
        ]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the worker on {socket.gethostname()} does not see {error.filename}; workers read the "
            "files themselves: put them where all machines see them under the same path"
        ) from None
