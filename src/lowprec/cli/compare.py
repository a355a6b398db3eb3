"""``lowprec compare``: what formats do to the tensors of files, however large."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import lowprec
from lowprec.cli.arguments import Add, checked
from lowprec.cli.terminal import show
from lowprec.cli.transfer import transfer_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lowprec.tensors import Tensor

__all__ = ["register"]


def register(add: Add) -> None:
    """Add the command."""
    compare = add(
        "compare",
        _compare,
        "measure what formats do to the tensors of files",
        "lowprec compare weights.npy grads.npz --formats bfloat16,float16 --html table.html\n"
        '         lowprec compare "model-*-of-*.safetensors" --json fit.json',
    )
    compare.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="files .npy, .npz, .safetensors, .pt; an index .safetensors.index.json, a quoted "
        "pattern of shards, or a folder (default: the data sets that scikit-learn bundles)",
    )
    compare.add_argument(
        "--formats",
        metavar="F,G",
        type=checked(lambda text: [lowprec.get_format(name) for name in text.split(",")]),
        default=["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"],
        help="names with commas between (default: bfloat16,float16,float8_e4m3fn,float8_e5m2)",
    )
    compare.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    compare.add_argument("--html", metavar="FILE", help="also write the table as an HTML page")


def _compare(options: argparse.Namespace) -> None:
    from lowprec import analysis
    from lowprec.report.datasets import load
    from lowprec.report.files import name_tensors, write_atomically

    arrays: dict[str, Any]
    with transfer_progress() as progress:
        if options.files:
            arrays = name_tensors(options.files)
            arrays = _watched(arrays, progress) if progress else arrays
        else:
            arrays = load()
        comparison = analysis.compare(arrays, options.formats)
    if options.json:
        write_atomically(options.json, json.dumps(comparison.to_dict(), indent=2) + "\n")
    if options.html:
        write_atomically(options.html, comparison.to_html())
    show(comparison)


def _watched(
    tensors: dict[str, Tensor], progress: Callable[[str, int, int], None]
) -> dict[str, Tensor]:
    """Return tensors that tell how many bytes have been read."""
    from lowprec.tensors.sources import watched

    total = sum(tensor.nbytes for tensor in tensors.values())
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, total)

    return {name: watched(tensor, tell) for name, tensor in tensors.items()}
