"""Waiting for a server without a request, which would leave telemetry."""

import socket
import subprocess
import time


def listens(process: "subprocess.Popen[bytes]", port: int, timeout_seconds: float) -> bool:
    """Waits for a listening socket on loopback; tells whether it came in time, with the process alive."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
