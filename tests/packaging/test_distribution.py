"""The built wheel and sdist: what is in them, and what a clean environment gets from them."""

import ast
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "dev.txt"
PROCESSORS = ROOT / "processors" / "sightline_processors"
BIN = Path(sys.executable).parent

PUBLIC_API = """
import inspect, json, sightline, sightline_processors

def described(member):
    if inspect.isclass(member) and issubclass(member, Exception):
        return [base.__name__ for base in member.__mro__]  # exceptions have no signature of their own
    if inspect.ismodule(member):
        functions = inspect.getmembers(member, inspect.isfunction)
        return {name: str(inspect.signature(function)) for name, function in functions if name[0] != "_"}
    if not inspect.isclass(member):
        return str(inspect.signature(member))
    methods = {
        name: str(inspect.signature(getattr(member, name)))
        for name in dir(member)
        if not name.startswith("_") and inspect.isroutine(getattr(member, name))
    }
    return [str(inspect.signature(member)), methods]

print(json.dumps({
    module.__name__: {name: described(getattr(module, name)) for name in module.__all__}
    for module in (sightline, sightline_processors)
}))
"""
ENTRY_POINTS = """
import json
from importlib.metadata import distribution

loaded = {}
for entry_point in distribution("sightline").entry_points:
    if entry_point.group != "pytest11":  # pytest is not part of the base installation
        found = entry_point.load()
        loaded[f"{entry_point.group}:{entry_point.name}"] = f"{found.__module__}.{found.__qualname__}"
print(json.dumps(loaded))
"""


def _run(
    *command: str | Path, cwd: Path | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "SIGHTLINE_", "PYTHON"))
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**kept, **variables}, timeout=240
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds sdist and wheel and returns their folder."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """Returns the wheel."""
    (wheel,) = built.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Clean:
    """A virtual environment with the wheel and its base dependencies, outside the repository."""

    folder: Path

    def python(self, code: str) -> "subprocess.CompletedProcess[str]":
        """Runs code in the environment."""
        return _run(self.folder / "bin" / "python", "-c", code, cwd=self.folder)

    def command(self, name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Runs one of the environment's commands."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return _run(self.folder / "bin" / name, *arguments, cwd=self.folder, PATH=path, **variables)


@pytest.fixture(scope="session")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Installs the wheel alone, at the locked versions."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    constraints = folder.parent / "constraints.txt"
    constraints.write_text(_without_hashes(LOCK.read_text()))
    _run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder)
    _run(BIN / "uv", "pip", "install", "--quiet", "--python", folder, "--constraints", constraints, wheel)
    return Clean(folder)


def _without_hashes(requirements: str) -> str:
    # uv refuses a wheel without a hash as soon as a constraint has one.
    lines = (line.split(" \\")[0] for line in requirements.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith(("#", "--hash")))


def test_wheel_holds_both_packages_typed_and_the_collector_configuration(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    (data,) = {name.split("/")[0] for name in names if ".data/" in name}
    assert {
        "sightline/__init__.py",
        "sightline/py.typed",
        "sightline_processors/__init__.py",
        "sightline_processors/py.typed",
        f"{data}/data/share/sightline/collector-config/otelcol.yaml",
    } <= set(names)


def test_wheel_holds_every_module_of_both_packages(wheel: Path) -> None:
    names = {
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("sightline") and ".d" not in name.split("/")[0]
    }
    sources = {
        str(path.relative_to(folder))
        for folder in (ROOT / "instrumentation", ROOT / "processors")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".data", ".dist-info"))} == {
        "sightline",
        "sightline_processors",
        "sightline-startup.pth",
    }
    assert {"/".join(name.split("/")[1:5]) for name in names if ".data/" in name} >= {
        "data/share/sightline/collector-config"
    }
    assert not [name for name in names if "/test_" in name or "__pycache__" in name or name.endswith(".pyc")]
    assert not [name for name in names if ".stack" in name or name.endswith((".so", ".exe", ".log"))]


def test_wheel_holds_no_path_of_the_machine_that_built_it(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    assert not [name for name in archive.namelist() if str(ROOT).encode() in archive.read(name)]


def test_sdist_holds_what_the_project_file_includes(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for included in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]:
        entry = included.strip("/")
        assert [name for name in names if name == entry or name.startswith(f"{entry}/")], entry
    assert {"pyproject.toml", "PKG-INFO", "tests/packaging/test_distribution.py"} <= names


def test_wheel_built_from_the_sdist_is_the_same(built: Path, wheel: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=source)
    (again,) = (tmp_path / "again").glob("*.whl")
    first, second = zipfile.ZipFile(wheel), zipfile.ZipFile(again)
    assert sorted(second.namelist()) == sorted(first.namelist())
    assert [name for name in first.namelist() if first.read(name) != second.read(name)] == []


def test_clean_installation_is_consistent(clean: Clean) -> None:
    _run(BIN / "uv", "pip", "check", "--python", clean.folder)


def test_clean_installation_holds_no_web_framework_grpc_or_test_tool(clean: Clean) -> None:
    listed = _run(BIN / "uv", "pip", "list", "--quiet", "--format", "json", "--python", clean.folder).stdout
    names = {package["name"] for package in json.loads(listed)}
    assert "sightline" in names
    assert names.isdisjoint({"fastapi", "starlette", "uvicorn", "grpcio", "pytest", "httpx", "hypothesis"})


def test_both_packages_import_without_output_in_a_clean_installation(clean: Clean) -> None:
    done = clean.python("import sightline, sightline_processors")
    assert (done.stdout, done.stderr) == ("", "")


def test_wheel_and_editable_installation_have_the_same_api(clean: Clean, tmp_path: Path) -> None:
    editable = json.loads(_run(sys.executable, "-c", PUBLIC_API, cwd=tmp_path).stdout)
    assert json.loads(clean.python(PUBLIC_API).stdout) == editable
    assert list(editable["sightline"]) == sorted(editable["sightline"])


def test_version_is_that_of_the_project_file(clean: Clean) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (
        clean.python("import sightline; print(sightline.__version__)").stdout.strip()
        == project["project"]["version"]
    )


@pytest.fixture(scope="session")
def loaded(clean: Clean) -> "subprocess.CompletedProcess[str]":
    """Loads every entry point in the clean environment."""
    return clean.python(ENTRY_POINTS)


def test_every_entry_point_loads_in_a_clean_installation(loaded: "subprocess.CompletedProcess[str]") -> None:
    found: dict[str, Any] = json.loads(loaded.stdout)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(found) == {
        f"{group}:{name}" for group in project if group != "pytest11" for name in project[group]
    }
    assert found["opentelemetry_distro:sightline"] == "sightline.distro.SightlineDistro"
    assert found["opentelemetry_instrumentor:sightline"] == "sightline.instrumentor.SightlineInstrumentor"


def test_grpc_names_stand_for_http_exporters_with_one_line(
    loaded: "subprocess.CompletedProcess[str]",
) -> None:
    found: dict[str, Any] = json.loads(loaded.stdout)
    exporters = {name: value for name, value in found.items() if name.endswith(":otlp_proto_grpc")}
    assert exporters == {
        "opentelemetry_traces_exporter:otlp_proto_grpc": (
            "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter"
        ),
        "opentelemetry_metrics_exporter:otlp_proto_grpc": (
            "opentelemetry.exporter.otlp.proto.http.metric_exporter.OTLPMetricExporter"
        ),
        "opentelemetry_logs_exporter:otlp_proto_grpc": (
            "opentelemetry.exporter.otlp.proto.http._log_exporter.OTLPLogExporter"
        ),
    }
    (line,) = loaded.stderr.splitlines()
    assert line.startswith("OTLP over gRPC was asked for, but its exporter is not installed")
    assert "sightline[grpc]" in line


def test_stock_command_runs_any_program_where_fastapi_is_not_installed(clean: Clean) -> None:
    none = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = clean.command("opentelemetry-instrument", "python", "-c", "print('ran')", **none)
    assert (done.stdout, done.stderr) == ("ran\n", "")


def test_stock_command_with_the_defaults_runs_and_ends_soon_without_a_collector(clean: Clean) -> None:
    done = clean.command(
        "opentelemetry-instrument", "python", "-c", "pass", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9"
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_grpc_protocol_without_its_exporter_costs_one_line(clean: Clean) -> None:
    variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = clean.command("opentelemetry-instrument", "python", "-c", "pass", **variables)
    assert done.stderr.count("OTLP over gRPC was asked for") == 1
    assert "http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_collector_configuration_is_installed_under_share(clean: Clean) -> None:
    installed = clean.folder / "share" / "sightline" / "collector-config" / "otelcol.yaml"
    assert installed.read_bytes() == (ROOT / "collector-config" / "otelcol.yaml").read_bytes()


def test_importing_the_processors_imports_no_framework_and_not_sightline(tmp_path: Path) -> None:
    code = "import json, sys, sightline_processors; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(_run(sys.executable, "-c", code, cwd=tmp_path).stdout)
    roots = {module.partition(".")[0] for module in modules}
    assert "sightline_processors" in roots
    assert roots.isdisjoint({"sightline", "fastapi", "starlette"})


@pytest.mark.parametrize("path", sorted(PROCESSORS.rglob("*.py")), ids=lambda path: path.stem)
def test_no_source_of_the_processors_mentions_sightline_or_a_framework(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert imported.isdisjoint({"sightline", "fastapi", "starlette"})
