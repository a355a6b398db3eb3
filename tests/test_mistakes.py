"""What a newcomer does wrong, and what is said then: the value, the rule and the way out."""

import re

import ml_dtypes
import numpy as np
import pytest

import lowprec as lp
from lowprec import Accumulator, train

IRIS = train.Dataset(np.ones((6, 4)), [0, 1, 2] * 2, np.ones((3, 4)), [0, 1, 2])
MODEL = train.Sequential([train.Input((4,)), train.Dense(3)])
CROSSENTROPY = "sparse_categorical_crossentropy"


def fit(model=MODEL, data=IRIS, loss=CROSSENTROPY, **others):
    return train.fit(model, data, loss=loss, **{"optimizer": "adam", "verbose": False} | others)


def classifier(*last):
    return train.Sequential([train.Input((4,)), *last])


# What is written, and what the message must hold: value, rule, way out.
MISTAKES = {
    "a name with a slip": (
        'lp.round_to(0.1, "bloat16")',
        ("'bloat16'", "unknown format", "did you mean 'bfloat16'"),
    ),
    "an integer format": (
        'lp.round_to(0.1, "int8")',
        ("'int8'", "unknown format", "'eXmY' with X exponent and Y trailing significand bits"),
    ),
    "another library's word for a mode": (
        'lp.round_to(0.1, "bfloat16", rounding="half_even")',
        ("'half_even'", "is not a rounding mode", "did you mean 'ties_to_even'"),
    ),
    "data without targets": (
        "train.fit(MODEL, IRIS.x_train, loss=CROSSENTROPY, optimizer='adam')",
        ("an array without targets", "a pair (x, y)", "train.data.digits()"),
    ),
    "fit before compile": (
        "train.Sequential([train.Dense(3)]).fit(IRIS)",
        ("fit needs what compile says", "model.compile(optimizer='adam', loss='mse'"),
    ),
    "metrics misspelt": (
        "train.Sequential().compile('adam', 'mse', metric=['accuracy'])",
        ("no argument 'metric'", "did you mean 'metrics'"),
    ),
    "a metric misspelt": (
        "train.Sequential().compile('adam', 'mse', metrics=['acuracy'])",
        ("'acuracy' is not a metric", "did you mean 'accuracy'"),
    ),
    "one-hot labels for class numbers": (
        "fit(data=(IRIS.x_train, np.eye(3)[IRIS.y_train]))",
        ("one-hot", "loss='categorical_crossentropy'"),
    ),
    "class numbers for one-hot labels": (
        "fit(data=(IRIS.x_train, IRIS.y_train), loss='categorical_crossentropy')",
        ("shape (6,)", "loss='sparse_categorical_crossentropy'"),
    ),
    "a missing channel axis": (
        "train.Sequential([train.Input((8, 8, 1)), train.Flatten()]).apply({}, np.ones((6, 8, 8)))",
        ("(8, 8)", "add the channel axis", "x = x[..., numpy.newaxis]"),
    ),
    "strings as labels": (
        "fit(data=(IRIS.x_train, list('abcabc')))",
        ("'a' is not a number", "np.unique(x, return_inverse=True)[1]"),
    ),
    "digits as labels that are text": (
        "fit(data=(IRIS.x_train, list('010101')))",
        ("text such as 0", "np.unique(x, return_inverse=True)[1]"),
    ),
    "a policy for everything": (
        "train.set_global_policy('mixed_bfloat16')",
        ("'set_global_policy'", "pass policy="),
    ),
    "a file's name for an array": (
        'lp.measure("weights.npy", "bfloat16")',
        ("'weights.npy'", "is the name of a file", "lowprec compare weights.npy"),
    ),
    "half a name": ('lp.get_format("float8")', ("'float8'", "did you mean 'float8_e5m2'", "eXmY")),
    "a dtype of integers": ("lp.get_format(np.int16)", ("int16", "is not a binary", "'bfloat16'")),
    "NumPy's word for an overflow": (
        'lp.round_to(1e6, "float16", overflow="clip")',
        ("'clip'", "is not an overflow mode", "'saturate'"),
    ),
    "numbers as text": (
        'lp.round_to(["0.1", "0.2"], "bfloat16")',
        ("<U3", "rounds real numbers", "x.astype('float64')"),
    ),
    "complex numbers": (
        'lp.round_to([1j], "bfloat16")',
        ("complex128", "rounds real numbers", "pass x.real and x.imag"),
    ),
    "NaN for a format that has none": (
        'lp.round_to([1.0, np.nan], "float4_e2m1fn")',
        ("1 of 2 elements are NaN, first at index (1,)", "cannot hold", "numpy.nan_to_num"),
    ),
    "masked entries": (
        'lp.round_to(np.ma.array([1.0, 2.0], mask=[0, 1]), "bfloat16")',
        ("1 of 2 entries", "are masked", "x.filled(value)"),
    ),
    "a format that float32 cannot hold": (
        'lp.round_to(np.ones(3, "f4"), "e11m20")',
        ("'e11m20'", "cannot hold every value", "pass x as float64"),
    ),
    "values where codes are due": (
        'lp.decode([1.0, 2.0], "bfloat16")',
        ("float64", "codes", "decode takes integers"),
    ),
    "an array for inspect": (
        "lp.inspect([0.1, 0.2])",
        ("[0.1, 0.2]", "one real number", "a string such as '0.1'"),
    ),
    "a random mode for inspect": (
        'lp.inspect(0.1, rounding="stochastic")',
        ("'stochastic'", "draws random bits", "rounding='away_from_zero'"),
    ),
    "a block for an order without blocks": (
        'Accumulator("float16", block=4)',
        ("'sequential'", "belong to order='blocked'", "leave them out"),
    ),
    "matrices that do not match": (
        "lp.matmul(np.ones((2, 3)), np.ones((2, 3)))",
        ("(2, 3) and (2, 3)", "do not match", "3 columns meet 2 rows"),
    ),
    "arithmetic in a wide format": (
        'lp.Arithmetic("float64")',
        ("'float64'", "precision of at most 24", "use float32 or a narrower format"),
    ),
    "too many exponent bits": (
        'lp.Format("mine", exponent_bits=16, precision=8)',
        ("16 exponent bits", "'mine'", "use 2 to 11"),
    ),
    "sigmoid before a loss of softmax": (
        'fit(classifier(train.Dense(3, activation="sigmoid")))',
        (CROSSENTROPY, "ends in sigmoid", "write activation='softmax'", "'binary_crossentropy'"),
    ),
    "another framework's word for a policy": (
        'fit(policy="mixed_fp16")',
        ("'mixed_fp16'", "is not a policy", "did you mean 'mixed_float16'"),
    ),
    "an optimizer without parentheses": (
        "fit(optimizer=train.Adam)",
        ("function Adam", "not an optimizer", "pass Adam(1e-3) or its name"),
    ),
    "too few units": (
        "fit(classifier(train.Dense(2)))",
        ("label 2", "classes, which are counted from 0 to 1", "give the last layer more units"),
    ),
    "another input shape": (
        "fit(train.Sequential([train.Input((5,)), train.Dense(3)]))",
        ("(4,)", "the model's Input (5,)", "change Input"),
    ),
    "a layer without parentheses": (
        "train.Sequential([train.Dense])",
        ("Dense", "is a kind of layer, not a layer", "write Dense(...)"),
    ),
    "a capital letter": (
        'train.Dense(3, activation="Relu")',
        ("'Relu'", "is not an activation", "did you mean 'relu'"),
    ),
    "labels that do not count from 0": (
        "train.Dataset(IRIS.x_train, IRIS.y_train - 1, IRIS.x_test, IRIS.y_test)",
        ("label -1 in row 0", "count the classes", "for regression pass targets as floats"),
    ),
    "NaN among the features": (
        "train.Dataset(IRIS.x_train * np.nan, IRIS.y_train, IRIS.x_test, IRIS.y_test)",
        ("nan in row 0", "x_train", "remove the row or fill in the value"),
    ),
}
NAMES = {"lp": lp, "np": np, "train": train, "Accumulator": Accumulator}


def compiled(*words, **others):
    model = train.Sequential([train.Dense(3)])
    model.compile(*words, **others)
    return model


NAMES |= {
    "compiled": compiled,
    "IRIS": IRIS,
    "MODEL": MODEL,
    "CROSSENTROPY": CROSSENTROPY,
    "fit": fit,
    "classifier": classifier,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_error_says_the_value_the_rule_and_the_way_out(mistake):
    code, parts = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        eval(code, dict(NAMES))
    for part in parts:
        assert part in str(caught.value)


# What to type instead, as the message has it.
REMEDIES = {
    "a name with a slip": 'lp.round_to(0.1, "bfloat16")',
    "an integer format": 'lp.round_to(0.1, "e5m2")',
    "another library's word for a mode": 'lp.round_to(0.1, "bfloat16", rounding="ties_to_even")',
    "data without targets": "fit(data=(IRIS.x_train, IRIS.y_train))",
    "fit before compile": "compiled('adam', CROSSENTROPY).fit(IRIS)",
    "metrics misspelt": "compiled('adam', 'mse', metrics=['accuracy'])",
    "a metric misspelt": "compiled('adam', 'mse', metrics=['accuracy'])",
    "one-hot labels for class numbers": (
        "fit(data=(IRIS.x_train, np.eye(3)[IRIS.y_train]), loss='categorical_crossentropy')"
    ),
    "class numbers for one-hot labels": (
        "fit(data=(IRIS.x_train, IRIS.y_train), loss='sparse_categorical_crossentropy')"
    ),
    "a missing channel axis": (
        "train.Sequential([train.Input((8, 8, 1)), train.Flatten()])"
        ".apply({}, np.ones((6, 8, 8))[..., np.newaxis])"
    ),
    "strings as labels": (
        "fit(data=(IRIS.x_train, np.unique(list('abcabc'), return_inverse=True)[1]))"
    ),
    "digits as labels that are text": (
        "fit(data=(IRIS.x_train, np.unique(list('010101'), return_inverse=True)[1]))"
    ),
    "a policy for everything": "compiled('adam', 'mse', policy='mixed_bfloat16')",
    "a file's name for an array": 'lp.compare(lp.tensors.open_tensors("weights.npy"))',
    "half a name": 'lp.get_format("float8_e5m2")',
    "a dtype of integers": 'lp.get_format("e5m10")',
    "NumPy's word for an overflow": 'lp.round_to(1e6, "float16", overflow="saturate")',
    "numbers as text": 'lp.round_to(np.array(["0.1", "0.2"], "float64"), "bfloat16")',
    "complex numbers": 'lp.round_to(np.array([1j]).real, "bfloat16")',
    "NaN for a format that has none": 'lp.round_to(np.nan_to_num([1.0, np.nan]), "float4_e2m1fn")',
    "masked entries": ('lp.round_to(np.ma.array([1.0, 2.0], mask=[0, 1]).filled(0), "bfloat16")'),
    "a format that float32 cannot hold": (
        'lp.round_to(np.ones(3, "f4").astype("float64"), "e11m20")'
    ),
    "values where codes are due": 'lp.decode([1, 2], "bfloat16")',
    "an array for inspect": "lp.inspect('0.1')",
    "a random mode for inspect": 'lp.inspect(0.1, rounding="toward_zero")',
    "a block for an order without blocks": 'Accumulator("float16", block=4, order="blocked")',
    "matrices that do not match": "lp.matmul(np.ones((2, 3)), np.ones((3, 2)))",
    "arithmetic in a wide format": 'lp.Arithmetic("float32")',
    "too many exponent bits": 'lp.Format("mine", exponent_bits=11, precision=8)',
    "sigmoid before a loss of softmax": 'fit(classifier(train.Dense(3, activation="softmax")))',
    "another framework's word for a policy": 'fit(policy="mixed_float16")',
    "an optimizer without parentheses": "fit(optimizer=train.Adam(1e-3))",
    "too few units": "fit(classifier(train.Dense(3)))",
    "another input shape": "fit(train.Sequential([train.Input((4,)), train.Dense(3)]))",
    "a layer without parentheses": "train.Sequential([train.Dense(3)])",
    "a capital letter": 'train.Dense(3, activation="relu")',
    "labels that do not count from 0": (
        "train.Dataset(IRIS.x_train, IRIS.y_train - 1.0, IRIS.x_test, IRIS.y_test * 1.0)"
    ),
    "NaN among the features": (
        "train.Dataset(np.nan_to_num(IRIS.x_test * np.nan), IRIS.y_test, IRIS.x_test, IRIS.y_test)"
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_an_error_advises_works(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("weights.npy", [1.0])
    eval(REMEDIES[mistake], dict(NAMES))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_error_is_one_line_of_a_message(mistake):
    """In a terminal it stands below the call, not below a page of text."""
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        eval(MISTAKES[mistake][0], dict(NAMES))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert not re.search(r"\bNone\b|object at 0x", message)


# Not errors, but surprises that are results: each is what the documentation says.


def test_the_default_overflow_is_infinite_not_clamped():
    assert lp.round_to(1e6, "float16") == np.inf


def test_names_that_look_alike_are_different_formats():
    assert lp.float8_e4m3.max == 240
    assert lp.float8_e4m3fn.max == 448
    with pytest.raises(ValueError, match=r"'float8_e4m3fn' for OCP's .*'float8_e4m3'"):
        lp.get_format("e4m3")


def test_trailing_bits_in_a_name_are_not_the_precision():
    assert lp.get_format("e8m7").precision == 8


def test_a_dtype_is_a_format_and_a_format_has_a_dtype():
    assert lp.get_format(ml_dtypes.bfloat16) is lp.bfloat16
    assert lp.bfloat16.dtype == np.dtype(ml_dtypes.bfloat16)
