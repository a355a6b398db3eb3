"""Sessions for developers: ``nox -s bench-check`` holds the promised speed against this machine.

``nox --no-venv -s bench-check`` uses the environment that nox itself runs in.
"""

import nox

nox.options.sessions = ["bench-check"]
nox.options.error_on_missing_interpreters = True

TOLERANCE = "0.15"


@nox.session(name="bench-check")
def bench_check(session: nox.Session) -> None:
    """Fail where a ratio is worse than promised by more than 15 % (a quiet machine, minutes).

    Arguments go to benchmarks/speed_table.py: ``nox -s bench-check -- --only encode``.
    """
    _install(session, ".[bench]")
    session.run("python", "benchmarks/speed_table.py", "--tolerance", TOLERANCE, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick profile, and write bench.json and bench.html."""
    _install(session, ".[bench]")
    session.run("pytest", "benchmarks/", "--benchmark-json=bench.json", *session.posargs)
    session.run("python", "-m", "benchmarks.report", "bench.json", "--html", "bench.html")


def _install(session: nox.Session, what: str) -> None:
    """Install lowprec with extras, unless the environment is the user's own."""
    if session.virtualenv.is_sandboxed:
        session.install("-e", what)
