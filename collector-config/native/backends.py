"""Builds the back ends, kustomize and the reader of compose files from pinned Go modules, once per lock file.

    python collector-config/native/backends.py build [NAME ...]
    python collector-config/native/backends.py path NAME
    python collector-config/native/backends.py lock

Each program has a folder here with its go.mod and go.sum. A build is keyed by those files and the recipe
below, and kept outside the clone (`SIGHTLINE_BACKENDS_CACHE`, else `$XDG_CACHE_HOME/sightline/backends`, else
`~/.cache/sightline/backends`), so that clones share it and a second build takes no time.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import go_toolchain
from recipes import (
    BUILDER,
    RECIPES,
    BackendError,
    Recipe,
    binary_path,
    cache_folder,
    install_folder,
    is_built,
    read_versions,
)

# A compiler of the largest packages takes up to 1 GB; more of them at once than this gains little.
MOST_COMPILERS = 4

_NOISE = ("go: downloading", "go: finding", "#", "\t", "note:")


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise BackendError(f"no program {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def build(wanted: list[Recipe]) -> None:
    """Builds what is missing, one program after the other, and prints one line for each.

    Two builds at once wait for each other. An interrupted or failed build leaves the cache as it was.

    Raises:
        BackendError: A program does not build; those before it stay built.
    """
    missing = [recipe for recipe in wanted if not is_built(recipe)]
    for recipe in wanted:
        if recipe not in missing:
            print(f"{recipe.name} {recipe.version}: ready", flush=True)
    if missing:
        with _exclusive(cache_folder()):
            go = _toolchain()
            for recipe in missing:
                _build_and_report(go, recipe)


def _build_and_report(go: Path, recipe: Recipe) -> None:
    started = time.monotonic()
    if is_built(recipe):  # by the build this one waited for
        print(f"{recipe.name} {recipe.version}: ready", flush=True)
        return
    print(f"{recipe.name} {recipe.version}: building ...", flush=True)
    _build_one(go, recipe)
    print(f"{recipe.name} {recipe.version}: built in {time.monotonic() - started:.0f} s", flush=True)


def _toolchain() -> Path:
    modules = [recipe.folder / "go.mod" for recipe in (*RECIPES.values(), BUILDER)]
    minimum = go_toolchain.required_version(modules)
    try:
        return go_toolchain.find_or_fetch(cache_folder(), minimum, read_versions()["GO_VERSION"])
    except go_toolchain.ToolchainError as error:
        raise BackendError(str(error)) from error


def _build_one(go: Path, recipe: Recipe) -> None:
    """Compiles a program in a temporary folder of the cache and renames the result into place."""
    target = install_folder(recipe)
    log = cache_folder() / "logs" / f"{recipe.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=cache_folder()) as folder:
        source = Path(folder) / "source"
        _prepare_source(go, recipe, source, log)
        output = Path(folder) / "output"
        output.mkdir()
        _run(recipe, _build_command(go, recipe, output), source, go, log)
        shutil.rmtree(target, ignore_errors=True)
        output.rename(target)


def _build_command(go: Path, recipe: Recipe, output: Path) -> list[str]:
    linker = " ".join(["-s", "-w", *(f"-X {stamp}={recipe.version}" for stamp in recipe.stamps)])
    command = [
        str(go),
        "build",
        "-mod=readonly",
        "-trimpath",
        "-p",
        str(min(os.cpu_count() or 1, MOST_COMPILERS)),
    ]
    command += ["-tags", recipe.tags, "-ldflags", linker]
    return [*command, "-o", f"{output}/{recipe.output_name}", *recipe.packages]


def _prepare_source(go: Path, recipe: Recipe, source: Path, log: Path) -> None:
    """Copies the lock files into `source`, over the generated sources where there is a manifest."""
    if recipe.manifest:
        _generate(go, recipe, source, log)
    source.mkdir(exist_ok=True)
    for name in ("go.mod", "go.sum"):
        shutil.copy(recipe.folder / name, source / name)


def _generate(go: Path, recipe: Recipe, source: Path, log: Path) -> None:
    """Writes the collector's sources from its manifest; the modules are not asked for here."""
    if not is_built(BUILDER):
        _build_one(go, BUILDER)
    work = source.parent / "manifest"
    work.mkdir()
    shutil.copy(recipe.folder / "manifest.yaml", work)
    builder = str(install_folder(BUILDER) / "builder")
    command = [builder, "--config", "manifest.yaml", "--skip-compilation", "--skip-get-modules"]
    _run(recipe, command, work, go, log)
    (work / "generated").rename(source)


def _run(recipe: Recipe, command: list[str], folder: Path, go: Path, log: Path) -> None:
    with log.open("a") as output:
        environment = go_toolchain.environment(go)
        process = subprocess.run(
            command, cwd=folder, env=environment, stdout=output, stderr=output, check=False
        )
    if process.returncode:
        raise BackendError(
            f"{recipe.name} {recipe.version} does not build: {last_error(log.read_text())} (log: {log})"
        )


def last_error(log: str) -> str:
    """Returns the last line of a build log that says something, at most 300 characters of it."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not line.startswith(_NOISE)]
    return lines[-1][:300] if lines else "the log is empty"


@contextlib.contextmanager
def _exclusive(cache: Path) -> Iterator[None]:
    """Holds the cache for one build; leftovers of a killed one are removed, which is safe under the lock."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def lock_collector() -> None:
    """Writes the collector's go.mod and go.sum anew from its manifest.

    `go mod tidy` cannot: it asks for modules that only tests need, some of which are not published.
    """
    recipe = RECIPES["otelcol"]
    with _exclusive(cache_folder()), tempfile.TemporaryDirectory() as folder:
        go, source, log = _toolchain(), Path(folder) / "source", Path(folder) / "log"
        log.write_text("")
        _generate(go, recipe, source, log)
        _run(recipe, [str(go), "list", "-mod=mod", "-deps", "."], source, go, log)
        for name in ("go.mod", "go.sum"):
            shutil.copy(source / name, recipe.folder / name)
    print("otelcol: go.mod and go.sum written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backends", description="Build the back ends from pinned Go modules."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build_command = commands.add_parser("build", help="build what is missing")
    build_command.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(RECIPES)}; all by default"
    )
    commands.add_parser("path", help="print where a binary is").add_argument("name")
    commands.add_parser("lock", help="write the collector's lock files anew from its manifest")
    return parser


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.command == "build":
            build([_recipe(name) for name in options.names or RECIPES])
        elif options.command == "path":
            print(binary_path(options.name))
        else:
            lock_collector()
    except (BackendError, OSError) as error:
        print(f"backends: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("backends: interrupted; nothing is left half installed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
