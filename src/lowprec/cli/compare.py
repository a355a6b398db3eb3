"""``lowprec compare``: what formats do to the tensors of files, however large."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from lowprec.blocks import BlockFormat
from lowprec.cli.arguments import (
    Add,
    add_formats,
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
    from collections.abc import Callable, Mapping

    from rich.text import Text

    from lowprec.analysis.comparison import Comparison, LeftOut
    from lowprec.tensors import Tensor
    from lowprec.tensors.planning import FormatPlan

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
    add_names(compare, "measure")
    compare.add_argument(
        "--tolerance",
        metavar="T",
        type=checked(nonnegative),
        help="the largest relative error that counts as holding (default: 0.01, or one rounding)",
    )
    compare.add_argument(
        "--axis",
        metavar="N",
        type=int,
        default=-1,
        help="of block formats: the axis along which elements share a scale (default: the last)",
    )
    compare.add_argument(
        "--bits",
        metavar="B",
        type=checked(nonnegative),
        help="choose for each tensor the cheapest of the formats that holds it, with at most B "
        "bits a value on average",
    )
    compare.add_argument(
        "--plan", metavar="FILE", help="with --bits: write the choice, for lowprec convert --plan"
    )
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
    from lowprec.tensors.planning import PLAN

    if (options.plan or options.bits is not None) and not (options.files and options.bits):
        options.command.error("--plan and --bits go together, and are for files")
    figures, page = Output(options.json, JSON, "--json"), Output(options.html, PAGE, "--html")
    planned = Output(options.plan, PLAN, "--plan")
    outputs = [output for output in (figures, page, planned) if output.path]
    check_outputs(outputs, input_files(options.files), overwrite=options.overwrite)
    blocks = [fmt for fmt in options.formats if isinstance(fmt, BlockFormat)]
    if options.scheduler is not None and blocks:
        options.command.error(
            f"--scheduler measures tensors in parts, and blocks of {blocks[0]} may lie in two of "
            "them; leave --scheduler away"
        )
    with transfer_progress() as progress:
        comparison, plan = _comparison(options, progress)
    if options.json:
        more = {} if plan is None else {"plan": plan.to_dict()}
        text = json.dumps(comparison.to_dict() | more, indent=2) + "\n"
        write_output(figures, text, overwrite=options.overwrite)
    if options.html:
        write_output(page, comparison.to_html(), overwrite=options.overwrite)
    if options.plan and plan is not None:
        text = json.dumps(plan.to_dict(), indent=2) + "\n"
        write_output(planned, text, overwrite=options.overwrite)
    show(comparison)
    if plan is not None:
        show(_planned_words(plan))
    if len(comparison.measurements) == 1:  # the table of several ends with them
        show(cures_view(comparison.measurements, options.tolerance))
    tell_written(options.json, options.html, options.plan)


def _comparison(
    options: argparse.Namespace, progress: Callable[[str, int, int], None] | None
) -> tuple[Comparison, FormatPlan | None]:
    from lowprec import analysis
    from lowprec.report.datasets import load
    from lowprec.tensors.naming import name_tensors
    from lowprec.tensors.sources import watched_together

    if not options.files:
        how = {"tolerance": options.tolerance, "axis": options.axis}
        return analysis.compare(_chosen(load(), options)[0], options.formats, **how), None
    tensors = name_tensors(options.files, raw_of(options))
    chosen, excluded = _chosen(tensors, options)
    left = {**tensors.left_out, **excluded}
    if options.scheduler is not None:
        compared = _compare_remotely(chosen, options, progress)
    else:
        shown = watched_together(chosen, "comparing", progress) if progress else chosen
        compared = analysis.compare(shown, options.formats, axis=options.axis)
    compared = dataclasses.replace(compared, left_out=left, tolerance=options.tolerance)
    if options.bits is None:
        return compared, None
    from lowprec.tensors.planning import plan_formats

    return compared, plan_formats(compared.measurements, chosen, options.bits, options.tolerance)


def _chosen(
    tensors: Mapping[str, Any], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, LeftOut]]:
    """Return the tensors whose names are asked for, and the others."""
    from lowprec.analysis.comparison import LeftOut
    from lowprec.tensors.selection import selected_names

    include = tuple(options.include or ["*"])
    names = set(selected_names(list(tensors), include, tuple(options.exclude)))
    others = {
        name: LeftOut(tensor.nbytes, "not asked for")
        for name, tensor in tensors.items()
        if name not in names
    }
    return {name: tensor for name, tensor in tensors.items() if name in names}, others


def _planned_words(plan: FormatPlan) -> Text:
    """Return which formats a plan takes, and what they do not hold."""
    from collections import Counter

    from rich.text import Text

    counts = Counter(str(fmt) for fmt in plan.formats.values())
    words = ", ".join(f"{fmt} for {count:,}" for fmt, count in counts.most_common())
    text = f"\nPlan: {plan.bits:.4g} bits a value of {plan.budget:g} allowed: {words or 'none'}"
    if plan.not_held:
        names = ", ".join(plan.not_held[:5])
        more = f" and {len(plan.not_held) - 5:,} more" if len(plan.not_held) > 5 else ""
        text += f"\nNot held by the format that the budget allows: {names}{more}"
    return Text(text)


def _compare_remotely(
    tensors: dict[str, Tensor],
    options: argparse.Namespace,
    progress: Callable[[str, int, int], None] | None,
) -> Comparison:
    from lowprec.analysis.comparison import Comparison
    from lowprec.tensors.remote import measure_remotely

    measured = measure_remotely(tensors, options.formats, options.scheduler, progress=progress)
    names = [str(fmt) for fmt in options.formats]
    rows = {key: dict(zip(names, row, strict=True)) for key, row in measured.items()}
    return Comparison(rows)
