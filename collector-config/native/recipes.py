"""What is built: a recipe for each program, where the result is kept, the key by which it is found again."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
VERSIONS_FILE = NATIVE.parent / "versions.env"

# Changes when the build steps change in a way that neither recipes nor lock files show.
RECIPE_REVISION = 1


class BackendError(Exception):
    """Raised when a program cannot be built or is not there; the message is one line and names the cure."""


@dataclass(frozen=True)
class Recipe:
    """How one program is built.

    Attributes:
        name: The folder with the lock files, and the name on the command line.
        version_key: The key in versions.env that `--version` is to answer with.
        packages: Go packages, one per binary; the last part of the path is the binary's name.
        binary: The binary's name, of one package, where the path does not end in it.
        tags: Build tags, with commas.
        stamps: Go variables that take the version at link time.
        manifest: The sources are generated from manifest.yaml first (the collector).
    """

    name: str
    version_key: str
    packages: tuple[str, ...]
    tags: str = "netgo"
    stamps: tuple[str, ...] = ()
    manifest: bool = False
    # Not in the text that keys a build: the name decides where the binary is, not what is in it.
    binary: str = field(default="", repr=False)

    @property
    def folder(self) -> Path:
        """Where its lock files are."""
        return NATIVE / self.name

    @property
    def binaries(self) -> tuple[str, ...]:
        """What it builds."""
        if self.output_name:
            return (self.output_name,)
        return tuple(package.rsplit("/", 1)[1] for package in self.packages)

    @property
    def output_name(self) -> str:
        """What Go is told to call the binary; empty where it finds the name itself."""
        return self.name if self.manifest else self.binary

    @property
    def version(self) -> str:
        """What it is released as."""
        return read_versions()[self.version_key]


BUILDER = Recipe("builder", "OTELCOL_VERSION", ("go.opentelemetry.io/collector/cmd/builder",))

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("otelcol", "OTELCOL_VERSION", (".",), manifest=True),
        Recipe(
            "prometheus",
            "PROMETHEUS_VERSION",
            (
                "github.com/prometheus/prometheus/cmd/prometheus",
                "github.com/prometheus/prometheus/cmd/promtool",
            ),
            # Without the discoveries of twenty clouds and their SDKs; by file, HTTP and static list stay.
            tags="netgo,remove_all_sd",
            stamps=("github.com/prometheus/common/version.Version",),
        ),
        Recipe(
            "loki",
            "LOKI_VERSION",
            ("github.com/grafana/loki/v3/cmd/loki",),
            stamps=("github.com/grafana/loki/v3/pkg/util/build.Version",),
        ),
        Recipe(
            "jaeger",
            "JAEGER_VERSION",
            ("github.com/jaegertracing/jaeger/cmd/jaeger",),
            stamps=("github.com/jaegertracing/jaeger/internal/version.latestVersion",),
        ),
        Recipe(
            "alertmanager",
            "ALERTMANAGER_VERSION",
            (
                "github.com/prometheus/alertmanager/cmd/alertmanager",
                "github.com/prometheus/alertmanager/cmd/amtool",
            ),
            stamps=("github.com/prometheus/common/version.Version",),
        ),
        # These two run nothing: they read kubernetes/ and compose.yaml as kubectl and Docker do.
        Recipe(
            "kustomize",
            "KUSTOMIZE_VERSION",
            ("sigs.k8s.io/kustomize/kustomize/v5",),
            stamps=("sigs.k8s.io/kustomize/api/provenance.version",),
            binary="kustomize",
        ),
        Recipe(
            "compose",
            "COMPOSE_VERSION",
            ("github.com/compose-spec/compose-go/v2/cmd",),
            binary="compose",
        ),
    )
}


def read_versions() -> dict[str, str]:
    """Returns versions.env as a mapping."""
    lines = (line.strip() for line in VERSIONS_FILE.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def cache_folder() -> Path:
    """Returns where built programs are kept (it need not exist yet)."""
    if explicit := os.environ.get("SIGHTLINE_BACKENDS_CACHE"):
        return Path(explicit).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().resolve() / "sightline" / "backends"


def build_key(recipe: Recipe) -> str:
    """Returns a hash over what decides the binary: recipe, lock files, manifest, platform."""
    digest = hashlib.sha256(
        f"{RECIPE_REVISION} {recipe} {recipe.version} {platform.system()} {platform.machine()}".encode()
    )
    for path in _inputs(recipe):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _inputs(recipe: Recipe) -> list[Path]:
    locks = [recipe.folder / "go.mod", recipe.folder / "go.sum"]
    return [*locks, recipe.folder / "manifest.yaml", BUILDER.folder / "go.mod"] if recipe.manifest else locks


def install_folder(recipe: Recipe) -> Path:
    """Returns the folder that holds the binaries of a recipe once it is built."""
    return cache_folder() / f"{recipe.name}-{recipe.version}-{build_key(recipe)}"


def is_built(recipe: Recipe) -> bool:
    """Tells whether every binary of a recipe is in the cache."""
    return all((install_folder(recipe) / name).is_file() for name in recipe.binaries)


def binary_path(name: str) -> Path:
    """Returns the path of a built binary, by its own name (`otelcol`, `promtool`, ...).

    Raises:
        BackendError: No recipe has such a binary, or it is not built yet.
    """
    owners = [recipe for recipe in RECIPES.values() if name in recipe.binaries]
    if not owners:
        known = ", ".join(binary for recipe in RECIPES.values() for binary in recipe.binaries)
        raise BackendError(f"no program {name!r}; there are {known}")
    if not is_built(owners[0]):
        raise BackendError(f"{name} is not built; run `make backends`")
    return install_folder(owners[0]) / name
