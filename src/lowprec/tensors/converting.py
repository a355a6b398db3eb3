"""Files of tensors, rounded from one format to another block by block."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowprec.blocks.formats import BlockFormat, get_format
from lowprec.common.outputs import NEVER_REPLACED, Output, check_outputs, is_same_file
from lowprec.common.processor_state import in_exact_state
from lowprec.rounding import Overflow, OverflowLike, Rounding, RoundingLike, checked_overflow
from lowprec.tensors.journal import Journal
from lowprec.tensors.kinds import writers
from lowprec.tensors.layouts import layout_for, quantization_config_of
from lowprec.tensors.opening import (
    find_files,
    model_config,
    read_model,
    say_what_is_left,
    write_index,
)
from lowprec.tensors.request import ConversionRequest, seed_sequence
from lowprec.tensors.sources import watched
from lowprec.tensors.writing import checked_file, replacing, storable, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from lowprec.blocks.formats import AnyFormat, AnyFormatLike
    from lowprec.common.randomness import RNGLike
    from lowprec.tensors.kinds.raw import Raw
    from lowprec.tensors.tensor import Tensor, TensorFile

    Progress = Callable[[str, int, int], None]


_CONFIGS = ("quantization_config", "compression_config")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion of files did.

    Attributes
    ----------
    files : tuple of Path
        What was written, in order.
    skipped : tuple of Path
        What an earlier run had written and was found complete.
    converted, unchanged : int
        How many tensors were rounded, and how many passed as they were.
    bytes_read, bytes_written : int
        How large the files are that were read and written.
    not_held : tuple of str
        The tensors among the unchanged ones that the layout of a block format does not hold: not
        matrices of whole blocks, as the experts of some models that lie in one tensor.
    """

    files: tuple[Path, ...]
    skipped: tuple[Path, ...]
    converted: int
    unchanged: int
    bytes_read: int
    bytes_written: int
    not_held: tuple[str, ...] = ()


@in_exact_state
def convert(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    to: AnyFormatLike | None = None,
    *,
    rounding: RoundingLike = "ties_to_even",
    overflow: OverflowLike = "ieee",
    rng: RNGLike = None,
    scale: bool = False,
    include: str | Iterable[str] = ("*",),
    exclude: str | Iterable[str] = (),
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    raw: Raw | None = None,
    plan: Mapping[str, AnyFormatLike] | None = None,
) -> Conversion:
    """Convert the real numbers of files to a format, in the memory of a few blocks.

    Names, their order, shapes and metadata stay. Integers and bool pass unchanged. Each number is
    rounded once, from its exact value, as `lowprec.cast` does.

    Parameters
    ----------
    source : str or path, or a sequence of them
        What `open_tensors` takes.
    target : str or path
        The file to write, ``.safetensors``, ``.npz`` or ``.npy``; for several files, or a model's
        folder, a folder, in which each keeps its name. A run for several files that was cut off
        goes on where it stopped when it is started again.
    to : Format, BlockFormat, str or dtype
        The format. One that the file has no dtype for is stored as unsigned codes with a note.
        ``nvfp4``, ``mxfp4``, ``mxfp6_e2m3``, ``mxfp8_e4m3`` and ``fp8_128x128`` are written in the
        layouts that vLLM and transformers read, to ``.safetensors``: the weights of linear layers,
        which are matrices of whole blocks; embeddings, norms and the output layer pass unchanged
        unless `include` names them. A folder gets a ``config.json`` with its
        ``quantization_config``, a single file that keeps its name one where none is; a model that
        is no longer quantized loses it.
    rounding, overflow
        As in `lowprec.round_to`.
    rng : None, int, SeedSequence or Generator
        For stochastic rounding. The bits depend on it, on a tensor's name and on an element's
        index alone: neither on blocks nor on shards.
    scale : bool
        Whether each tensor is multiplied, before it is rounded, by the largest power of two that
        overflows nowhere; the file's note keeps the inverse and `open_tensors` undoes it.
    include, exclude : str or iterable of str
        Patterns (as in `fnmatch`) of names that are converted, and of those of them that are not.
        Each must match a name.
    overwrite : bool
        Whether files that exist may be replaced.
    executor : concurrent.futures.Executor, optional
        What the files are submitted to, a task each: processes, or the executor of a cluster's
        client, whose workers must see all files under the same absolute paths. By default they
        follow one another here. The files are the same.
    progress : callable, optional
        Called as ``progress(file, bytes_done, bytes_in_all)``.
    raw : Raw, optional
        What bare codes are; see `open_tensors`.
    plan : mapping of str to format, optional
        Instead of `to`: the format of each tensor by its name, as `plan_formats` finds it; tensors
        that it does not name pass unchanged.

    Raises
    ------
    OSError
        If a file is missing, or exists already.
    ValueError
        If a file is damaged; if NaN goes to a format without NaN; if a pattern matches no name.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from lowprec.tensors import open_tensors, write_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/w.safetensors", {"w": np.float32([0.1, -0.0]), "step": 7})
    ...     done = convert(f"{folder}/w.safetensors", f"{folder}/w16.safetensors", "bfloat16")
    ...     print(open_tensors(f"{folder}/w16.safetensors")["w"].read(), done.unchanged)
    [0.100098 -0] 1
    """
    if (to is None) == (plan is None):
        raise ValueError("say what to convert to, or give a plan, and not both")
    formats = None if plan is None else {name: get_format(fmt) for name, fmt in plan.items()}
    fmt = None if to is None else get_format(to)
    how = ConversionRequest(
        fmt,
        _checked_modes(fmt, formats, Rounding(rounding), Overflow(overflow), scale=scale),
        seed_sequence(rng),
        scale,
        _patterns(include),
        _patterns(exclude),
        raw,
        formats,
    )
    say_what_is_left(source)
    paths, index = find_files(source)
    folder = Path(target)
    if index is None and len(paths) == 1 and not _is_folder(target, source):
        targets = {paths[0]: folder}
        if not overwrite:
            check_outputs([Output(target, NEVER_REPLACED)])
        files = _checked(how, targets)
        done = _convert_files(how, files, targets, None, overwrite, executor, progress)
        config = folder.parent / "config.json"  # never that of another model, or the source's
        if folder.name == paths[0].name and not config.exists():
            _write_config(how, files, folder.parent)
        return done
    if folder.suffix.lower() in writers() and not folder.is_dir():
        raise ValueError(
            f"a set of files is converted into a folder, and {folder} is the name of a file; give "
            "the name of a folder"
        )
    targets = {path: folder / _name_in_set(path) for path in paths}
    _check_targets(targets)
    files = _checked(how, targets)
    folder.mkdir(exist_ok=True)
    if len(paths) == 1 and index is None:
        if not overwrite:
            check_outputs([Output(targets[paths[0]], NEVER_REPLACED)])
        done = _convert_files(how, files, targets, None, overwrite, executor, progress)
        _write_config(how, files, folder)
        return done
    new_index = None
    if index:  # of safetensors, whatever the old files were
        new_index = folder / index.name.replace(".bin.index.json", ".safetensors.index.json")
    journal = Journal.open(
        folder, how.identity(paths, rng), how.seed, [*targets.values(), new_index], overwrite
    )
    how = dataclasses.replace(how, seed=journal.seed)
    done = _convert_files(how, files, targets, journal, True, executor, progress)
    if index is not None and new_index is not None:
        write_index(index, new_index, targets)
    _write_config(how, files, folder)
    journal.remove()
    return done


def _is_folder(target: str | os.PathLike[str], source: Any) -> bool:
    """Whether one file is converted into a folder: one that is there, or a model's own."""
    path = Path(target)
    is_model = isinstance(source, str | os.PathLike) and Path(source).is_dir()
    is_named = os.fspath(target).endswith(os.sep) or (is_model and path.suffix not in writers())
    return path.is_dir() or (is_named and not path.is_file())


def _checked_modes(
    fmt: AnyFormat | None,
    plan: Mapping[str, AnyFormat] | None,
    rounding: Rounding,
    overflow: Overflow,
    *,
    scale: bool,
) -> tuple[Rounding, Overflow]:
    """Return the modes, which every format must allow."""
    for one in {*(plan or {}).values(), *([fmt] if fmt is not None else [])}:
        if not isinstance(one, BlockFormat):
            overflow = checked_overflow(overflow, one)
            continue
        layout_for(one)
        if scale or overflow is not Overflow.IEEE or rounding.is_stochastic:
            raise ValueError(
                f"{one} finds its own scales, saturates, and is written a piece at a time; leave "
                "scale and overflow away, and use a deterministic rounding"
            )
    return rounding, overflow


def writes_blocks(how: ConversionRequest, file: TensorFile) -> bool:
    """Whether a tensor of a file is written as codes and scales."""
    return any(isinstance(how.format_of(t), BlockFormat) and how.selects(t) for t in file.tensors)


def _write_config(how: ConversionRequest, files: dict[Path, TensorFile], folder: Path) -> None:
    """Write the model's config.json beside its files, with the truth about its packing."""
    first = next(iter(files))
    content = model_config(first.parent)
    tensors = [tensor for file in files.values() for tensor in file.tensors]
    was_quantized = bool(set(_CONFIGS) & set(content))
    chosen = [tensor for tensor in tensors if how.selects(tensor)]
    formats: dict[BlockFormat, list[str]] = {}
    for tensor in chosen:
        fmt = how.format_of(tensor)
        if isinstance(fmt, BlockFormat):
            formats.setdefault(fmt, []).append(_layer(tensor))
    if _keeps_packings(tensors):
        kept = content
        for config in (content.get(key) for key in _CONFIGS):
            for key in ("ignore", "modules_to_not_convert"):
                if isinstance(config, dict) and isinstance(config.get(key), list):
                    config[key] += [_layer(tensor) for tensor in chosen]
    else:
        kept = {key: value for key, value in content.items() if key not in _CONFIGS}
        if formats:
            taken = {layer for layers in formats.values() for layer in layers}
            matrices = [_layer(t) for t in tensors if len(t.shape) == 2 and t.fmt is not None]
            left = [layer for layer in matrices if layer not in taken]
            kept["quantization_config"] = quantization_config_of(formats, left)
    if not (formats or was_quantized or content):
        return
    text = json.dumps(kept, indent=2) + "\n"
    with replacing(folder / "config.json", overwrite=True) as file:
        file.write(text.encode())


def _keeps_packings(tensors: Sequence[Tensor]) -> bool:
    """Whether some quantized tensors are not converted."""
    return any(tensor.part_of for tensor in tensors)


def _layer(tensor: Tensor) -> str:
    return tensor.name.removesuffix(".weight")


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _name_in_set(path: Path) -> str:
    return path.name if path.suffix.lower() in writers() else f"{path.stem}.safetensors"


def _check_targets(targets: dict[Path, Path]) -> None:
    if len(set(targets.values())) < len(targets):
        raise ValueError("several files have one name; convert them into different folders")
    for path, target in targets.items():
        if is_same_file(path, target):
            raise ValueError(f"{path} would replace itself; give another folder")


def _checked(how: ConversionRequest, targets: dict[Path, Path]) -> dict[Path, TensorFile]:
    """Open all files, and refuse targets that cannot be written before one is."""
    paths = list(targets)
    model = read_model(paths, raw=how.raw)
    how.check_patterns([tensor for file in model for tensor in file.tensors])
    files = dict(zip(paths, read_model(paths, how.selects, how.raw), strict=True))
    for path, target in targets.items():
        scale = 0.5 if how.scale else 1.0  # which is known only when all numbers have been read
        plan = [one for tensor in files[path].tensors for one in how.planned(tensor, scale)]
        if not writes_blocks(how, files[path]):
            pass
        elif target.suffix.lower() != ".safetensors":
            raise ValueError(
                f"{target} cannot be written: quantized layouts are of .safetensors; give a name "
                "that ends so, or a folder"
            )
        elif _keeps_packings([tensor for file in files.values() for tensor in file.tensors]):
            raise ValueError(
                f"{target} cannot be written: other tensors keep the packing they have, and a "
                "model's config.json tells of one; convert all of them, or these to a plain format"
            )
        checked_file(target, plan, files[path].metadata)
    return files


def _convert_files(
    how: ConversionRequest,
    files: dict[Path, TensorFile],
    targets: dict[Path, Path],
    journal: Journal | None,
    overwrite: bool,
    executor: Executor | None,
    progress: Progress | None,
) -> Conversion:
    meter = _Meter(progress, sum(t.nbytes for f in files.values() for t in f.tensors), how)
    pending, skipped = [], []
    for path, target in targets.items():
        suffix = target.suffix.lower()
        plan = [storable(one, suffix) for t in files[path].tensors for one in how.planned(t)]
        if journal is not None and journal.has_finished(path, target, plan):
            meter.skip(files[path])
            skipped.append(target)
        else:
            pending.append(path)
    before = sum(path.stat().st_size for path in pending)  # one may be replaced by its result
    if executor is None:
        done = _one_by_one(how, [files[path] for path in pending], targets, overwrite, meter)
    else:
        chosen = [files[path] for path in pending]
        done = _through(executor, how, list(files), chosen, targets, overwrite, meter)
    for path in done:
        if journal is not None:
            journal.note(path, targets[path])
    written = [targets[path] for path in pending]
    selected = [how.selects(tensor) for file in files.values() for tensor in file.tensors]
    return Conversion(
        tuple(written),
        tuple(skipped),
        sum(selected),
        len(selected) - sum(selected),
        before,
        sum(target.stat().st_size for target in written),
        tuple(t.name for file in files.values() for t in file.tensors if how.does_not_hold(t)),
    )


def _one_by_one(
    how: ConversionRequest,
    files: list[TensorFile],
    targets: dict[Path, Path],
    overwrite: bool,
    meter: _Meter,
) -> Iterator[Path]:
    """Convert files; yield each when it is complete."""
    for file in files:
        tensors = [one for tensor in meter.watch(file) for one in how.apply(tensor)]
        write_file(targets[file.path], tensors, file.metadata, overwrite=overwrite)
        yield file.path


def _through(
    executor: Executor,
    how: ConversionRequest,
    model: list[Path],
    files: list[TensorFile],
    targets: dict[Path, Path],
    overwrite: bool,
    meter: _Meter,
) -> Iterator[Path]:
    """Have files converted, a task each; yield each when it is complete."""
    tasks = {}
    paths = [path.absolute() for path in model]
    for file in files:
        places = file.path.absolute(), targets[file.path].absolute()
        tasks[executor.submit(convert_file, how, paths, *places, overwrite)] = file
    try:
        for task in as_completed(tasks):
            task.result()
            meter.skip(tasks[task])
            yield tasks[task].path
    finally:  # nothing is left to do, but after an error or an interrupt
        for task in tasks:
            task.cancel()


def convert_file(
    how: ConversionRequest, model: list[Path], path: Path, target: Path, overwrite: bool
) -> None:
    """Convert one file of a model; this is what executors are given."""
    try:
        file = read_model(model, how.selects, how.raw)[model.index(path)]
        tensors = [one for tensor in file.tensors for one in how.apply(tensor)]
        write_file(target, tensors, file.metadata, overwrite=overwrite)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the worker on {socket.gethostname()} does not see {error.filename}; workers read and "
            "write the files themselves: they must be under the same path on all machines"
        ) from None


class _Meter:
    """Counts the bytes that are read."""

    def __init__(self, progress: Progress | None, total: int, how: ConversionRequest) -> None:
        self.progress, self.done = progress, 0
        self.passes = 2 if how.scale else 1
        self.total = total * self.passes

    def watch(self, file: TensorFile) -> list[Tensor]:
        """Return a file's tensors, which tell of every block."""
        if self.progress is None:
            return list(file.tensors)
        return [watched(tensor, lambda size: self._add(file, size)) for tensor in file.tensors]

    def skip(self, file: TensorFile) -> None:
        """Count a file that need not be read."""
        self._add(file, self.passes * sum(tensor.nbytes for tensor in file.tensors))

    def _add(self, file: TensorFile, size: int) -> None:
        self.done += size
        if self.progress is not None:
            self.progress(file.path.name, min(self.done, self.total), self.total)
