"""Beyond one machine: a cluster of processes gives the figures of one, also when workers die."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp
from lowprec import train
from lowprec.cli import main
from lowprec.tensors import as_tensor, cluster, converting, open_tensors, remote, write_tensors
from lowprec.tensors.request import ConversionRequest
from lowprec.train.studies import runs

da = pytest.importorskip("dask.array", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # of worker processes that die on purpose

LIMIT = 600  # seconds; a busy machine compiles for minutes, and what takes longer hangs


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Let a scheduler that is there answer late."""
    monkeypatch.setattr(cluster, "PATIENCE", LIMIT)


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, timeout=LIMIT) as client,
    ):
        yield client
    gc.collect()  # what a cluster leaves behind may warn here, but not in another file's test


def at_rest(client):
    """Wait until no worker computes: one that has begun goes on after an error or a command."""
    deadline = time.monotonic() + LIMIT
    while any(client.run(is_computing, on_error="ignore").values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_computing(dask_worker):
    return bool(dask_worker.state.executing or dask_worker.state.ready)


def slowly(chunk, seconds):
    time.sleep(seconds)
    return chunk


def test_a_worker_that_is_killed_changes_no_bits(client):
    x = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)
    how = {"rounding": "stochastic", "rng": 7}
    lazy = da.from_array(x, chunks=(4, 1024)).map_blocks(slowly, 0.05, dtype=x.dtype)
    future = client.compute(lp.encode(lazy, "bfloat16", **how))
    deadline = time.monotonic() + LIMIT
    while not any(client.who_has().values()):  # some chunks are done, and will be lost
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    result = future.result(timeout=LIMIT)
    assert result.tobytes() == lp.encode(x, "bfloat16", **how).tobytes()
    alive = client.run(os.getpid, on_error="ignore")  # the scheduler may not know of its death yet
    assert victim not in alive.values()


# Files ---------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write tensors of every kind of place in a file; name the files from within their folder."""
    rng = np.random.default_rng(0)
    tensors = {
        "large": rng.standard_normal((300, 1000)).astype(np.float32),
        "narrow": lp.cast(rng.standard_normal(200_000), "bfloat16"),
        "pairs": lp.cast(rng.standard_normal((10, 10)), "float4_e2m1fn"),
        "coded": lp.round_to(rng.standard_normal(7), "tfloat32"),
        "empty": np.zeros((0, 3), np.float32),
    }
    write_tensors(tmp_path / "model.safetensors", tensors)
    np.savez(tmp_path / "grads.npz", g=rng.standard_normal(50), f=np.ones((5, 6), order="F"))
    np.save(tmp_path / "columns.npy", np.asfortranarray(rng.standard_normal((50, 60))))
    quantized = Path(__file__).parent / "data" / "quantized"
    for name in ("nvfp4", "gpt_oss", "bnb_nf4_nested"):
        shutil.copy(quantized / f"{name}.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ["model.safetensors", "grads.npz", "columns.npy"]
    return [*names, *(f"{name}.safetensors" for name in ("nvfp4", "gpt_oss", "bnb_nf4_nested"))]


def test_a_cluster_writes_the_figures_of_one_machine(client, files, tmp_path):
    address = client.scheduler.address
    assert main(["compare", *files, "--json", "here.json"]) == 0
    assert main(["compare", *files, "--json", "there.json", "--scheduler", address]) == 0
    here, there = (
        json.loads((tmp_path / name).read_text()) for name in ("here.json", "there.json")
    )
    assert list(here.items()) == list(there.items())


def test_a_tensor_that_is_cut_has_the_figures_of_the_whole(client, files):
    tensors = {**open_tensors(files[0]), "in memory": as_tensor("x", np.arange(5.0))}
    told = []
    formats = [lp.get_format(name) for name in ("float16", "float8_e4m3fn")]
    found = remote.measure_remotely(
        tensors,
        formats,
        client.scheduler.address,
        part_bytes=100_003,
        progress=lambda what, done, total: told.append((done, total)),
    )
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    assert len(told) > 12
    assert told == sorted(told)
    assert told[-1] == (nbytes, nbytes)
    for name, tensor in tensors.items():
        for fmt, cut in zip(formats, found[name], strict=True):
            whole = lp.measure(tensor, fmt)
            for field in ("signal", "noise", "relative_error_sum"):
                ours, theirs = float(getattr(cut, field)), float(getattr(whole, field))
                assert math.isclose(ours, theirs, rel_tol=1e-12)
                cut = dataclasses.replace(cut, **{field: getattr(whole, field)})
            assert cut == whole


@pytest.mark.parametrize("name", ["model.safetensors", "grads.npz"])
def test_a_file_that_changed_or_went_is_refused_by_the_workers(client, files, name):
    tensors = dict(open_tensors(name))
    formats = [lp.get_format("float16")]
    parts = list(remote.bundled(remote.divide(tensors, 1 << 20)[0], 1 << 20))

    def result():
        return client.submit(remote.measure_parts, parts[0], formats, pure=False).result()

    assert result()
    os.utime(name, ns=(0, 0))
    with pytest.raises(ValueError, match=rf"{name} has changed since it was opened"):
        result()
    os.remove(name)
    with pytest.raises(
        FileNotFoundError, match=rf"worker on .* does not see .*{name}; .* same path"
    ):
        result()


# Converting ----------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Write shards; name them from within their folder, where no worker is."""
    rng = np.random.default_rng(1)
    for i in range(4):
        weights = {f"w{i}": rng.standard_normal((300, 50)).astype(np.float32), f"n{i}": [i]}
        write_tensors(tmp_path / f"part-{i}.safetensors", weights)
    monkeypatch.chdir(tmp_path)
    return [f"part-{i}.safetensors" for i in range(4)]


HOW = ["--to", "float8_e4m3fn", "--scale", "--rounding", "stochastic", "--rng", "3"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cluster_writes_quantized_layouts(client, shards, tmp_path):
    there = ["--scheduler", client.scheduler.address]
    assert main(["convert", *shards, "--to", "fp8_128x128", "-o", "here"]) == 0
    assert main(["convert", *shards, "--to", "fp8_128x128", "-o", "there", *there]) == 0
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert "config.json" in contents(tmp_path / "there")
    assert main(["convert", "here", "--to", "bfloat16", "-o", "back", *there]) == 0
    assert open_tensors("back")["w0"].dtype == lp.bfloat16.dtype


def test_a_cluster_writes_the_files_of_one_machine(client, shards, tmp_path, capsys):
    there = ["--scheduler", client.scheduler.address]
    assert main(["convert", *shards, *HOW, "-o", "here"]) == 0
    said = capsys.readouterr().out
    assert main(["convert", *shards, *HOW, "-o", "there", *there]) == 0
    assert capsys.readouterr().out == said
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert main(["convert", *shards, *HOW, "-o", "there", *there]) == 1
    assert "it exists; give another name, or replace it with" in capsys.readouterr().err
    assert main(["convert", shards[0], *HOW, "-o", "one.safetensors", *there]) == 0
    assert (tmp_path / "one.safetensors").read_bytes() == contents(tmp_path / "here")[shards[0]]


def test_what_this_machine_lacks_is_not_laid_on_the_cluster(client, tmp_path, monkeypatch, capsys):
    (tmp_path / "x.pt").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    what = ["convert", str(tmp_path / "x.pt"), "--to", "bfloat16", "-o", str(tmp_path / "y.npz")]
    assert main(what) == 1
    here = capsys.readouterr().err
    assert "torch" in here
    assert main([*what, "--scheduler", client.scheduler.address]) == 1
    assert capsys.readouterr().err == here


def test_a_conversion_that_failed_on_a_cluster_goes_on(client, shards, tmp_path, capsys):
    good = (tmp_path / shards[2]).read_bytes()
    write_tensors(tmp_path / shards[2], {"w2": [np.nan]}, overwrite=True)
    what = ["convert", *shards, "--to", "float4_e2m1fn", "-o"]
    there = ["--scheduler", client.scheduler.address]
    assert main([*what, "there", *there]) == 1
    err = capsys.readouterr().err
    assert "1 of 1 elements of 'w2' are NaN" in err
    assert err.count("\n") == 1
    assert ".lowprec-convert.json" in os.listdir(tmp_path / "there")
    at_rest(client)  # a worker may still be writing another shard, and lock it
    (tmp_path / shards[2]).write_bytes(good)
    assert main([*what, "there", *there]) == 0
    assert main([*what, "here"]) == 0
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_worker_that_dies_while_it_converts_changes_no_file(
    client, shards, tmp_path, monkeypatch
):
    assert main(["convert", *shards, *HOW, "-o", "here"]) == 0
    monkeypatch.setattr(converting, "convert_file", convert_at_the_second_try)
    there = ["--scheduler", client.scheduler.address]
    assert main(["convert", *shards, *HOW, "-o", "there", *there]) == 0
    assert (tmp_path / "died").exists()
    at_rest(client)  # what was done by the worker that died may be done again, for nobody
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def convert_at_the_second_try(how, model, path, target, overwrite):
    """Convert a file; the first worker that is asked for the third one leaves half of it."""
    marker = path.with_name("died")
    if path.name == "part-2.safetensors" and not marker.exists():
        marker.touch()
        target.with_name(f".{target.name}.partial").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    converting.convert_file(how, model, path, target, overwrite)


def test_a_worker_that_does_not_see_a_file_says_so(tmp_path):
    how = ConversionRequest(lp.bfloat16, (), np.random.SeedSequence(0), False, ("*",), ())
    none = tmp_path / "none.npz"
    with pytest.raises(FileNotFoundError, match=r"the worker on .* does not see .*none\.npz"):
        converting.convert_file(how, [none], none, tmp_path / "out.npz", False)


# Clusters that are not there -----------------------------------------------------------------


def test_a_cluster_that_is_not_there_is_told_in_one_line(files, capsys, monkeypatch):
    def message(address):
        assert main(["compare", "columns.npy", "--scheduler", address]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    assert "'nowhere' is not the address of a scheduler, such as tcp://" in message("nowhere")
    with (
        monkeypatch.context() as patch,
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
    ):
        wait = distributed.Client.wait_for_workers
        patch.setattr(
            distributed.Client, "wait_for_workers", lambda self, n, timeout: wait(self, n, 0.5)
        )
        assert "has no workers; `dask worker tcp://" in message(empty.scheduler_address)
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    assert "no scheduler answers at tcp://127.0.0.1:1 within 0.5" in message("tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "python -m pip install 'lowprec[dask]'" in message("tcp://127.0.0.1:1")


def test_a_cluster_without_files_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--scheduler", "tcp://127.0.0.1:1"])
    assert stop.value.code == 2
    assert "--scheduler is for files" in capsys.readouterr().err


# Training ------------------------------------------------------------------------------------


def test_runs_on_a_cluster_are_those_of_one_process(client):
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    digits = train.data.digits()
    model = train.Sequential([train.Input((64,)), train.Dense(16, "relu"), train.Dense(10)])
    what = {"policies": ["float32", "bfloat16_stochastic"], "seeds": 2, "epochs": 1}
    alone = train.compare_policies(model, digits, **what)
    together = train.compare_policies(model, digits, executor=client.get_executor(), **what)
    for ours, theirs in zip(alone.results, together.results, strict=True):
        for run, other in zip(ours.runs, theirs.runs, strict=True):
            assert run == dataclasses.replace(other, seconds=run.seconds)


def test_a_search_on_a_cluster_is_that_of_one_process(client):
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    model = train.Sequential([train.Input((64,)), train.Dense(10)])
    what = {"policies": ["float32", "mixed_float16"], "trials": 4, "epochs": 1}
    alone = train.search(model, train.data.digits(), **what)
    there = train.search(model, train.data.digits(), executor=client.get_executor(), **what)
    for ours, theirs in zip(alone.trials, there.trials, strict=True):
        run = dataclasses.replace(theirs.run, seconds=ours.run.seconds)
        assert ours == dataclasses.replace(theirs, run=run)


def test_a_diagnosis_on_the_cluster_is_that_of_one_machine(client):
    """What workers are sent is pickled, and so is what they give, recorders too."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4)).astype(np.float32)
    data = train.Dataset(x, x[:, :1] - x[:, 1:2], x[:16], x[:16, :1])
    model = train.Sequential([train.Input((4,)), train.Dense(6, "tanh"), train.Dense(1)])
    how = {"loss": "mse", "optimizer": train.SGD(2e-3), "epochs": 40, "budget": None}
    how |= {"policy": "params=bfloat16,compute=bfloat16,gradients=float32,state=float32"}
    here = train.diagnose(model, data, **how)
    there = train.diagnose(model, data, executor=client.get_executor(), **how)
    assert there.to_dict() == here.to_dict()
    assert there.cause == "params"
    assert there.recorder.step_losses == here.recorder.step_losses


SMALL = ["train", "--data", "iris", "--hidden", "8", "--epochs", "2", "--batch-size", "30"]


def without_times(path):
    """Return a comparison's figures but for the seconds, which nothing repeats."""
    found = json.loads(path.read_text())
    for policy in found["policies"]:
        del policy["seconds_per_epoch"]
        for one in policy["runs"]:
            del one["seconds"]
    return found


def test_the_command_trains_on_a_cluster_what_it_trains_here(client, tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="the flowers are scikit-learn's")
    monkeypatch.chdir(tmp_path)  # the workers stay where they were
    what = [*SMALL, "--policies", "mixed_float16,bfloat16_stochastic", "--seeds", "2"]
    there = ["--scheduler", client.scheduler.address]
    assert main([*what, "--json", "here.json", "--save", "here"]) == 0
    assert main([*what, "--json", "there.json", "--save", "there", *there]) == 0
    assert capsys.readouterr().err == ""
    assert without_times(tmp_path / "here.json") == without_times(tmp_path / "there.json")
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert len(names) == 6
    for name in names:
        ours, theirs = (
            train.History.load(tmp_path / folder / name) for folder in ("here", "there")
        )
        assert ours.history == theirs.history
        assert all(w.tobytes() == theirs.params[key].tobytes() for key, w in ours.params.items())


def test_training_where_there_is_no_cluster_is_told_in_one_line(capsys, monkeypatch):
    pytest.importorskip("sklearn", reason="the flowers are scikit-learn's")
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    assert main([*SMALL, "--scheduler", "tcp://127.0.0.1:1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lowprec: no scheduler answers at tcp://127.0.0.1:1")
    assert err.count("\n") == 1


def test_a_folder_that_workers_do_not_see_is_refused_before_they_train(client, tmp_path):
    cluster.check_folder(client, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"worker at tcp://.* does not see the folder"):
        cluster.check_folder(client, tmp_path / "elsewhere")


def die_once(task):
    """Do a run; but take along into death the first worker that is asked for the last one."""
    marker = task.file.with_name("died")
    if task.seed == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return runs.train(task)


def test_a_worker_that_dies_while_it_trains_changes_no_figure(client, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="the flowers are scikit-learn's")
    monkeypatch.chdir(tmp_path)
    what = [*SMALL, "--policies", "bfloat16", "--seeds", "3"]
    assert main([*what, "--json", "here.json"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("lowprec.train.studies.comparison.runs.train", die_once)
        there = ["--save", "runs", "--scheduler", client.scheduler.address]
        assert main([*what, "--json", "there.json", *there]) == 0
    assert (tmp_path / "runs" / "died").exists()
    assert without_times(tmp_path / "here.json") == without_times(tmp_path / "there.json")


def give_up(task):
    raise RuntimeError("this worker\ndoes not know that")


def test_training_that_a_cluster_gives_up_is_told_in_one_line(client, capsys, monkeypatch):
    pytest.importorskip("sklearn", reason="the flowers are scikit-learn's")
    monkeypatch.setattr("lowprec.train.studies.runs.train", give_up)
    assert main([*SMALL, "--scheduler", client.scheduler.address]) == 1
    err = capsys.readouterr().err
    assert "the cluster gave up: this worker does not know that; do scheduler and" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes", "2"], "--processes is for this machine, --scheduler for a cluster"),
        (["--policies", "float32", "--seeds", "1"], "--scheduler divides several runs"),
    ],
)
def test_a_cluster_for_what_it_cannot_divide_is_wrong_usage(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*SMALL, *arguments, "--scheduler", "tcp://127.0.0.1:1"])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
