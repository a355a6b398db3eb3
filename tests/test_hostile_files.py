"""Files that are damaged, or made to deceive: refused in one clear line, in little memory."""

import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lowprec.tensors import open_tensors, write_tensors

A, B = np.arange(6, dtype="f4").reshape(2, 3), np.arange(3)
TRACE = Path(tempfile.gettempdir()) / "lowprec-ran-a-pickle"
FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read_all(path):
    return {
        name: np.concatenate([np.empty(0, tensor.dtype), *tensor.blocks()])
        for name, tensor in open_tensors(path).items()
    }


def refusal(path):
    """Read all of a file that must be refused; return the reason."""
    with pytest.raises(ValueError, match=r".") as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600 + len(str(path))
    return message


# safetensors ---------------------------------------------------------------------------------


def safetensors_file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def info(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FOUR = b"\0\0\0\0"
HOSTILE_SAFETENSORS = {
    "empty": (b"", "its header has 0 bytes, the file only 0"),
    "short": (b"\1\0\0", "the file only 3"),
    "long header": (safetensors_file({}, length=10**6), "its header has 1,000,000 bytes"),
    "endless header": (safetensors_file({}, length=2**64 - 1), "the file only"),
    "no JSON": (safetensors_file(b"{'a'"), "is not the JSON of a .safetensors file"),
    "no UTF-8": (safetensors_file(b'{"\xff": 1}'), "is not the JSON of a .safetensors file"),
    "no object": (safetensors_file([1]), "is not the JSON object"),
    "deep": (safetensors_file(b"[" * 100_000), "is not the JSON of a .safetensors file"),
    "a long integer": (safetensors_file(b'{"a":' + b"9" * 5000 + b"}"), "cannot be read"),
    "no description": (safetensors_file({"a": 3}), "says of 'a' is damaged"),
    "a key is missing": (safetensors_file({"a": {"dtype": "F32"}}), "says of 'a' is damaged"),
    "three offsets": (
        safetensors_file({"a": info() | {"data_offsets": [0, 4, 4]}}, FOUR),
        "says of 'a' is damaged",
    ),
    "unknown dtype": (safetensors_file({"a": info("F99")}, FOUR), "has dtype 'F99'; known are"),
    "unhashable dtype": (safetensors_file({"a": info(["F32"])}, FOUR), "has dtype ['F32']"),
    "F6": (safetensors_file({"a": info("F6_E2M3", [4], 0, 4)}, FOUR), "takes 3 bytes, but has 4"),
    "a part of a byte": (
        safetensors_file({"a": info("F6_E2M3", [3], 0, 2)}, b"ab"),
        "of shape [3] and dtype F6_E2M3 takes 2 bytes",
    ),
    "negative dimension": (safetensors_file({"a": info(shape=[-1, -1])}, FOUR), "from 0 on"),
    "float dimension": (safetensors_file({"a": info(shape=[1.0])}, FOUR), "from 0 on"),
    "bool dimension": (safetensors_file({"a": info(shape=[True])}, FOUR), "from 0 on"),
    "huge shape": (safetensors_file({"a": info(shape=[2**62, 2**62])}, FOUR), "more than any"),
    "overflowing to 4": (
        safetensors_file({"a": info(shape=[2**32, 2**30 + 1])}, FOUR),
        "more than any memory holds|takes",
    ),
    "huge and empty": (
        safetensors_file({"a": info(shape=[0, 2**62, 2**62], end=0)}),
        "more than any memory holds",
    ),
    "dimensions": (safetensors_file({"a": info(shape=[1] * 65)}, FOUR), "65 dimensions"),
    "negative offset": (safetensors_file({"a": info(begin=-4, end=0)}, FOUR), "offsets ascend"),
    "descending": (safetensors_file({"a": info(begin=4, end=0)}, FOUR), "offsets ascend"),
    "float offset": (safetensors_file({"a": info(end=4.0)}, FOUR), "offsets ascend"),
    "wrong size": (safetensors_file({"a": info(shape=[2])}, FOUR), "takes 8 bytes, but has 4"),
    "odd pairs": (safetensors_file({"a": info("F4", [3], 0, 1)}, b"a"), "takes 1 bytes, but"),
    "cut short": (safetensors_file({"a": info()}, FOUR[:3]), "1 bytes too early"),
    "followed": (safetensors_file({"a": info()}, FOUR + b"x"), "leave bytes unused"),
    "shared": (
        safetensors_file({"a": info(), "b": info("F16", [1], 2, 4)}, FOUR),
        "'a' and 'b' share bytes",
    ),
    "the same": (safetensors_file({"a": info(), "b": info()}, FOUR), "'a' and 'b' share bytes"),
    "a gap": (
        safetensors_file({"a": info(), "b": info("U8", [1], 5, 6)}, FOUR + b"xy"),
        "gap between 'a' and 'b'",
    ),
    "begins late": (safetensors_file({"a": info(begin=4, end=8)}, FOUR * 2), "bytes unused"),
    "twice": (
        safetensors_file(b'{"a":%b,"a":%b}' % ((json.dumps(info()).encode(),) * 2), FOUR),
        "'a' is there twice",
    ),
    "up": (safetensors_file({"../../x": info()}, FOUR), "is a path out of its folder"),
    "root": (safetensors_file({"/etc/passwd": info()}, FOUR), "is a path out of its folder"),
    "drive": (safetensors_file({"C:\\x": info()}, FOUR), "is a path out of its folder"),
    "escape": (safetensors_file({"a\x1b[2J": info()}, FOUR), "cannot be printed"),
    "surrogate": (safetensors_file(b'{"\\ud800":%b}' % b"1", FOUR), "cannot be printed"),
    "metadata": (safetensors_file({"__metadata__": {"a": 1}}), "is not a map of texts"),
    "list of metadata": (safetensors_file({"__metadata__": [1]}), "is not a map of texts"),
    "note": (safetensors_file({"__metadata__": {"lowprec": "{"}}), "its note '{' is damaged"),
    "note of other": (
        safetensors_file(
            {"__metadata__": {"lowprec": '{"version": 1, "tensors": {"a": {}}}'}},
        ),
        "its note speaks of 'a'",
    ),
    "note to come": (
        safetensors_file({"__metadata__": {"lowprec": '{"version": 2, "tensors": {}}'}}),
        "its note has version 2",
    ),
}
NOTES = {
    "no format": ({}, "'format'"),
    "unknown": ({"format": "float99"}, "float99"),
    "another width": ({"format": "bfloat16"}, "holds float32; its note says bfloat16"),
    "scale": ({"format": "float32", "scale": 3.0}, "not a power of two"),
    "NaN": ({"format": "float32", "scale": float("nan")}, "not a power of two"),
    "infinite": ({"format": "float32", "scale": float("inf")}, "not a power of two"),
    "negative": ({"format": "float32", "scale": -2.0}, "not a power of two"),
    "tiny": ({"format": "float32", "scale": 2.0**-1060}, "use another bias"),
    "fields": ({"format": {"exponent_bits": 10**9}}, "is damaged"),
    "list": ([1], "is damaged"),
}


@pytest.mark.parametrize(
    ("content", "reason"), HOSTILE_SAFETENSORS.values(), ids=HOSTILE_SAFETENSORS
)
def test_a_hostile_safetensors_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors cannot be read: "):
        open_tensors(path)
    message = refusal(path)
    assert any(part in message for part in reason.split("|")), message


@pytest.mark.parametrize(("note", "reason"), NOTES.values(), ids=NOTES)
def test_a_hostile_note_is_refused(tmp_path, note, reason):
    path = tmp_path / "x.safetensors"
    text = json.dumps({"version": 1, "tensors": {"a": note}})
    path.write_bytes(safetensors_file({"__metadata__": {"lowprec": text}, "a": info()}, FOUR))
    message = refusal(path)
    assert "'a'" in message
    assert reason in message


def test_codes_beyond_their_format_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    text = json.dumps({"version": 1, "tensors": {"a": {"format": "float6_e2m3fn"}}})
    header = {"__metadata__": {"lowprec": text}, "a": info("U8", [4])}
    path.write_bytes(safetensors_file(header, b"\x00\x01\x3f\x40"))
    with pytest.raises(ValueError, match="codes are 0 to 0x3f"):
        list(open_tensors(path)["a"].values())


# npy -----------------------------------------------------------------------------------------


def npy_file(header, data=b"", version=1, length=None):
    text = header if isinstance(header, bytes) else repr(header).encode()
    width = "<H" if version == 1 else "<I"
    size = struct.pack(width, len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def described(descr="<f4", order=False, shape=(1,)):
    return {"descr": descr, "fortran_order": order, "shape": shape}


class Trap:
    """Leaves a trace where a pickle of it is loaded."""

    def __reduce__(self):
        return (open, (str(TRACE), "w"))


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], object), allow_pickle=True)
    return stream.getvalue()


HOSTILE_NPY = {
    "empty": (b"", "does not begin as .npy files do"),
    "magic": (b"\x93NUMPX\1\0" + b"a" * 100, "does not begin as .npy files do"),
    "version": (npy_file(described(), FOUR, version=9), "does not begin as .npy files do"),
    "no header": (b"\x93NUMPY\1\0", "cut short"),
    "header": (npy_file(described(), length=5000), "its header was cut short"),
    "long": (npy_file(described(), version=2, length=2**32 - 1), "10,000 are allowed"),
    "program": (npy_file(b"__import__('os').getcwd()"), "its header is damaged"),
    "deep": (npy_file(b"(" * 9000), "its header is damaged"),
    "keys": (npy_file({"descr": "<f4"}), "its header is damaged"),
    "objects": (pickled(), "pickled objects"),
    "objects within": (npy_file(described([("a", "|O")]), FOUR * 2), "pickled objects"),
    "bytes": (npy_file(described("|V4"), FOUR), "save it as float32"),
    "descr": (npy_file(described("<q99"), FOUR), "its header is damaged"),
    "negative": (npy_file(described(shape=(-1,)), FOUR), "use integers from 0 on"),
    "both negative": (npy_file(described(shape=(-1, -1)), FOUR), "use integers from 0 on"),
    "huge": (npy_file(described(shape=(2**62, 2**62)), FOUR), "more than any memory holds"),
    "cut": (npy_file(described(), FOUR[:2]), "its data were cut short"),
    "more": (npy_file(described(), FOUR + b"x"), "followed by other data"),
    "large": (npy_file(described(shape=(2**40,)), FOUR), "its data were cut short"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE_NPY.values(), ids=HOSTILE_NPY)
def test_a_hostile_npy_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    assert reason in refusal(path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content)
    refusal(tmp_path / "x.npz")
    assert not TRACE.exists()


# npz -----------------------------------------------------------------------------------------


def npz_file(members, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return bytearray(stream.getvalue())


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def claiming(size):
    """Return an archive whose member claims to have so many bytes."""
    content = npz_file([("a.npy", npy(A))])
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", size)
    return content


def overlapping():
    """Return an archive with two members in the same place."""
    noise = np.random.default_rng(0).integers(0, 255, 1000, np.uint8)
    content = npz_file([("a.npy", npy(noise)), ("b.npy", npy(noise))])
    at = content.rfind(b"PK\x01\x02")
    content[at + 42 : at + 46] = struct.pack("<I", 0)
    return content


def crowded():
    """Return an archive whose list of members claims gigabytes."""
    content = npz_file([("a.npy", npy(A))])
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = struct.pack("<I", 2**31)
    return content


HOSTILE_NPZ = {
    "empty": (b"", "does not end as ZIP archives do"),
    "text": (b"1, 2\n" * 100, "does not end as ZIP archives do"),
    "no members": (npz_file([]), "it holds no arrays"),
    "other members": (npz_file([("a.txt", b"abc")]), "which is not an .npy member"),
    "up": (npz_file([("../a.npy", npy(A))]), "is a path out of its folder"),
    "root": (npz_file([("/a.npy", npy(A))]), "is a path out of its folder"),
    "packing": (npz_file([("a.npy", npy(A))], zipfile.ZIP_LZMA), "packed otherwise"),
    "bomb": (claiming(2**31), "which its"),
    "more than told": (claiming(100), "Bad CRC-32|and its header tells"),
    "overlapping": (overlapping(), "damaged|share bytes"),
    "crowded": (crowded(), "its list of members has 2,147,483,648 bytes"),
    "longer than its array": (npz_file([("a.npy", npy(A) + b"x")]), "and its header tells"),
    "shorter": (npz_file([("a.npy", npy(A)[:-1])]), "and its header tells"),
    "a damaged note": (
        npz_file(
            [
                ("a.npy", npy(A)),
                ("__metadata__.npy", npy(np.frombuffer(b'{"lowprec": "{"}', np.uint8))),
            ]
        ),
        "its note '{' is damaged",
    ),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE_NPZ.values(), ids=HOSTILE_NPZ)
def test_a_hostile_npz_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    message = refusal(path)
    assert any(part in message for part in reason.split("|")), message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(npz_file([("a.npy", npy(A)), ("a.npy", npy(B))]))
    assert "'a.npy' is there 2 times" in refusal(path)


# torch ---------------------------------------------------------------------------------------


def test_a_hostile_torch_file_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="torch's own files")
    path = tmp_path / "x.pt"
    for content in ({"a": Trap()}, [1, 2], {"a": torch.ones(2).to_sparse()}):
        torch.save(content, path)
        refusal(path)
    assert not TRACE.exists()
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for part in (b"", b"abc", whole[:-100], whole[:500]):
        path.write_bytes(part)
        refusal(path)


# Memory --------------------------------------------------------------------------------------


def test_a_bomb_is_read_in_little_memory(tmp_path):
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (600 << 20,)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(600):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert growth(f"for block in open_tensors({str(path)!r})['a'].blocks(): pass") < 60 << 20


@pytest.mark.parametrize("kind", [".safetensors", ".npz", ".npy", ".pt"])
def test_a_pipe_is_refused_not_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / f"x{kind}")
    for path in (tmp_path / f"x{kind}", tmp_path):
        with pytest.raises(ValueError, match="it is not a regular file"):
            open_tensors(path)


def test_a_header_that_fills_the_memory_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(b"[" + b"[]," * 3_000_000 + b"[]]"))
    program = f"""
try:
    open_tensors({str(path)!r})
except ValueError as error:
    assert "parts" in str(error), error
"""
    assert growth(program) < 60 << 20


# Not ru_maxrss: a new process begins with that of the one that started it, which may be larger.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
"""


def growth(program):
    """Run a program in a process of its own; return by how many bytes its peak memory grew."""
    text = f"""
from lowprec.tensors import open_tensors
{PEAK}
before = peak()
{program}
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


# Fuzzing -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Return valid files: the content by the kind."""
    folder = tmp_path_factory.mktemp("valid")
    bits = np.arange(8, dtype="u2").view(np.float16)
    named = {"a": A, "b": B, "layer.c": bits}
    write_tensors(folder / "x.safetensors", named, {"format": "pt"})
    write_tensors(folder / "x.npy", {"a": A})
    np.savez_compressed(folder / "packed.npz", **named)
    np.savez(folder / "stored.npz", **named)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "insert", "number"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**64 - 1),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content, mutations):
    content = bytearray(content)
    for kind, place, value in mutations:
        at = int(place * len(content))
        if kind == "flip" and content:
            content[at] ^= 1 << value % 8
        elif kind == "set" and content:
            content[at] = value % 256
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + value % 16]
        elif kind == "insert":
            content[at:at] = value.to_bytes(8, "little")[: value % 9]
        elif kind == "number":
            content[at : at + 8] = value.to_bytes(8, "little")
    return bytes(content)


@pytest.mark.parametrize("name", ["x.safetensors", "x.npy", "packed.npz", "stored.npz"])
@FUZZ
@given(mutations=MUTATIONS)
@example(mutations=[("flip", 0.0, 0)])
def test_a_mutated_file_is_refused_or_read(tmp_path, valid, name, mutations):
    path = tmp_path / name
    path.write_bytes(mutated(valid[name], mutations))
    try:
        arrays = read_all(path)
    except (ValueError, OSError):
        return
    assert sum(array.nbytes for array in arrays.values()) <= 1040 * path.stat().st_size


@settings(FUZZ, max_examples=60)
@given(mutations=MUTATIONS)
def test_a_mutated_torch_file_is_refused_or_read(tmp_path, mutations):
    torch = pytest.importorskip("torch", reason="torch's own files")
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(3)]}, path)
    path.write_bytes(mutated(path.read_bytes(), mutations))
    try:
        read_all(path)
    except (ValueError, OSError):
        return


@settings(FUZZ, max_examples=200)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["F32", "F4", "BF16", "BOOL", "F8_E4M3", "X"]),
                "shape": st.lists(st.integers(-1, 2**63) | st.integers(0, 3), max_size=4),
                "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2),
            },
        )
        | st.none()
        | st.recursive(st.booleans(), st.lists, max_leaves=4),
        max_size=3,
    ),
    st.binary(max_size=64),
)
def test_any_header_is_refused_or_read(tmp_path, header, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(header, data))
    try:
        arrays = read_all(path)
    except ValueError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= 2 * len(data)
