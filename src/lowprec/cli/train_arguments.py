"""The arguments of ``lowprec train``, and how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.cli.arguments import add_overwrite, checked

if TYPE_CHECKING:
    import argparse

    from lowprec.train import Policy

_DATA = "digits, breast_cancer, wine, iris, diabetes, linear, quadratic, linear_map"
POLICIES = "float32,mixed_bfloat16,mixed_float16,bfloat16"
SEEDS = "5"


def add_arguments(train: argparse.ArgumentParser) -> None:
    """Add the arguments for model, data, training and results."""
    _add_subject(train)
    _add_training(train)
    _add_outputs(train)


def _add_subject(train: argparse.ArgumentParser) -> None:
    """Add the arguments for model and data."""
    train.add_argument(
        "--data", metavar="NAME", default="digits", help=f"{_DATA}, or FILE.npz (default: digits)"
    )
    train.add_argument(
        "--policies",
        metavar="P,Q",
        type=checked(read_policies),
        help="names with commas between; own ones as compute=float16,gradients=bfloat16 with "
        f"semicolons between (default: {POLICIES})",
    )
    train.add_argument(
        "--seeds",
        metavar="N",
        type=checked(read_seeds),
        help=f"how many seeds, or which, as 3,7,8 (default: {SEEDS})",
    )
    train.add_argument(
        "--hidden",
        metavar="M,N",
        type=checked(_widths),
        default=[100, 100],
        help="units of the hidden layers; none for a linear model (default: 100,100)",
    )
    train.add_argument(
        "--activation",
        metavar="A",
        default="relu",
        help="of the hidden layers: relu, tanh, sigmoid, gelu, … (default: relu)",
    )
    train.add_argument(
        "--scale-features",
        choices=["auto", "none", "minmax", "standard"],
        default="auto",
        help="auto: digits stay as they are, images minmax, all others standard",
    )
    train.add_argument(
        "--scale-targets",
        choices=["auto", "none", "standard"],
        default="auto",
        help="for regression; auto: standard, so that errors are in standard deviations",
    )


def _add_training(train: argparse.ArgumentParser) -> None:
    """Add the arguments for the training."""
    for name, usual, meaning in (
        ("--epochs", 10, "how often to go through the training set"),
        ("--batch-size", 32, "samples a step"),
    ):
        text = f"{meaning} (default: {usual})"
        train.add_argument(name, metavar="N", type=checked(_count), default=usual, help=text)
    train.add_argument(
        "--optimizer",
        metavar="O",
        default="adam",
        help="sgd, momentum, rmsprop, adam, adamw, … (default: adam)",
    )
    train.add_argument(
        "--learning-rate",
        metavar="R",
        type=checked(float),
        help="of the optimizer (default: its own, 1e-3 for adam)",
    )
    train.add_argument(
        "--loss",
        metavar="L",
        help="mse, mae, huber, … (default: cross-entropy for labels, mse for other targets)",
    )
    train.add_argument(
        "--validation-split",
        metavar="S",
        type=checked(float),
        default=0.0,
        help="validate on this share of the training set (default: on the test set)",
    )


def _add_outputs(train: argparse.ArgumentParser) -> None:
    """Add the arguments for the files of results and for the number of runs at once."""
    train.add_argument("--html", metavar="FILE", help="also write charts and table as an HTML page")
    train.add_argument("--json", metavar="FILE", help="also write all figures as JSON")
    train.add_argument(
        "--save",
        metavar="PATH",
        help="one run: the file to save it to after each epoch; several: a folder for them",
    )
    add_overwrite(train)
    train.add_argument(
        "--resume",
        metavar="FILE",
        help="go on with one run that was saved, under its policy and with its seed",
    )
    train.add_argument(
        "--record",
        metavar="FILE.html",
        nargs="?",
        const="",
        help="one run: record what rounding does to every tensor and say why it failed; with a "
        "file also draw it there",
    )
    train.add_argument(
        "--diagnose",
        action="store_true",
        help="one policy: find by experiment which part, which layer and which cure; --html FILE "
        "also draws it",
    )
    train.add_argument(
        "--budget",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="of --diagnose; 0 makes every experiment (default: %(default)g)",
    )
    train.add_argument(
        "--processes",
        metavar="N",
        type=checked(_count),
        default=1,
        help="how many runs at once (default: %(default)s)",
    )
    train.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="a dask cluster whose workers do the runs; with --save they must see the folder under "
        "the same path as this machine",
    )


# Reading arguments -------------------------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def read_seeds(text: str) -> list[int]:
    """Read a number of seeds, counted from 0, or the seeds themselves."""
    return [int(one) for one in text.split(",")] if "," in text else list(range(_count(text)))


def _widths(text: str) -> list[int]:
    return [] if text in ("", "none") else [_count(width) for width in text.split(",")]


def read_policies(text: str) -> list[Policy]:
    """Read names with commas between; fields of an own policy belong together up to a semicolon."""
    from lowprec.train import get_policy

    spelled: list[str] = []
    for part in text.split(";"):
        own: list[str] = []
        for name in filter(None, map(str.strip, part.split(","))):
            if "=" in name:
                own.append(name)
            else:
                spelled.append(name)
        spelled += [",".join(own)] if own else []
    return [get_policy(name) for name in spelled]
