"""Draw house.svg: the rooms of lowprec, and which of them each imports from.

::

    python docs/pictures/house.py [--output house.svg]

The order is that of ``tests/test_house.py``; what is drawn is read from the import statements.
"""

from __future__ import annotations

import argparse
import ast
import html
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "src" / "lowprec"
ROW, NAMES, CELL, TOP, MOST = 36, 96, 12, 84, 62

sys.path.insert(0, str(ROOT / "tests"))

import test_house  # noqa: E402

STYLE = """
text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1f2328 }
.room { font-weight: 600 } .says { fill: #59636e } .own { fill: #1f2328 }
.needs { fill: #0969da } .row { fill: #f6f8fa }
@media (prefers-color-scheme: dark) {
  text, .own { fill: #f0f6fc } .says { fill: #9198a1 } .needs { fill: #4493f8 }
  .row { fill: #151b23 }
}"""


def rooms() -> dict[str, set[str]]:
    """Return the rooms in their order, and from which others each imports."""
    found: dict[str, set[str]] = {room: set() for room in test_house.ORDER}
    for _, own, other in test_house.arrows():
        found[own].add(other)
    return {room: others - {room} for room, others in found.items()}


def says(room: str) -> str:
    """Return the first sentence of a room, which says what it is for."""
    path = SOURCE / room / "__init__.py" if (SOURCE / room).is_dir() else SOURCE / f"{room}.py"
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = words.split("\n\n")[0].replace("\n", " ").replace("`", "").rstrip(".")
    for mark in ": ", ", ":
        while len(first) > MOST and mark in first:
            first = first.rpartition(mark)[0]
    return first


def svg() -> str:
    """Return the picture: a row for each room, a dot under each room that it imports from."""
    needs = rooms()
    names = list(needs)
    width, height = NAMES + CELL * len(names) + 24, TOP + ROW * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>The rooms of lowprec: each imports only from rooms above it</title>",
        f"<style>{STYLE}</style>",
    ]
    for column, room in enumerate(names):
        x = NAMES + CELL * column + 11
        parts.append(f'<text class="says" transform="translate({x},{TOP - 8})rotate(-60)">')
        parts.append(f"{html.escape(room)}</text>")
    for row, room in enumerate(names):
        y = TOP + ROW * row
        if row % 2 == 0:
            parts.append(f'<rect class="row" y="{y}" width="{width}" height="{ROW}"/>')
        parts.append(f'<text class="room" x="4" y="{y + 16}">{html.escape(room)}</text>')
        for column, other in enumerate(names):
            x = NAMES + CELL * column + 7
            if other in needs[room]:
                parts.append(f'<circle class="needs" cx="{x}" cy="{y + 11}" r="4"/>')
            elif other == room:
                parts.append(
                    f'<rect class="own" x="{x - 4}" y="{y + 7}" width="8" height="8" rx="1"/>'
                )
        parts.append(f'<text class="says" x="4" y="{y + 31}">{html.escape(says(room))}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "house.svg")
    parser.parse_args().output.write_text(svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
