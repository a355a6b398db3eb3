"""``lowprec convert``: files of tensors, rounded to another format."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowprec.blocks.formats import BlockFormat, get_format
from lowprec.cli.arguments import Add, add_modes, add_names, add_raw, checked, raw_of
from lowprec.cli.terminal import note, show, transfer_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from rich.text import Text

    from lowprec.tensors import Conversion

PLACE = 5  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    convert = add(
        "convert",
        _convert,
        "convert the tensors of files to a format",
        "lowprec convert model.safetensors --to bfloat16 -o bf16.safetensors\n"
        '         lowprec convert "model-*.safetensors" --to float8_e5m2 --scale -o fp8/',
    )
    convert.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="files .npy, .npz, .safetensors, .pt; an index .safetensors.index.json, a quoted "
        "pattern of shards, or a folder",
    )
    convert.add_argument(
        "--to",
        metavar="F",
        type=checked(get_format),
        help="the format: a name, or eXmY; nvfp4, mxfp4, mxfp8_e4m3 and fp8_128x128 are written as "
        "vLLM and transformers read them",
    )
    convert.add_argument(
        "--plan",
        metavar="FILE",
        help="instead of --to: the format of each tensor, as lowprec compare --bits chose it",
    )
    convert.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write (.safetensors, .npz, .npy), or a folder for several",
    )
    add_modes(convert, "a rounding mode, as RZ or stochastic")
    convert.add_argument(
        "--rng",
        type=checked(_seed),
        metavar="N",
        help="seed of stochastic rounding, so that it can be repeated",
    )
    convert.add_argument(
        "--scale",
        action="store_true",
        help="multiply each tensor by the largest power of two that overflows nowhere, and note it",
    )
    add_names(convert, "convert")
    add_raw(convert)
    convert.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="a dask cluster whose workers convert the files, each one of them; they must see the "
        "files and the folder of results under the same paths as this machine",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise ValueError(f"a seed of {seed} is negative; use 0 or more")
    return seed


def _convert(options: argparse.Namespace) -> None:
    from lowprec.tensors.converting import convert
    from lowprec.tensors.opening import find_files, notes_on_folders, quantization_config

    if options.rng is not None and not options.rounding.is_stochastic:
        options.command.error(f"{options.rounding.value} draws no random bits; leave out --rng")
    if options.to is None and options.plan is None:
        options.command.error("the following arguments are required: --to (or --plan)")
    if options.to is not None and options.plan is not None:
        options.command.error("--to and --plan both say the formats; leave one away")
    from lowprec.tensors.planning import read_plan

    plan = None if options.plan is None else read_plan(Path(options.plan))
    files: Any = []
    for name in options.files:
        files += find_files(name)[0] if Path(name).is_dir() else [name]
    files = files[0] if files == options.files[:1] else files
    output = options.output
    if len(options.files) == 1 and Path(options.files[0]).is_dir() and not Path(output).suffix:
        output = f"{output}/"  # a model's folder becomes a folder
    for sentence in notes_on_folders(options.files):
        note(sentence)
    with _executor(options.scheduler) as executor, transfer_progress() as progress:
        done = convert(
            files,
            output,
            options.to,
            rounding=options.rounding,
            overflow=options.overflow,
            rng=options.rng,
            scale=options.scale,
            include=options.include or ["*"],
            exclude=options.exclude,
            overwrite=options.overwrite,
            executor=executor,
            progress=progress,
            raw=raw_of(options),
            plan=plan,
        )
    show(_words(done, "the formats of the plan" if plan else str(options.to)))
    if done.not_held:
        names = ", ".join(done.not_held[:3]) + (", …" if len(done.not_held) > 3 else "")
        note(
            f"{len(done.not_held):,} weights stay as they are, for the layout holds matrices of "
            f"whole blocks: {names}"
        )
    if any(isinstance(fmt, BlockFormat) for fmt in (plan or {"": options.to}).values()):
        folder = (done.files or done.skipped)[0].parent
        if done.converted and not quantization_config(folder):
            note(
                "no config.json tells vLLM and transformers of the packing: convert the model's "
                "folder into a folder of its own"
            )


@contextlib.contextmanager
def _executor(address: str | None) -> Iterator[Executor | None]:
    """Give the executor of the files; None converts them one after another in this process."""
    if address is None:
        yield None
        return
    from lowprec.tensors.cluster import connected, errors_in_words

    with connected(address) as client, errors_in_words():
        yield client.get_executor(pure=False)


def _words(done: Conversion, fmt: str) -> Text:
    """Return the counts and the files written, in a few lines."""
    from rich.text import Text

    converted = f"{done.converted:,} tensor{'s' if done.converted != 1 else ''}"
    lines = [f"{converted} converted to {fmt}, {done.unchanged:,} unchanged"]
    if done.skipped:
        lines.append(f"{len(done.skipped):,} files were complete from an earlier run")
    if done.files:
        names = done.files[0].name if len(done.files) == 1 else f"{len(done.files):,} files"
        lines.append(f"{done.bytes_read:,} bytes became {done.bytes_written:,}: wrote {names}")
    return Text("\n".join(lines))
