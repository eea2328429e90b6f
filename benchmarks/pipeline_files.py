"""What the back ends of the pipeline have written: the size of folders, and of Prometheus' samples."""

from pathlib import Path
from typing import Final

_FILE_HEADER_BYTES: Final = 8
_CHUNK_HEADER_BYTES: Final = 25
"""Series, first and last time (8 bytes each), encoding (1).

Source: Prometheus, tsdb/docs/format/head_chunks.md.
"""

_CHECKSUM_BYTES: Final = 4
_BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`, whatever the file system's."""


def disk_bytes(folder: Path) -> int:
    """Returns what the files below a folder take on the disk; files may come and go meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_blocks * _BLOCK_BYTES
        except FileNotFoundError:
            continue
    return total


def bytes_per_sample(folder: Path) -> float:
    """Returns the mean size of a sample in the complete chunks of Prometheus' head: as blocks have them.

    Raises:
        RuntimeError: When there is no complete chunk.
    """
    size = samples = 0
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), _FILE_HEADER_BYTES
        while at + _CHUNK_HEADER_BYTES < len(data) and any(data[at : at + _CHUNK_HEADER_BYTES]):
            length, at = _varint(data, at + _CHUNK_HEADER_BYTES)
            samples += int.from_bytes(data[at : at + 2])  # a chunk begins with their number
            size += length
            at += length + _CHECKSUM_BYTES
    if not samples:
        raise RuntimeError(f"no chunk of Prometheus is complete in {folder}")
    return size / samples


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns an unsigned number of base 128, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004  # the bit that says there is more
            return value, at
