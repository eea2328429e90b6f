"""Writes the dashboards' JSON files; with `--check`, tells which of them are not what the source makes."""

import argparse
import sys
from pathlib import Path
from typing import Final

from dashboards import DASHBOARDS

FOLDER: Final = Path(__file__).resolve().parent / "provisioning" / "dashboards" / "sightline"


def stale_files() -> list[Path]:
    """Returns the files that the source would write differently, or not at all."""
    made = {FOLDER / f"{each.uid}.json": each.text() for each in DASHBOARDS}
    old = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    return sorted(path for path in made.keys() | old.keys() if made.get(path) != old.get(path))


def write() -> None:
    """Writes all files, and removes those of dashboards that are no more."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for each in DASHBOARDS:
        (FOLDER / f"{each.uid}.json").write_text(each.text(), encoding="utf-8")


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is old")
    stale = stale_files()
    if not parser.parse_args().check:
        write()
        stale = []
    for path in stale:
        print(f"{path.name} is not what its source makes: run python {Path(__file__).name}")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
