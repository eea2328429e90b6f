"""CPU and memory are those of a process with its children."""

import subprocess
import sys
import time

import pytest
from benchmarks.processes import cores, cpu_seconds, rss_mb
from benchmarks.servers import get

BURN = "import time\nwhile time.process_time() < {}: pass\n"
WAIT = "print(flush=True)\ntime.sleep(60)"


@pytest.mark.parametrize(
    "program",
    [
        BURN.format(0.3) + WAIT,
        "import time, threading\ndef work():\n while time.thread_time() < 0.3: pass\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n" + WAIT,
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {BURN.format(0.3)!r}])\n"
        + WAIT,
    ],
    ids=["process", "thread that has ended", "child that has ended"],
)
def test_cpu_time_is_that_of_all_threads_and_children(program):
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 0.28 < cpu_seconds(process.pid) < 1.0
        process.kill()


def test_memory_includes_living_children():
    program = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {!r}])\ntime.sleep(60)"
    child = "import os, time\nbytearray(os.urandom(30_000_000))[:]\nheld = bytes(30_000_000)\ntime.sleep(5)"
    with subprocess.Popen([sys.executable, "-c", program.format(child)]) as process:
        deadline = time.monotonic() + 10
        while rss_mb(process.pid) < 15 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert rss_mb(process.pid) > 15
        process.kill()


def test_server_and_client_have_a_core_each_where_there_are_two():
    server, others = cores()
    assert len(server) == 1
    assert server.isdisjoint(others) or server == others


def test_the_receiver_counts_over_http_and_starts_anew(receiver):
    port = int(receiver.values["sink"].rpartition(":")[2])
    receiver.reset()
    get(port, "/v1/unknown")
    assert receiver.counts()["posts"] == {"/v1/unknown": 1}
    receiver.reset()
    assert receiver.counts()["posts"] == {}
