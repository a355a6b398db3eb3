"""The plan of the package: which room may import from which, and who imports what is heavy."""

from __future__ import annotations

import ast
import functools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lowprec

ROOT = Path(lowprec.__file__).parent

# A room imports from itself and from rooms before it.
ORDER = [
    *(
        "common",
        "show",
        "rounding",
        "formats",
        "arrays",
        "kernels",
        "exact",
        "conversion",
        "blocks",
    ),
    *("arithmetic", "accumulation", "linalg", "analysis", "tensors", "train", "trace"),
    *("torch", "jax", "testing", "verification", "report", "explorer", "cli"),
    *("__main__", "__init__"),
]

# What only these files may import, at any depth and in functions too.
HEAVY = {
    "numba": ("kernels/",),
    "llvmlite": ("kernels/",),
    "torch": ("torch/", "tensors/kinds/torch.py", "arrays/sources.py"),
    "jax": ("jax/",),
}


@functools.cache
def modules():
    return {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path):
    """Return the names of all modules that a file imports: plain, in functions, in annotations."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room_of(name):
    """Return the room of a file or of a dotted name below lowprec."""
    return name.removesuffix(".py").split("/")[0]


@functools.cache
def arrows():
    """Return for each import its file, its room, and the room that is imported."""
    found = []
    for name, path in modules().items():
        for imported in imports(path):
            parts = imported.split(".")
            if parts[0] == "lowprec":
                inner = parts[1] if len(parts) > 1 else "__init__"
                is_room = (ROOT / inner).is_dir() or (ROOT / f"{inner}.py").is_file()
                found.append((name, room_of(name), inner if is_room else "__init__"))
    return found


def test_every_room_has_its_place():
    rooms = {room_of(name) for name in modules()}
    assert rooms <= set(ORDER)
    assert len(rooms) <= 26


def test_no_arrow_goes_up():
    wrong = [
        f"{name} imports {room}"
        for name, own, room in arrows()
        if ORDER.index(room) > ORDER.index(own)
    ]
    assert not wrong


def test_the_longest_way_from_room_to_room_is_short():
    below = {room: {other for _, own, other in arrows() if own == room} - {room} for room in ORDER}

    @functools.cache
    def floor(room):
        return 1 + max(map(floor, below[room]), default=0)

    assert max(map(floor, ORDER)) <= 11


def module_of(name):
    """Return the module of lowprec that a dotted name is, or lies in; None for other packages."""
    parts = name.split(".")
    while parts and parts[0] == "lowprec":
        path = ROOT.joinpath(*parts[1:])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return ".".join(parts)
        parts.pop()
    return None


def import_graph():
    """Return for each module those that it imports: plain, in functions and for annotations."""
    graph = {}
    for name, path in modules().items():
        parts = ["lowprec", *name.removesuffix(".py").split("/")]
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[module] = {found for one in imports(path) if (found := module_of(one))} - {module}
    return graph


def circles(graph):
    """Return the sets of modules that reach each other, by Tarjan's algorithm."""
    number, lowest, stack, found = {}, {}, [], []

    def visit(module):
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            place = stack.index(module)
            found.append(set(stack[place:]))
            del stack[place:]

    for module in sorted(graph):
        if module not in number:
            visit(module)
    return [one for one in found if len(one) > 1]


def test_circles_are_found():
    graph = {
        "a": {"b"},
        "b": {"c"},
        "c": {"b", "d"},
        "d": set(),
        "e": {"f"},
        "f": {"g"},
        "g": {"e"},
    }
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["e", "f", "g"]]


def test_late_and_annotated_imports_are_seen():
    graph = import_graph()
    assert "lowprec.train.summary" in graph["lowprec.train.model"]  # inside a function
    assert "lowprec.train.network" in graph["lowprec.train.running.passes"]  # for annotations
    assert set(graph) >= {"lowprec", "lowprec.train", "lowprec.train.recorder.record"}


def test_no_module_imports_itself_by_way_of_others():
    assert not [sorted(one) for one in circles(import_graph())]


def test_show_knows_no_noun():
    assert {room for _, own, room in arrows() if own == "show"} <= {"show", "common"}


@pytest.mark.parametrize("package", HEAVY)
def test_what_is_heavy_is_imported_in_its_room_alone(package):
    wrong = [
        name
        for name, path in modules().items()
        if any(imported.split(".")[0] == package for imported in imports(path))
        and not name.startswith(HEAVY[package])
    ]
    assert not wrong


def test_importing_lowprec_loads_nothing_heavy():
    heavy = ["numba", "llvmlite", "torch", "jax", "rich", "matplotlib", "scipy", "dask"]
    code = f"import sys, lowprec; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dir_shows_doors_alone():
    names = set(dir(lowprec)) - {"__all__", "__version__"}
    rooms = {"linalg", "sum", "tensors", "train"}
    assert names == set(lowprec.__all__) | rooms
    assert "sum" not in lowprec.__all__
    for name in sorted(names):
        assert getattr(lowprec, name) is not None


def test_every_package_says_what_it_does():
    for name, path in modules().items():
        if name.endswith("__init__.py"):
            docstring = ast.get_docstring(tree(path))
            assert docstring, f"{name} has no docstring"


# Documented modules, whose names a page lists; of all others only packages' faces list names.
DOCUMENTED = {
    *("explorer.py", "formats.py", "rounding.py", "testing.py"),
    *("conversion/portable.py", "kernels/scalar.py", "report/datasets.py"),
    *(
        f"train/{name}.py"
        for name in (
            *("activations", "callbacks", "data", "initializers", "losses", "optimizers"),
            *("recipes", "schedules"),
        )
    ),
}


def test_only_faces_and_documented_modules_list_their_names():
    wrong = [
        name
        for name, path in modules().items()
        if not name.endswith("__init__.py")
        and name not in DOCUMENTED
        and re.search(r"^__all__", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not wrong


def test_a_files_name_says_its_subject():
    riddles = {"works", "tally", "rows", "twins", "standins", "watched", "plain", "spread"}
    assert not [name for name in modules() if Path(name).stem in riddles]


# Rooms in which no text decides what is computed, and the functions in which text is a user's, a
# file's or another library's: spellings, keys, labels, names of modules, processors and metrics.
CORE = (
    *("rounding.py", "formats.py", "arrays/", "kernels/", "exact/", "conversion/", "blocks/"),
    *("arithmetic/", "accumulation/", "linalg/", "train/"),
)
BEYOND = ("train/studies/", "train/demonstrations/", "train/recorder/", "train/diagnosis/")
USERS_TEXT = {
    "arrays/dask_arrays.py": {"is_chunked"},
    "arrays/layouts.py": {"_is_torchs"},
    "arrays/sources.py": {
        *("to_array", "_say_more", "_with_plain_items", "_from_jax", "_from_torch"),
    },
    "blocks/formats.py": {"find_block_format"},
    "conversion/portable.py": {"_library"},
    "exact/number.py": {"_read_text"},
    "formats.py": {"<module>", "get_format", "_parse"},
    "kernels/compiler.py": {"processor_has"},
    "kernels/loops.py": {"_sources", "is_x86_64", "is_aarch64"},
    "train/callbacks.py": {"_is_log", "on_train_begin"},
    "train/dataset.py": {"_is_number"},
    "train/layers/__init__.py": {"__getattr__"},
    "train/metrics.py": {"is_validation", "is_better_high", "is_accuracy", "_known"},
    "train/optimizing/state.py": {"of"},
    "train/policy.py": {"layer_of", "is_parameter", "get_policy", "_parse", "_parse_fields"},
    "train/running/archive.py": {"arrays_in"},
    "train/running/progress.py": {"_line"},
    "train/saving.py": {"_explain_keras"},
}
TAKEN_APART = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition"),
    *("split", "rsplit", "splitlines", "isdigit", "isdecimal"),
}


def texts_that_decide(module):
    """Return the functions of a module that take a text apart, or ask what it contains.

    What a function annotates as `str` is text, and so is a literal; ``dtype.kind in "iu"`` is not.
    """
    found = set()

    def visit(node, function, texts):
        for child in ast.iter_child_nodes(node):
            inner, known = function, texts
            if isinstance(child, ast.FunctionDef):
                inner = child.name
                known = texts | {
                    one.arg
                    for one in (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs)
                    if one.annotation is not None and ast.unparse(one.annotation) == "str"
                }
            if is_text_taken_apart(child, known):
                found.add(inner)
            visit(child, inner, known)

    visit(module, "<module>", frozenset())
    return found


def is_text_taken_apart(node, texts):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in TAKEN_APART and not node.keywords
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.In | ast.NotIn):
        return False
    part, whole = node.left, node.comparators[0]
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        is_word = part.value.isidentifier()
        return not is_word or (isinstance(whole, ast.Name) and whole.id in texts)
    if isinstance(whole, ast.Constant) and isinstance(whole.value, str):
        return not ast.unparse(part).endswith("kind")
    return False


def test_a_text_that_decides_is_found():
    source = """
def plan_of(text: str, plan, dtype):
    if dtype.kind in "iu" or "mode" in plan:
        return None
    def flag():
        return "flush" in text
    return text.split("|")
def kind_of(plan):
    return plan.variant.startswith("scale")
def switch(plan):
    return "|" in plan.name or plan.name in "abc"
def nothing(plan):
    return plan.name in ("a", "b")
"""
    assert texts_that_decide(ast.parse(source)) == {"plan_of", "flag", "kind_of", "switch"}


def test_no_text_decides_what_is_computed():
    wrong = {
        name: rest
        for name, path in modules().items()
        if name.startswith(CORE) and not name.startswith(BEYOND)
        if (rest := texts_that_decide(tree(path)) - USERS_TEXT.get(name, set()))
    }
    assert not wrong


# Who asks whether a kernel may read an array as it lies; the bridge asks of torch's memory, and the
# products of two small matrices, where a call more would be felt.
ASKS_OF_MEMORY = ("arrays/", "torch/", "accumulation/tiled_products.py")


def test_one_room_says_what_a_kernel_may_read_as_it_lies():
    wrong = [
        name
        for name, path in modules().items()
        if not name.startswith(ASKS_OF_MEMORY)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("aligned", "carray")
    ]
    assert not wrong


def test_the_places_that_contributing_names_are_there():
    page = ROOT.parents[1] / "CONTRIBUTING.md"
    if not page.is_file():
        pytest.skip("the page is not in this folder")
    rows = re.findall(
        r"^\| .* \| `(\S+\.py)` \| `(\w+)` \|$", page.read_text(encoding="utf-8"), re.M
    )
    assert len(rows) > 10
    for file, name in rows:
        assert re.search(rf"^(def|class) {name}\b|^{name} = ", (ROOT / file).read_text(), re.M), (
            file
        )


def test_the_plans_picture_is_made_from_the_code():
    path = ROOT.parents[1] / "docs" / "pictures" / "house.py"
    if not path.is_file():
        pytest.skip("the documentation is not in this folder")
    drawing = runpy.run_path(str(path))
    assert path.with_suffix(".svg").read_text(encoding="utf-8") == drawing["svg"](), (
        "run: python docs/pictures/house.py"
    )


# Measures ----------------------------------------------------------------------------------------

x = np.linspace(-1, 1, 10, dtype=np.float32)
square = np.ones((4, 4), np.float32)
arithmetic = lowprec.Arithmetic("bfloat16")
# what is called, and the most Python calls inside lowprec and files that a second call may take
CALLS = {
    "round_to": (lambda: lowprec.round_to(x, "bfloat16"), 8, 3),
    "round_to, a number": (lambda: lowprec.round_to(0.1, "bfloat16"), 8, 3),
    "encode": (lambda: lowprec.encode(x, "bfloat16"), 8, 3),
    "Arithmetic.add": (lambda: arithmetic.add(x, x), 12, 4),
    "Arithmetic.add, numbers": (lambda: arithmetic.add(0.1, 0.2), 12, 4),
    "matmul": (lambda: lowprec.matmul(square, square, inputs="bfloat16"), 15, 5),
    "matmul, bfloat16 sums": (
        lambda: lowprec.matmul(square, square, inputs="bfloat16", accumulator="bfloat16"),
        15,
        5,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_small_calls_go_straight_to_the_kernel(name):
    call, most_calls, most_files = CALLS[name]
    seen = []

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            seen.append((frame.f_code.co_filename, frame.f_code.co_name))

    call(), call()
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    assert len(seen) <= most_calls
    assert len({file for file, _ in seen}) <= most_files
    doors = {str(ROOT / "conversion" / "door.py"), str(ROOT / "torch" / "door.py")}
    assert not [one for one in seen[1:] if one[0] in doors]  # none goes up through a door


# One word, one thing -----------------------------------------------------------------------------

# Users meet these in two rooms, where each is the noun of its own
SAME_NAMES = {
    "Conversion": "of files; of a library under test",
    "Difference": "of two arrays; between a library's results and the right ones",
    "Element": "of two arrays that differ; of a vector",
    "Event": "of a recorder; of a trace",
    "Finding": "of a recorder; of a trace",
    "Numerics": "what a layer is given; what gives it",
    "Optimizer": "train's; torch's",
    "Output": "of a traced program; a file that is written",
    "Quantized": "NumPy's; torch's",
    "Run": "a layer's in a pass; a training",
    "Column": "of the tables of a recorder; of a comparison",
    "Found": "a quantized tensor in a file; a fault in a user's code",
    "Hook": "on a watched module; on an emulated one",
    "Leaf": "of what a traced program returned; of what a module gave",
    "Part": "of a check; of an emulated network",
    "Plan": "of a kernel; of a product",
    "Search": "for units that must stay wide; for causes, train's and torch's",
    "Step": "of a vector of an operation; of an optimizer",
    "Sums": "of torch's products: how, and by what",
    "Work": "a conversion; a quantization",
    "Watching": "jax's; torch's",
}


def test_a_class_has_a_name_of_its_own():
    found = {}
    for name, path in modules().items():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(name)
    twice = {name: files for name, files in found.items() if len(files) > 1}
    assert twice.keys() <= SAME_NAMES.keys(), twice
