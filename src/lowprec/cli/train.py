"""``lowprec train``: a network trained under one policy, or under several to compare them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.cli.executors import executor_for
from lowprec.cli.terminal import progress, say, show, tell_written
from lowprec.cli.train_arguments import POLICIES, SEEDS, add_arguments, read_policies, read_seeds

if TYPE_CHECKING:
    import argparse

    from rich.progress import ProgressColumn

    from lowprec.cli.arguments import Add
    from lowprec.train import Dataset, History, Optimizer, Policy, Sequential
    from lowprec.train.studies.policy_comparison import PolicyComparison

_EXPERIMENTS = 12  # of a diagnosis, about: what its bar begins with

PLACE = 7  #: among the commands


def register(add: Add) -> None:
    """Add the command."""
    train = add(
        "train",
        _train,
        "train a small network under one precision policy, or several to compare them",
        "lowprec train --policies mixed_float16 --seeds 1        # watch one\n"
        "         lowprec train --data wine --seeds 10 --html wine.html   # compare\n"
        "         lowprec train --policies bfloat16 --learning-rate 1e-4  # lost updates\n"
        "         lowprec train --seeds 20 --scheduler tcp://127.0.0.1:8786",
    )
    add_arguments(train)


# What is trained ---------------------------------------------------------------------------------


def _data(options: argparse.Namespace) -> Dataset:
    from lowprec.train import data

    found = data.get(options.data)
    how = options.scale_features
    if how == "auto":
        how = "minmax" if len(found.input_shape) > 1 else "standard"
        how = "none" if options.data == "digits" else how
    if how != "none":
        found = found.scaled(how)
    if not found.is_classification and options.scale_targets != "none":
        found = _with_scaled_targets(found)
    return found


def _with_scaled_targets(data: Dataset) -> Dataset:
    """Return data whose targets have mean 0 and standard deviation 1 in the training set."""
    mean, sd = data.y_train.mean(axis=0), data.y_train.std(axis=0)
    sd = np.where(sd > 0, sd, 1)
    return dataclasses.replace(
        data, y_train=(data.y_train - mean) / sd, y_test=(data.y_test - mean) / sd
    )


def _model(data: Dataset, options: argparse.Namespace) -> Sequential:
    from lowprec import train

    layers: list[Any] = [train.Input(data.input_shape)]
    layers += [train.Flatten()] if len(data.input_shape) > 1 else []
    layers += [train.Dense(units, activation=options.activation) for units in options.hidden]
    return train.Sequential([*layers, train.Dense(data.outputs)])


def _optimizer(options: argparse.Namespace) -> Optimizer:
    from lowprec.train import optimizers

    found = optimizers.get(options.optimizer)
    if options.learning_rate is None:
        return found
    if not options.learning_rate > 0:
        options.command.error(f"--learning-rate {options.learning_rate:g}: it must be positive")
    return dataclasses.replace(found, learning_rate=options.learning_rate)


def _train(options: argparse.Namespace) -> None:
    goes_on = options.resume is not None
    options.seeds = options.seeds or read_seeds("1" if goes_on or options.diagnose else SEEDS)
    options.policies = options.policies or ([] if goes_on else read_policies(POLICIES))
    is_one = max(1, len(options.policies)) == len(options.seeds) == 1
    if options.diagnose:
        _check_diagnosis(options, is_one)
    single = is_one and not options.html
    one = ": give one --policies, --seeds 1 and no --html, which compares"
    if options.record is not None and not single:
        options.command.error(f"--record watches one run{one}")
    if goes_on and not single:
        options.command.error(f"--resume goes on with one run{one}")
    if options.scheduler is not None and single:
        options.command.error("--scheduler divides several runs: give more --policies or --seeds")
    if options.scheduler is not None and options.processes != 1:
        options.command.error("--processes is for this machine, --scheduler for a cluster")
    _check_outputs(options, single)
    if goes_on:
        options.resume = _saved_run(options)
    data = _data(options)
    do = _diagnose if options.diagnose else _train_one if single else _compare
    do(_model(data, options), data, options)


def _check_diagnosis(options: argparse.Namespace, is_one: bool) -> None:
    """Refuse options that a diagnosis does not take."""
    if not is_one:
        options.command.error("--diagnose looks into one run: give one --policies and --seeds 1")
    for word in ("record", "resume", "save"):
        if getattr(options, word) is not None:
            options.command.error(f"--diagnose trains anew, many times: leave out --{word}")
    if options.budget < 0:
        options.command.error(f"--budget {options.budget:g}: seconds are 0 or more")


def _diagnose(model: Sequential, data: Dataset, options: argparse.Namespace) -> None:
    from lowprec import train
    from lowprec.common.whole_files import write_atomically
    from lowprec.show.pages import page_environment
    from lowprec.train.studies.runs import default_loss

    if options.html:
        page_environment("lowprec.train.recorder")  # what is missing is known before the work
    bar = progress(_columns, begin="training")
    with executor_for(options) as executor, bar as show_progress:

        def tell(what: str, done: int) -> None:
            if show_progress is not None:
                show_progress(what, done, max(done + 1, _EXPERIMENTS))

        found = train.diagnose(
            model,
            data,
            loss=options.loss or default_loss(model, data),
            optimizer=_optimizer(options),
            policy=options.policies[0],
            epochs=options.epochs,
            batch_size=options.batch_size,
            validation_split=options.validation_split,
            rng=options.seeds[0],
            budget=options.budget or None,
            executor=executor,
            progress=tell,
        )
    if options.json:
        write_atomically(options.json, json.dumps(found.to_dict(), indent=2) + "\n")
    if options.html:
        found.report(options.html)
    for line in str(found).splitlines():
        say(line, "  ")
    tell_written(options.json, options.html)


def _check_outputs(options: argparse.Namespace, single: bool) -> None:
    """Raise, before any work is done, unless every file that was asked for may be written."""
    from lowprec.common.outputs import Output, check_outputs
    from lowprec.train.recorder.page import PAGE as RECORD
    from lowprec.train.running.history import SAVED
    from lowprec.train.studies.comparison import run_file
    from lowprec.train.studies.page import JSON, PAGE
    from lowprec.train.studies.results import BASELINE

    outputs = [
        Output(path, kind, option)
        for path, kind, option in (
            (options.json, JSON, "--json"),
            (options.html, PAGE, "--html"),
            (options.record, RECORD, "--record"),
        )
        if path
    ]
    inputs = [path for path in (options.data, options.resume) if path and Path(path).exists()]
    check_outputs(outputs, inputs, overwrite=options.overwrite)
    if not options.save:
        return
    if single:  # --resume F --save F name one training
        inputs = [path for path in inputs if path != options.resume or path == options.data]
        saved = [Output(options.save, SAVED, "--save")]
    else:
        folder = Path(options.save)
        if not folder.is_dir():  # one is made when all else is known to be right
            _check_new_folder(folder)
            return
        policies = {BASELINE, *options.policies}
        saved = [
            Output(run_file(folder, policy, seed), SAVED, "--save")
            for policy in policies
            for seed in options.seeds
        ]
    check_outputs([*outputs, *saved], inputs, overwrite=options.overwrite)


def _check_new_folder(folder: Path) -> None:
    if folder.exists():
        raise NotADirectoryError(
            errno.ENOTDIR, "several runs are saved in a folder, and this is a file", str(folder)
        )
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder.absolute().parent))


def _saved_run(options: argparse.Namespace) -> History:
    """Return the run to go on with, and take its policy where none was given."""
    from lowprec.train import History

    saved = History.load(options.resume)
    if not {"policy", "formats", "seed"} <= set(saved.facts):
        raise ValueError(
            f"{options.resume} does not tell policy and seed, as what `train.fit` returned does; "
            "resume what --save wrote"
        )
    if not options.policies:
        options.policies = [_policy_of(saved, options.resume)]
    policy = options.policies[0]
    if _formats_of(policy) != saved.facts["formats"]:
        options.command.error(
            f"--policies {policy}, but {options.resume} was trained in {saved.facts['policy']}: "
            "leave out --policies"
        )
    return saved


def _policy_of(saved: History, path: str) -> Policy:
    """Return the policy of a saved run, under its name where that is known here."""
    from lowprec.train import get_policy

    for spelling in (saved.facts["policy"], saved.facts["formats"]):
        with contextlib.suppress(ValueError):
            policy = get_policy(spelling)
            if _formats_of(policy) == saved.facts["formats"]:
                return policy
    raise ValueError(
        f"{path} was trained in {saved.facts['policy']}, which --policies cannot spell; go on in "
        f"Python with train.fit(..., resume={path!r})"
    )


def _formats_of(policy: Policy) -> str:
    return str(dataclasses.replace(policy, name=""))


# One run -----------------------------------------------------------------------------------------


def _train_one(model: Sequential, data: Dataset, options: argparse.Namespace) -> None:
    from lowprec import train
    from lowprec.cli.recording import recorder_for, write_record
    from lowprec.show.pages import page_environment
    from lowprec.train.studies.runs import default_loss

    fit = functools.partial(
        train.fit,
        model,
        data,
        loss=options.loss or default_loss(model, data),
        optimizer=_optimizer(options),
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_split=options.validation_split,
        rng=options.seeds[0],
    )
    policy, recorder = options.policies[0], None
    if options.record:
        page_environment("lowprec.train.recorder")  # what is missing is known before the work
    if options.record is not None:
        steps = options.epochs * math.ceil(len(data.x_train) / options.batch_size)
        recorder = recorder_for(policy, steps, fit)
    history = fit(
        policy=policy,
        callbacks=[train.Checkpoint(options.save, overwrite=options.overwrite)]
        if options.save
        else [],
        recorder=recorder,
        resume=options.resume,
        verbose=True,
    )
    if options.json:
        _write_json(options, _as_dict(history))
    say(_summary(history, options))
    if recorder is not None:
        write_record(recorder, options.record, overwrite=options.overwrite)
    tell_written(options.json, options.save, options.record)


def _as_dict(history: History) -> dict[str, Any]:
    from lowprec.train.running.json_values import as_json

    parts = ("facts", "history", "skipped_steps", "skip_reasons", "loss_scales")
    return {name: as_json(getattr(history, name)) for name in parts}


def _summary(history: History, options: argparse.Namespace) -> str:
    from lowprec.train.memory import bytes_per_parameter
    from lowprec.train.studies.runs import main_metric

    policy = options.policies[0]
    metric = main_metric(history.history)
    words = (
        f"{policy}: {metric} {history.history[metric][-1]:.4f} after {len(history.epoch)} epochs"
    )
    if policy.loss_scale is not None:
        words += f", {len(history.skipped_steps)} of {len(history.loss_scales)} steps skipped"
        words += f", loss scale {history.loss_scales[-1]:g}"
    memory = bytes_per_parameter(policy, _optimizer(options))
    return f"{words}; {memory} bytes a parameter (stored + state + copy)"


# Several runs ------------------------------------------------------------------------------------


def _compare(model: Sequential, data: Dataset, options: argparse.Namespace) -> None:
    from lowprec.show.pages import page_environment
    from lowprec.train.studies.comparison import compare_policies

    if options.html:
        page_environment("lowprec.train.studies")  # what is missing is known before the work
    if options.save:
        Path(options.save).mkdir(exist_ok=True)
    bar = progress(_columns, begin="training")
    with executor_for(options) as executor, bar as show_progress:
        comparison = compare_policies(
            model,
            data,
            options.policies,
            options.seeds,
            loss=options.loss,
            optimizer=_optimizer(options),
            epochs=options.epochs,
            batch_size=options.batch_size,
            validation_split=options.validation_split,
            executor=executor,
            folder=options.save,
            overwrite=options.overwrite,
            progress=show_progress,
        )
    _write(comparison, options)
    show(comparison)
    tell_written(options.json, options.html, options.save)


def _write(comparison: PolicyComparison, options: argparse.Namespace) -> None:
    from lowprec.common.outputs import Output, write_output
    from lowprec.train.studies.page import PAGE

    if options.json:
        _write_json(options, comparison.to_dict())
    if options.html:
        output = Output(options.html, PAGE, "--html")
        write_output(output, comparison.to_html(), overwrite=options.overwrite)


def _write_json(options: argparse.Namespace, content: dict[str, Any]) -> None:
    from lowprec.common.outputs import Output, write_output
    from lowprec.train.studies.page import JSON

    output = Output(options.json, JSON, "--json")
    write_output(output, json.dumps(content, indent=2) + "\n", overwrite=options.overwrite)


def _columns() -> list[ProgressColumn | str]:
    """Return what a bar shows of runs: how many are done, and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    return ["{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
