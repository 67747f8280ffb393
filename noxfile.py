"""What CI runs, and what you run: `nox` for everything, `nox -s tests-3.12` for one session, `nox -l` for the list."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
CORES = os.cpu_count() or 1
# Two at a time: while the tests of one wait for processes and servers, those of the other work.
nox.options.parallel = 2

ROOT = Path(__file__).parent
PACKAGE = "optimove_conditional_execution"
SUPPORTED = ("3.11", "3.12", "3.13")
PROJECT = nox.project.load_toml("pyproject.toml")

# pyenv keeps interpreters where PATH does not look.
for _bin in sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin"), reverse=True):
    os.environ["PATH"] += os.pathsep + str(_bin)

# The tests start hundreds of processes, each of which would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# uv brings certificates of its own; pip trusts the system's, and so does everything here.
os.environ.setdefault("UV_SYSTEM_CERTS", "1")
# Seconds without a byte; uv's own 30 are few for large wheels over a slow line.
os.environ.setdefault("UV_HTTP_TIMEOUT", "180")


def _runs(version: str) -> bool:
    # A pyenv shim stands in PATH for every version, but only some of them run.
    found = shutil.which(f"python{version}")
    return found is not None and os.system(f"'{found}' -c '' >{os.devnull} 2>&1") == 0  # noqa: S605 - our own path


FOUND = [version for version in SUPPORTED if _runs(version)] or [f"{sys.version_info.major}.{sys.version_info.minor}"]
NEWEST = FOUND[-1]
OLDEST = FOUND[0]
# Most tests wait most of the time, so there are more workers than cores.
PARALLEL = ("-n", str(CORES * 2), "--dist", "worksteal")

DIST = ROOT / ".nox" / "dist"
# Folders and files of `tests` that do not run on every Python, and the Pythons that run them. What depends on the
# versions of other packages runs on the oldest Python, which has the lowest, and on the newest; what is our own logic,
# or many processes of the command, on one. Where there is one Python, it runs all.
BOTH = {OLDEST, NEWEST}
ROOMS = {
    "adapters": BOTH,
    "cli": {NEWEST},
    "docs": {NEWEST},
    "errors": BOTH,
    "examples": {OLDEST},
    "house": BOTH,
    "rehearsal": {OLDEST},
    "replicas": {NEWEST},
    "stores": BOTH,
    "transport": BOTH,
    # The slowest of the rest: processes, servers, properties.
    "client/test_errors_and_retries.py": BOTH,
    "hostile/test_any_delivery.py": {NEWEST},
    "hostile/test_evidence.py": {NEWEST},
    "hostile/test_leaks.py": {NEWEST},
    "hostile/test_over_http.py": {NEWEST},
    "hostile/test_tracebacks.py": BOTH,
    "receivers/test_gevent.py": BOTH,
    "receivers/test_listener.py": {OLDEST},
    "receivers/test_shadow.py": {NEWEST},
    "review/test_adversity.py": {NEWEST},
    "review/test_behaviour_table.py": BOTH,
    "review/test_books.py": {NEWEST},
    "review/test_controls.py": {NEWEST},
    "review/test_decision_log.py": {OLDEST},
    "review/test_gevent.py": BOTH,
    "review/test_kill.py": {NEWEST},
    "review/test_late_customers.py": {OLDEST},
    "review/test_memory.py": {NEWEST},
    "review/test_updates.py": BOTH,
    "test_journals.py": BOTH,
    "test_never_awaited.py": BOTH,
    "test_reconciliation.py": {OLDEST},
    "test_rows_and_paging.py": {NEWEST},
    "test_stores.py": BOTH,
    "transport/test_leaks.py": {NEWEST},
}

# The tests of `stores` watch how long processes stand still: beside them run the sessions with few processes.
nox.options.sessions = [
    "stores",
    "lint",
    "types",
    "build",
    "extras",
    "docs",
    "browser",
    "demo",
    *(f"wheel-{version}" for version in reversed(FOUND)),  # the longest first
]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def the_wheel() -> Path:
    """Return the wheel that the session `build` has made."""
    return max(DIST.glob("*.whl"), key=lambda path: path.stat().st_mtime)


@nox.session(python=OLDEST, allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=NEWEST, allow_parallel=True)
def types(session: nox.Session) -> None:
    """Mypy strict over everything, pyright over what users see, as on the oldest Python; and a user's program.

    What the oldest and the newest Python agree upon, those in between do.
    """
    session.install("-e", ".[cli]", *group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("mypy", "--python-version", SUPPORTED[-1], "tests/typing")
    session.run("pyright", "--pythonversion", SUPPORTED[-1], "tests/typing")
    session.run("pytest", "tests/typing")


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """The test suite on the source, for work in progress; arguments go to pytest."""
    session.install("-e", ".[cli]", *group("test"))
    session.run("pytest", *(session.posargs or PARALLEL))


@nox.session(python=OLDEST)
def examples(session: nox.Session) -> None:
    """Run every example against the stand-in for Optimove."""
    session.install("-e", ".[cli]", *group("test"))
    session.run("pytest", *PARALLEL, "tests/examples", *session.posargs)


@nox.session(python=NEWEST, allow_parallel=True)
def docs(session: nox.Session) -> None:
    """Build the site; a warning is an error."""
    session.install("-e", ".[cli]", *group("docs"))
    # Material prints an advertisement against MkDocs 2 otherwise.
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", "--site-dir", str(Path(session.create_tmp()) / "site"), env=quiet)


@nox.session(python=NEWEST, allow_parallel=True)
def browser(session: nox.Session) -> None:
    """Open reports in Chromium; on Debian it is installed when it is missing, elsewhere the tests say what to do."""
    session.install("-e", ".[cli]", *group("test"))
    missing = not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", external=True, silent=True)
        session.run("apt-get", "install", "-y", "chromium", external=True, silent=True, env=quiet)
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session(python=NEWEST, allow_parallel=True)
def stores(session: nox.Session) -> None:
    """Run against real servers; on Debian they are installed when missing, elsewhere the tests say what to do."""
    session.install("-e", ".[cli]", *group("test"))
    debian = Path("/usr/lib/postgresql")  # which keeps PostgreSQL's programs outside of PATH
    missing = {
        "postgresql": shutil.which("initdb") is None and not any(debian.glob("*/bin/initdb")),
        "redis-server": shutil.which("redis-server") is None,
        "pgbouncer": shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin") is None,
    }
    packages = [package for package, is_missing in missing.items() if is_missing]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", external=True, silent=True)
        session.run("apt-get", "install", "-y", *packages, external=True, silent=True, env=quiet)
    # Each file has servers of its own; few at once, since some of them measure time.
    session.run("pytest", *(session.posargs or ("-n", "2", "--dist", "loadfile", "tests/servers")))


@nox.session(python=OLDEST, allow_parallel=True)
def build(session: nox.Session) -> None:
    """Build the sdist, the wheel out of it, and check what is in them."""
    session.install(*group("build"))
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("uv", "build", "--quiet", "--out-dir", str(DIST))
    session.run("twine", "check", "--strict", *map(str, sorted([*DIST.glob("*.tar.gz"), *DIST.glob("*.whl")])))
    session.run("pytest", "--noconftest", "tests/packaging", env={"DISTRIBUTIONS": str(DIST)})


@nox.session(python=FOUND, requires=["build"], allow_parallel=True)
def wheel(session: nox.Session) -> None:
    """The test suite on the installed wheel, with the source out of the way.

    On the oldest Python with the lowest versions that pyproject.toml allows, on the others with the newest. `ROOMS`
    says what does not run on each; the examples use the command, so it meets both.
    """
    requirements = [f"{the_wheel()}[cli]", *group("test")]
    if session.python == OLDEST:
        lowest = DIST / "lowest.txt"
        extras = [f"--extra={extra}" for extra in PROJECT["project"]["optional-dependencies"]]
        resolve = ("uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", *extras)
        session.run(*resolve, "--output-file", str(lowest), "pyproject.toml", silent=True)
        requirements += ["--constraint", str(lowest)]
    # Not compiled beforehand: the tests import a fifth of the files, and one worker compiles those for the others.
    session.install(*requirements)
    # Not `create_tmp`: it would put the tests' temporary files below this project and its settings.
    away = ROOT / ".nox" / f"away-{session.python}"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(ROOT, away, ignore=shutil.ignore_patterns("src", ".*", "__pycache__", "dist", "site"))
    shutil.copytree(ROOT / ".ci", away / ".ci")
    ignored = [f"--ignore=tests/{room}" for room, pythons in ROOMS.items() if session.python not in pythons]
    with session.chdir(away):
        session.run(
            "python", "-c", f"import {PACKAGE} as p; assert 'site-packages' in p.__file__, p.__file__", silent=True
        )
        session.run("pytest", "-p", "no:cacheprovider", *PARALLEL, *ignored, *session.posargs)


@nox.session(python=OLDEST, requires=["build"], allow_parallel=True)
def extras(session: nox.Session) -> None:
    """Install the wheel with each extra alone, and use what it brings with nothing else around."""
    for extra in ("", *PROJECT["project"]["optional-dependencies"]):
        wanted = f"{the_wheel()}[{extra}]" if extra else str(the_wheel())
        alone = ("uv", "run", "--quiet", "--isolated", "--no-project", "--python", OLDEST)
        session.run(*alone, "--with", wanted, "python", "tests/packaging/extra.py", extra or "nothing")


@nox.session(python=OLDEST, allow_parallel=True)
def demo(session: nox.Session) -> None:
    """Install what a user installs, and run the demonstration."""
    session.install(".[cli]")
    session.run("optimove-ce", "demo")


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """Measure; not part of the default run, since numbers from a busy machine prove nothing."""
    session.install("-e", ".[cli]", *group("test"))
    session.run("python", "-m", "benchmarks", *session.posargs)
