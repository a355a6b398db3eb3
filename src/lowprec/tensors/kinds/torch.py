"""State dicts that ``torch.save`` wrote, read by torch, which then runs no program in them."""

from __future__ import annotations

import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.tensors.checks import checked_name, refuse_duplicates
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sources import ArraySource, as_tensor
from lowprec.tensors.tensor import TensorFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lowprec.tensors.tensor import Tensor


_MOST_RATIO = 2  # arrays' bytes to the file's: neither is packed, and views may share


def read_torch(path: Path) -> TensorFile:
    """Read all tensors of a checkpoint, mapped into memory.

    Dictionaries and lists within it give names with points between, as in ``model.layer.weight``.

    Raises ModuleNotFoundError without torch.
    Raises OSError if the file is not there.
    Raises ValueError if torch refuses the file, or it holds no tensors.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is torch's own kind of file, and torch is not installed; "
            "run: python -m pip install torch",
            name="torch",
        ) from None
    is_archive = _is_archive(path)
    try:  # what older torch wrote is not an archive, and is read into memory
        with torch.serialization.safe_globals(_of_numpy()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forms of pickle, which an error tells better
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except Exception as error:  # of many kinds: the unpickler's, the archive's, torch's own
        raise ValueError(f"torch does not load it as tensors alone: {_reason(error)}") from None
    tensors = tuple(_tensors("", content))
    if not tensors:
        raise ValueError("it holds no tensors")
    claimed = sum(t.nbytes for t in tensors if isinstance(t.source, ArraySource))
    if claimed > max(1 << 20, _MOST_RATIO * path.stat().st_size):
        raise ValueError(f"its arrays claim {claimed:,} bytes, more than fit in it")
    refuse_duplicates(tensor.name for tensor in tensors)
    return TensorFile(path, tensors, {})


def _of_numpy() -> list[Any]:
    """Return what builds NumPy's arrays and scalars, beside tensors in older files: no program."""
    core: Any = np._core.multiarray  # type: ignore[attr-defined]
    makers = [
        (getattr(core, name), f"numpy.{room}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for room in ("core", "_core")
    ]
    return [*makers, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}]


def _is_archive(path: Path) -> bool:
    """Whether a file is an archive, as torch has written them since 1.6; refuse TorchScript's."""
    with path.open("rb") as file:  # what it raises says more than torch does
        is_archive = file.read(4) == b"PK\x03\x04"
    if not is_archive:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return True  # torch says what is wrong
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            "it is an archive of TorchScript, a program with its parameters, which is not run; in "
            f"a program that trusts it: torch.save(torch.jit.load({path.name!r}).state_dict(), "
            f"{path.stem + '.pt'!r})"
        )
    return True


def _reason(error: Exception) -> str:
    """Return what torch says in one line, without the codes that colour a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    refused = re.search(r"Unsupported global: GLOBAL (\S+)", text)
    if refused:
        return (
            f"beside tensors it holds a {refused[1]}, which might run a program when it is made; "
            "in a program that trusts it, save its state_dict() alone with torch.save"
        )
    damaged = re.search(r"WeightsUnpickler error:\s*([^\n]+)", text)
    if damaged:
        return (
            f"it is damaged or another program's ({damaged[1]:.100}); of bare codes say what they "
            "are, as in --as bfloat16; pickled arrays save with numpy.savez where they are trusted"
        )
    return f"{text.partition(chr(10))[0] or type(error).__name__:.200}"


def _tensors(prefix: str, content: Any) -> Iterator[Tensor]:
    import torch

    if isinstance(content, torch.Tensor):
        name = checked_name(prefix or "tensor")
        if content.layout != torch.strided or content.is_quantized or content.is_meta:
            raise ValueError(
                f"{name!r:.100} is not a plain tensor: {content.layout} {content.dtype}"
            )
        yield as_tensor(name, content.detach())
    elif isinstance(content, np.ndarray) and content.dtype.kind in "fiub":
        yield as_tensor(checked_name(prefix or "tensor"), content)
    elif isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, part in items:
            yield from _tensors(f"{prefix}.{key}" if prefix else str(key), part)


KINDS = (
    FileKind(
        (".pt", ".pth", ".ckpt", ".bin", ".pth.tar", ".pt.tar"),
        read_torch,
        place=2,
        index_suffix=".bin.index.json",
    ),
    FileKind((".jit",), read_torch, place=2, in_folders=False),
)
