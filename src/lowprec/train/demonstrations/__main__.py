"""Run the demonstrations that are named, or all: ``python -m lowprec.train.demonstrations``."""

import sys

from lowprec.common.names import named
from lowprec.train.demonstrations import DEMONSTRATIONS


def main(names: list[str]) -> int:
    """Run them and print what they find; return the exit status."""
    try:
        chosen = [named(name, DEMONSTRATIONS, "demonstration") for name in names]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for demonstration in chosen or DEMONSTRATIONS.values():
        print(demonstration(), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
