"""``lowprec compare``: what formats do to the tensors of files, however large."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from lowprec.blocks import BlockFormat
from lowprec.cli.arguments import Add, add_formats, add_overwrite, add_raw, raw_of
from lowprec.cli.terminal import note, show, tell_written, transfer_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lowprec.analysis.comparison import Comparison
    from lowprec.tensors.naming import Named

PLACE = 3  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    compare = add(
        "compare",
        _compare,
        "measure what formats do to the tensors of files",
        "lowprec compare a.npy b.npz --formats bfloat16,float16 --html fit.html\n"
        '         lowprec compare "model-*-of-*.safetensors" --json fit.json\n'
        "         lowprec compare model/ --scheduler tcp://127.0.0.1:8786",
    )
    compare.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="files .npy, .npz, .safetensors, .pt; an index .safetensors.index.json, a quoted "
        "pattern of shards, or a folder (default: the data sets that scikit-learn bundles)",
    )
    add_formats(compare)
    add_raw(compare)
    compare.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="a dask cluster whose workers read and measure the files; they must see them under "
        "the same paths as this machine",
    )
    compare.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    compare.add_argument("--html", metavar="FILE", help="also write the table as an HTML page")
    add_overwrite(compare)


def _compare(options: argparse.Namespace) -> None:
    from lowprec.analysis.comparison_views import JSON, PAGE, cures_view
    from lowprec.common.outputs import Output, check_outputs, write_output
    from lowprec.tensors.naming import input_files

    if options.scheduler is not None and not options.files:
        options.command.error("--scheduler is for files; name the files that workers shall read")
    from lowprec.tensors.opening import notes_on_folders

    for sentence in notes_on_folders(options.files):
        note(sentence)
    figures, page = Output(options.json, JSON, "--json"), Output(options.html, PAGE, "--html")
    outputs = [output for output in (figures, page) if output.path]
    check_outputs(outputs, input_files(options.files), overwrite=options.overwrite)
    blocks = [fmt for fmt in options.formats if isinstance(fmt, BlockFormat)]
    if options.scheduler is not None and blocks:
        options.command.error(
            f"--scheduler measures tensors in parts, and blocks of {blocks[0]} may lie in two of "
            "them; leave --scheduler away"
        )
    with transfer_progress() as progress:
        comparison = _comparison(options, progress)
    if options.json:
        text = json.dumps(comparison.to_dict(), indent=2) + "\n"
        write_output(figures, text, overwrite=options.overwrite)
    if options.html:
        write_output(page, comparison.to_html(), overwrite=options.overwrite)
    show(comparison)
    if len(comparison.measurements) == 1:  # the table of several ends with them
        show(cures_view(comparison.measurements))
    tell_written(options.json, options.html)


def _comparison(
    options: argparse.Namespace, progress: Callable[[str, int, int], None] | None
) -> Comparison:
    from lowprec import analysis
    from lowprec.report.datasets import load
    from lowprec.tensors.naming import name_tensors
    from lowprec.tensors.sources import watched_together

    if not options.files:
        return analysis.compare(load(), options.formats)
    tensors = name_tensors(options.files, raw_of(options))
    if options.scheduler is not None:
        return _compare_remotely(tensors, options, progress)
    shown = watched_together(tensors, "comparing", progress) if progress else tensors
    compared = analysis.compare(shown, options.formats)
    return dataclasses.replace(compared, left_out=tensors.left_out)


def _compare_remotely(
    tensors: Named,
    options: argparse.Namespace,
    progress: Callable[[str, int, int], None] | None,
) -> Comparison:
    from lowprec.analysis.comparison import Comparison
    from lowprec.tensors.remote import measure_remotely

    measured = measure_remotely(tensors, options.formats, options.scheduler, progress=progress)
    names = [str(fmt) for fmt in options.formats]
    rows = {key: dict(zip(names, row, strict=True)) for key, row in measured.items()}
    return Comparison(rows, tensors.left_out)
