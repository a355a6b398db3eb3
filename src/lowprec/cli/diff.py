"""``lowprec diff``: two files of tensors against each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lowprec.blocks.formats import get_format
from lowprec.cli.arguments import (
    Add,
    add_names,
    add_overwrite,
    add_raw,
    checked,
    nonnegative,
    raw_of,
)
from lowprec.cli.terminal import note, show, tell_written, transfer_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lowprec.analysis.difference import Difference
    from lowprec.tensors import Tensor

PLACE = 4  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    diff = add(
        "diff",
        _diff,
        "compare the tensors of two files or models with each other, element by element",
        "lowprec diff bf16.safetensors fp8.safetensors\n"
        "         lowprec diff model/ quantized/ --tolerance 0.5 --json diff.json",
    )
    diff.add_argument("a", metavar="A", help="the reference: a file, an index, or a folder")
    diff.add_argument("b", metavar="B", help="what is compared with it")
    diff.add_argument(
        "--format",
        metavar="F",
        type=checked(get_format),
        help="count the distance in steps of this format (default: of each tensor's narrower one)",
    )
    add_names(diff, "compare")
    add_raw(diff)
    diff.add_argument(
        "--tolerance",
        metavar="ULPS",
        type=checked(nonnegative),
        help="exit with 1 where elements are farther apart, or where tensors are missing, extra "
        "or of other shapes",
    )
    diff.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    diff.add_argument("--html", metavar="FILE", help="also write the table as an HTML page")
    add_overwrite(diff)


def _diff(options: argparse.Namespace) -> int:
    from lowprec.analysis import diff
    from lowprec.analysis.difference_views import JSON, PAGE
    from lowprec.common.outputs import Output, check_outputs, write_output
    from lowprec.tensors.naming import input_files, paired_tensors
    from lowprec.tensors.opening import notes_on_folders

    for sentence in notes_on_folders([options.a, options.b]):
        note(sentence)
    figures, page = Output(options.json, JSON, "--json"), Output(options.html, PAGE, "--html")
    outputs = [output for output in (figures, page) if output.path]
    inputs = input_files([options.a, options.b])
    check_outputs(outputs, inputs, overwrite=options.overwrite)
    names = options.include or ["*"], options.exclude
    one, other = paired_tensors(options.a, options.b, *names, raw_of(options))
    with transfer_progress() as progress:
        found = diff(_watched(one, progress), other, options.format)
    if options.json:
        text = json.dumps(found.to_dict(), indent=2) + "\n"
        write_output(figures, text, overwrite=options.overwrite)
    if options.html:
        write_output(page, found.to_html(), overwrite=options.overwrite)
    show(found)
    tell_written(options.json, options.html)
    return _verdict(found, options.tolerance)


def _verdict(found: Difference, tolerance: float | None) -> int:
    if tolerance is None or found.within(tolerance):
        return 0
    if found.max_ulps > tolerance:
        note(f"the distance exceeds the tolerance: {found.max_ulps:g} ulps, {tolerance:g} allowed")
    if not found.is_complete:
        note("not every tensor was compared, which a tolerance asks for")
    return 1


def _watched(
    tensors: dict[str, Tensor], progress: Callable[[str, int, int], None] | None
) -> dict[str, Tensor]:
    from lowprec.tensors.sources import watched_together

    return tensors if progress is None else watched_together(tensors, "comparing", progress)
