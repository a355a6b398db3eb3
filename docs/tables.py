"""Write the generated tables into the pages: ``python docs/tables.py``.

A table stands between ``<!-- table: name -->`` and ``<!-- end of table -->``. The tests fail when
one is not what the code says.
"""

import re
from pathlib import Path

import numpy as np

import lowprec as lp

DOCS = Path(__file__).parent
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def table(heads, rows):
    """Return Markdown: the first column to the left, the others to the right."""
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def formats():
    """Return what every named format holds."""
    heads = ["format", "bits", "w", "p", "largest", "smallest normal", "smallest subnormal"]
    rows = [
        [
            f"`{fmt.name}`",
            fmt.bits,
            fmt.exponent_bits,
            fmt.precision,
            f"{fmt.max:.6g}",
            f"{fmt.smallest_normal:.3g}",
            f"{fmt.smallest_subnormal:.3g}" if fmt.subnormals else "none",
            f"{fmt.eps:.3g}",
            {(True, True): "both", (False, True): "NaN", (False, False): "neither"}[
                fmt.has_infinity, fmt.has_nan
            ],
        ]
        for fmt in lp.named_formats().values()
    ]
    return table([*heads, "spacing at 1", "∞, NaN"], rows)


def choices():
    """Return the few figures by which one chooses a format."""
    rows = [
        [
            f"`{name}`",
            f"{lp.get_format(name).unit_roundoff:.2g}",
            f"{-np.log10(lp.get_format(name).unit_roundoff):.1f}",
            f"{lp.get_format(name).smallest_normal:.2g}",
            f"{lp.get_format(name).max:.3g}",
            f"{2 ** lp.get_format(name).precision:,}",
        ]
        for name in ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
    ]
    heads = ["format", "relative error up to", "digits", "full precision from", "up to"]
    return table([*heads, "counts to"], rows)


def roundings():
    """Return what each mode does to numbers between bfloat16's 1 and 1.0078125."""
    numbers = {"a quarter": 0.25, "half": 0.5, "three quarters": 0.75}
    places = np.array([*numbers.values()]) * lp.bfloat16.eps + 1
    rows = []
    for mode in lp.Rounding:
        if mode.is_stochastic:
            ends = ["at random"] * 6
        else:
            both = [*places, *-places]
            ends = [
                "1" if abs(y) == 1 else "1⁺" for y in lp.round_to(both, "bfloat16", rounding=mode)
            ]
            ends[3:] = [f"-{end}" for end in ends[3:]]
        short = next(k for k, v in lp.Rounding._short_names().items() if v == mode.value)
        rows.append([f"`{mode.value}`", f"`{short}`", *ends])
    return table(["mode", "short", *numbers, *(f"-({name})" for name in numbers)], rows)


def overflows():
    """Return what becomes of numbers beyond the largest one."""
    numbers = {"65519": 65519.0, "65520": 65520.0, "10⁶": 1e6, "∞": np.inf}
    rows = []
    for fmt in ("float16", "float8_e4m3fn"):
        for policy in lp.Overflow:
            ends = lp.round_to([*numbers.values()], fmt, overflow=policy)
            rows.append([f"`{fmt}`", f"`{policy.value}`", *(f"{end:g}" for end in ends)])
    return table(["format", "overflow", *numbers], rows)


def held():
    """Return which formats hold each of the report's tensors within 1 %."""
    from lowprec.report.datasets import load

    names = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
    rows = []
    for name, tensor in load().items():
        advice = lp.advise(tensor, tolerance=0.01, formats=names)
        words = ["yes" if a.holds else "scaled" if a.holds_scaled else "no" for a in advice.formats]
        sizes = np.abs(tensor[tensor != 0])
        rows.append([name, f"{sizes.min():.1e} … {sizes.max():.1e}", *words])
    return table(["tensor", "magnitudes", *(f"`{name}`" for name in names)], rows)


SHOWN = (  # rows of the guide's table that README shows; the others are in the guide
    "encode bfloat16",
    "encode float16",
    "decode bfloat16",
    "decode float16",
    "round_to bfloat16",
    "round_to float16",
    "round_to float8_e4m3fn",
    "round_to bfloat16, stochastic",
    "encode float8_e4m3fn",
    "encode float8_e5m2",
)


def speed():
    """Return the rows of README from the one place where measured speed stands, the guide."""
    guide = (DOCS / "guides" / "benchmarks.md").read_text(encoding="utf-8")
    measured = re.search(r"<!-- python benchmarks/speed_table.*?<!-- end of the", guide, re.DOTALL)
    lines = measured[0].splitlines()[1:-1]
    heads, rule, *rows = (_cells(line) for line in lines if line.startswith("|"))
    rows = [row for row in rows if row[0] in SHOWN]
    kept = [column for column in range(len(heads)) if {row[column] for row in rows} != {"–"}]
    chosen = [[row[column] for column in kept] for row in (heads, rule, *rows)]
    date = re.search(r"On the machine named below, on ([\d-]+)", guide)[1]
    machine = next(line for line in reversed(lines) if line.strip())
    table_lines = [f"| {' | '.join(row)} |" for row in chosen]
    return "\n".join([*table_lines, "", f"{date}, {machine}", ""])


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def block_formats():
    """Return what the named block formats are."""
    rows = [
        [
            f"`{fmt}`",
            fmt.element_in_words,
            _in_one_line(fmt.block_in_words),
            fmt.scale,
            f"`{fmt.rule.value}`",
            "float32" if fmt.tensor_scale else "–",
            f"{fmt.bits_per_value:.3f}".rstrip("0").rstrip("."),
        ]
        for fmt in lp.named_block_formats().values()
    ]
    heads = ["format", "elements", "block", "scale", "rule", "tensor's scale"]
    return table([*heads, "bits a value"], rows)


def _in_one_line(block):
    """Return the words for a block without what the page says beside its table."""
    return (
        block.removesuffix(" along an axis")
        .removeprefix("tile of ")
        .replace(" ", "\N{NO-BREAK SPACE}")
    )


def block_noise():
    """Return the SQNR of block formats on three kinds of data."""
    rng = np.random.default_rng(0)
    size = 2**18
    data = {
        "normal": rng.standard_normal(size),
        "Laplace": rng.laplace(size=size),
        "Student t₃": rng.standard_t(3, size),
    }
    names = ["mxfp8_e4m3", "mxfp8_e4m3:rceil", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2"]
    names += [f"mxfp4:{rule}" for rule in ("floor", "even", "rceil", "ceil")]
    names += ["nvfp4", "nvfp4_46", "fp8_1x128", "int8_channel", "int4_g32", "mxint8"]
    rows = []
    for name in names:
        measured = [lp.measure(x.astype(np.float32).reshape(256, -1), name) for x in data.values()]
        figures = [f"{m.sqnr_db:.1f}" for m in measured]
        clipped = measured[0].clipped / measured[0].count
        rows.append([f"`{lp.get_format(name)}`", *figures, f"{100 * clipped:.2g} %"])
    return table(["format", *data, "clipped, of normal"], rows)


def block_orders():
    """Return the scales of NVFP4 by the orders in which implementations compute them."""
    f = np.float32

    def e4m3(s):
        rounded = lp.round_to(f(s), "float8_e4m3fn", overflow="saturate")
        return float(rounded)

    def ours(amax, whole):
        x = np.zeros(16, f)
        x[0] = amax
        return float(lp.quantize(x, "nvfp4", tensor_amax=whole).scale_values()[0])

    orders = {
        "(amax / 6) / g": lambda amax, whole: e4m3(f(amax / f(6)) / f(whole / f(2688))),
        "(amax / 6) · (2688 / A)": lambda amax, whole: e4m3(f(amax / f(6)) * f(f(2688) / whole)),
        "(amax · ⅙) · (2688 / A)": lambda amax, whole: e4m3(
            f(amax * f(f(1) / f(6))) * f(f(2688) / whole)
        ),
    }
    values = lp.decode(np.arange(8, 127, dtype=np.uint8), "float8_e4m3fn", dtype="float64")
    whole = f(1)
    near = (6 * float(f(whole / f(2688))) * (values[:-1] + values[1:]) / 2).astype(f)
    tried = np.stack([np.nextafter(near, f(0)), near, np.nextafter(near, f(2))], 1).ravel()
    rows = []
    for words, order in orders.items():
        amax = next(a for a in tried if order(a, whole) != ours(a, whole))
        exact, theirs = ours(amax, whole), order(amax, whole)
        rows.append([words, f"`{float(amax).hex()}`", f"{exact:g}", f"{theirs:g}"])
    heads = ["float32 operations in this order", "a block's amax, where A = 1", "exact scale"]
    return table([*heads, "theirs"], rows)


# In some of the versions of NumPy that serve, and not in others.
_OF_SOME_VERSIONS = """
    concat cumulative_prod cumulative_sum in1d matvec row_stack trapz unstack vecdot vecmat
"""


def traced():
    """Return what NumPy's functions are in a traced program."""
    from lowprec.trace import operations
    from lowprec.trace.functions import FUNCTIONS
    from lowprec.trace.functions.table import EXACTLY, MARKED

    def own(name, f):
        return f.__name__ if isinstance(f, np.ufunc) else name  # `abs` is `absolute`

    spaces = {"": np, "linalg.": np.linalg, "fft.": np.fft}
    found = {
        start + own(name, getattr(space, name)): getattr(space, name)
        for start, space in spaces.items()
        for name in space.__all__
        if name not in _OF_SOME_VERSIONS.split() and callable(getattr(space, name))
    }
    ufuncs = {
        name
        for name, f in found.items()
        if isinstance(f, np.ufunc) and f not in FUNCTIONS and f.nin <= 2 and f.nout == 1
        and any(kinds[0] == "d" and kinds[-1] in "d?" for kinds in f.types)
    }  # fmt: skip
    dispatched = {name for name, f in found.items() if isinstance(f, type(np.sum))}
    handled = {name for name, f in found.items() if f in FUNCTIONS}
    exact = (EXACTLY & handled) | (ufuncs & operations.EXACT)
    exact |= ufuncs & (operations.COMPARISONS | operations.QUESTIONS)
    rounded = {name for name in ufuncs - exact if operations.method_of(name)}
    kinds = {
        "moved, chosen, compared: nothing is rounded": exact,
        "the exact result, rounded once": rounded,
        "sums, products, formulas: every step rounded": handled - exact - MARKED,
        "the same, by pure NumPy for LAPACK; marked": handled & MARKED,
        "float64's result, rounded once; marked": ufuncs - exact - rounded,
        'refused, or rounded once by `leaks="round"`': dispatched - handled,
    }
    rows = [
        [kind, " ".join(f"`{name}`" for name in sorted(names))] for kind, names in kinds.items()
    ]
    return table(["in a format", "NumPy's functions"], rows).replace("| --: |", "| :-- |")


TABLES = {
    "block-formats": block_formats,
    "block-noise": block_noise,
    "block-orders": block_orders,
    "speed": speed,
    "held": held,
    "formats": formats,
    "choices": choices,
    "roundings": roundings,
    "overflows": overflows,
    "traced": traced,
}


def updated(text):
    """Return a page with its tables as they should be."""
    return PLACE.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


if __name__ == "__main__":
    for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        if (after := updated(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"updated {page.relative_to(DOCS.parent)}")
