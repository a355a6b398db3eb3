"""Every remedy that an error prints is run: what is advised must work, word for word.

Each case is a mistake, a piece of the message, and the remedy as a user would type it. The remedy
is taken out of the message where it is code; a message that no longer prints it fails.
"""

import argparse
import gc
import itertools

import ml_dtypes
import numpy as np
import pytest

import lowprec as lp
from lowprec import tensors, train
from lowprec.arrays.direct import Work
from lowprec.cli import main

BF16_BYTES = np.array([0x3F80, 0x4000], "u2").view("V2")
WORDS = np.array(["cat", "dog", "cat"])
TEXT = np.array(["0.5", "2"])
COMPLEX = np.array([1 + 2j])
RECORDS = np.array([(1.0, 2.0)], [("a", "f4"), ("b", "f4")])
LOGITS = np.float32([[0, 0], [1, 1]])
MASKED = np.ma.array([1.0, 2.0], mask=[0, 1])
NAN = np.array([1.0, np.nan])
DATES = np.array(["2020-01-01"], "datetime64[D]")

# What is wrong, with the value as `x`; what the message must print; the remedy, with `x` again.
REMEDIES = {
    "labels": ("lp.round_to(x, 'bfloat16')", WORDS, "np.unique(x, return_inverse=True)[1]", None),
    "numbers as text": ("lp.round_to(x, 'bfloat16')", TEXT, "x.astype('float64')", None),
    "a list of text": ("lp.round_to(x, 'bfloat16')", ["0.5"], "np.array(x, 'float64')", None),
    "complex": ("lp.round_to(x, 'bfloat16')", COMPLEX, "x.real", None),
    "records": ("lp.round_to(x, 'bfloat16')", RECORDS, "x['name']", "x['a']"),
    "dates": ("lp.round_to(x, 'bfloat16')", DATES, "x.astype('int64')", None),
    "masked": ("lp.round_to(x, 'bfloat16')", MASKED, "x.filled(value)", "x.filled(0)"),
    "masked, without": ("lp.round_to(x, 'bfloat16')", MASKED, "x.compressed()", None),
    "h5py's bfloat16": (
        "lp.round_to(x, 'bfloat16')",
        BF16_BYTES,
        "lowprec.decode(x.view('u2'), 'bfloat16')",
        None,
    ),
    "codes as bytes": ("lp.decode(x, 'bfloat16')", BF16_BYTES, "x.view('u2')", None),
    "NaN": ("lp.round_to(x, 'float4_e2m1fn')", NAN, "numpy.nan_to_num", "np.nan_to_num(x)"),
    "a narrow source": (
        "lp.round_to(x, 'e11m20')",
        np.ones(3, "f4"),
        "pass x as float64",
        "x.astype('float64')",
    ),
    "long integers": (
        "lp.sum(x, 'float32')",
        np.array([2**62 + 1]),
        "x.astype('float64')",
        None,
    ),
}


@pytest.mark.parametrize("mistake", REMEDIES)
def test_the_remedy_of_an_error_works(mistake):
    code, x, printed, remedy = REMEDIES[mistake]
    names = {"lp": lp, "lowprec": lp, "np": np, "x": x}
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(code, names)
    assert printed in str(caught.value)
    if printed == "lowprec.compare":
        assert list(lp.compare(x).measurements) == ["w"]
        return
    again = eval(remedy or printed, names)
    if printed.startswith("lowprec.decode"):
        assert again.tolist() == [1, 2]
        return
    eval(code, names | {"x": again})


def remedy_in(error, begin):
    """Return the code in a message from `begin` to its closing parenthesis."""
    text = str(error.value)
    start = text.index(begin)
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if text[place] == ")" and depth == 0:
            return text[start : place + 1]
    raise AssertionError(f"no whole call in {text!r}")


CALLS = {
    "a policy's name": (
        "train.Policy('mixed_bfloat16')",
        "train.get_policy(",
        lambda policy: str(policy) == "mixed_bfloat16",
    ),
    "a decay that grows": (
        "train.schedules.Exponential(0.1, 10)",
        "Exponential(",
        lambda rate: rate(10) == 0.05,
    ),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_the_call_that_an_error_prints_works(mistake):
    code, begin, holds = CALLS[mistake]
    names = {"train": train, "lp": lp, "Exponential": train.schedules.Exponential}
    with pytest.raises(ValueError, match=r"use|write") as caught:
        eval(code, names)
    assert holds(eval(remedy_in(caught, begin), names))


def test_a_fit_that_needs_logits_says_how_to_get_probabilities():
    softmax = train.activations.get("softmax")
    assert softmax(LOGITS).tolist() == [[0.5, 0.5]] * 2
    assert train.activations.get("relu")([-1, 2]).tolist() == [0, 2]


# Tensors of other libraries ----------------------------------------------------------------------


def test_remedies_for_tensors_of_torch():
    torch = pytest.importorskip("torch")
    grad = torch.ones(3, requires_grad=True)
    sparse = torch.ones(3).to_sparse()
    for x, printed in ((grad, "x.detach()"), (sparse, "x.to_dense()"), (sparse, "x.values()")):
        with pytest.raises(TypeError) as caught:
            lp.round_to(x, "bfloat16")
        assert printed in str(caught.value)
        source = x.coalesce() if printed == "x.values()" else x
        assert lp.round_to(eval(printed, {"x": source}), "bfloat16").tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="meta device, where it has a shape and no numbers"):
        lp.round_to(torch.ones(3, device="meta"), "bfloat16")
    codes = torch.tensor([-1.5, 2.0], dtype=torch.bfloat16).view(torch.int16)
    assert lp.decode(codes, "bfloat16").tolist() == [-1.5, 2]
    with pytest.raises(ValueError, match="codes run from"):
        lp.decode(codes.to(torch.int32), "bfloat16")
    generator = torch.Generator().manual_seed(7)
    with pytest.raises(TypeError, match=r"generator\.initial_seed\(\) is an int"):
        lp.round_to(0.1, "bfloat16", rounding="SR", rng=generator)
    lp.round_to(0.1, "bfloat16", rounding="SR", rng=generator.initial_seed())


def test_remedies_for_objects_of_jax():
    jax = pytest.importorskip("jax")
    assert lp.get_format(jax.numpy.bfloat16) is lp.bfloat16
    assert lp.round_to(0.1, jax.numpy.float8_e4m3fn) == lp.round_to(0.1, "float8_e4m3fn")
    key = jax.random.key(0)
    with pytest.raises(TypeError, match=r"jax\.random\.key_data\(x\)") as caught:
        lp.round_to(key, "bfloat16")
    assert "lowprec.jax" in str(caught.value)
    lp.round_to(jax.random.key_data(key), "bfloat16")
    for rng in (key, jax.random.PRNGKey(0)):
        with pytest.raises(TypeError, match=r"int\(jax\.random\.bits\(key\)\)") as caught:
            lp.round_to(0.1, "bfloat16", rounding="SR", rng=rng)
        assert "lowprec.jax" in str(caught.value)
        lp.round_to(0.1, "bfloat16", rounding="SR", rng=int(jax.random.bits(rng)))
    for transform in (jax.jit, jax.vmap):
        with pytest.raises(TypeError, match=r"traced by JAX.*use lowprec\.jax"):
            transform(lambda v: lp.round_to(v, "bfloat16"))(jax.numpy.ones(3))


def test_remedies_for_sparse_matrices():
    sparse = pytest.importorskip("scipy.sparse")
    x = sparse.eye(3)
    for remedy in ("x.toarray()", "x.data"):
        with pytest.raises(TypeError) as caught:
            lp.round_to(x, "bfloat16")
        assert remedy in str(caught.value)
        lp.round_to(eval(remedy), "bfloat16")


def test_the_columns_of_a_data_frame_are_compared_one_by_one():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], 7: [1e-9, 3e-5]})
    found = lp.compare(frame, "float16").measurements
    assert list(found) == ["a", "7"]
    assert found["7"]["float16"].new_zeros == 1
    with pytest.raises(ValueError, match="two columns are called 'a'; give them different names"):
        lp.compare(pandas.DataFrame([[1.0, 2.0]], columns=["a", "a"]))


# Arguments that cannot be kept -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [["bfloat16"], {}, {"bfloat16"}], ids=repr)
def test_a_list_is_no_format_and_no_mode(wrong):
    x = np.ones((2, 2), np.float32)
    kind = type(wrong).__name__
    for call in (
        lambda: lp.round_to(x, wrong),
        lambda: lp.round_to(x[0], wrong, out=x[0]),
        lambda: lp.encode(x, wrong),
        lambda: lp.cast(x, wrong),
        lambda: lp.decode(np.uint16([1]), wrong),
        lambda: lp.matmul(x, x, inputs=wrong),
        lambda: lp.matmul(x, x, accumulator=wrong),
        lambda: lp.matmul(x, x, output=wrong),
        lambda: lp.dot(x, x, inputs=wrong),
        lambda: lp.sum(x, wrong),
        lambda: lp.ulp(x, wrong),
        lambda: lp.measure(x, wrong),
        lambda: lp.Arithmetic(wrong),
        lambda: lp.Accumulator(wrong),
        lambda: lp.finfo(wrong),
        lambda: lp.inspect(1, wrong),
    ):
        with pytest.raises(TypeError, match=rf"is a {kind}; pass a lowprec\.Format"):
            call()
    for call in (
        lambda how: lp.round_to(x, "bfloat16", **how),
        lambda how: lp.encode(x, "bfloat16", **how),
        lambda how: lp.measure(x, "bfloat16", **how),
        lambda how: lp.Arithmetic("bfloat16", **how),
        lambda how: lp.Accumulator("bfloat16", **how),
    ):
        for name in ("rounding", "overflow"):
            with pytest.raises(TypeError, match=rf"is not an? {name} mode; use one of"):
                call({name: wrong})
    with pytest.raises(TypeError, match="random_bits is"):
        lp.round_to(x, "bfloat16", random_bits=wrong)


def test_what_is_kept_of_calls_is_bounded():
    calls = [*itertools.product(range(1, 1000), (6, 7), lp.Overflow)]
    for bias, precision, overflow in calls:
        fmt = lp.Format(f"mine{bias}", 5, precision, bias=bias)
        assert lp.encode(np.float64([0.0]), fmt, overflow=overflow) == [0]
    kept = sum(type(each) is Work for each in gc.get_objects())
    assert 100 < kept < len(calls) * 5 / 8


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float8_e5m2", "float8_e4m3fn", "bfloat16"])
def test_remedies_for_arrays_that_numpy_saves_and_does_not_read(name, tmp_path):
    x = np.array([1.0, 2.0], getattr(ml_dtypes, name))
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"save it as float32, or write it with lowprec") as caught:
        tensors.open_tensors(tmp_path / "x.npy")
    assert "damaged" not in str(caught.value)
    if "np.load(path)" in str(caught.value):
        codes = np.load(tmp_path / "x.npy").view(f"u{x.itemsize}")
        assert lp.decode(codes, name).tolist() == [1, 2]
    np.save(tmp_path / "y.npy", x.astype("float32"))
    assert tensors.open_tensors(tmp_path / "y.npy")["y"].read().tolist() == [1, 2]
    tensors.write_tensors(tmp_path / "z.npz", {"z": x})
    assert tensors.open_tensors(tmp_path / "z.npz")["z"].fmt == lp.get_format(name)


def test_the_remedy_for_records(tmp_path):
    np.save(tmp_path / "x.npy", RECORDS)
    with pytest.raises(ValueError, match=r"fields a, b; save each field, as in x\['a'\]") as caught:
        tensors.open_tensors(tmp_path / "x.npy")
    assert "bfloat16" not in str(caught.value)
    np.savez(tmp_path / "x.npz", **{name: RECORDS[name] for name in RECORDS.dtype.names})
    assert list(tensors.open_tensors(tmp_path / "x.npz")) == ["a", "b"]


def test_the_remedy_for_a_checkpoint_with_other_objects(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    torch.save({"args": argparse.Namespace(lr=0.1), "w": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="save its state_dict") as caught:
        tensors.open_tensors(path)
    assert "\x1b" not in str(caught.value)
    assert "argparse.Namespace" in str(caught.value)
    torch.save(torch.nn.Linear(2, 1).state_dict(), path)
    assert list(tensors.open_tensors(path)) == ["weight", "bias"]
    torch.save(dict(torch.nn.Linear(2, 1).named_parameters()), path)  # these require grad
    assert list(tensors.open_tensors(path)) == ["weight", "bias"]


# The command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (["formts"], ["formats"]),
        (["inspect", "--code", "3f80"], ["inspect", "--code", "0x3f80"]),
        (["inspect", "0.1", "--frmat", "float16"], ["inspect", "0.1", "--format", "float16"]),
        (
            ["inspect", "0.1", "--rounding", "nearest"],
            ["inspect", "0.1", "--rounding", "ties_to_even"],
        ),
        (["inspect", "0.1", "--format", "flat16"], ["inspect", "0.1", "--format", "float16"]),
    ],
    ids=" ".join,
)
def test_the_command_that_an_error_suggests_works(wrong, right, capsys):
    with pytest.raises(SystemExit):
        main(wrong)
    err = capsys.readouterr().err
    changed = next(word for word in right if word not in wrong)
    assert changed in err
    assert main(right) == 0


def test_advise_takes_formats_second():
    x = np.array([1 / 3, 7e4])
    assert [one.fmt for one in lp.advise(x, "float16").formats] == [lp.float16]
    assert lp.advise(x, ["bfloat16"], tolerance=1e-6).holding == ()
    assert lp.advise(x).to_dict() == lp.advise(x, formats=None).to_dict()
    with pytest.raises(TypeError, match="positional"):
        lp.advise(x, ["bfloat16"], 0.01)
