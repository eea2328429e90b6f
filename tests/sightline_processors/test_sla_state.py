"""Windows survive a restart, whatever the clocks, the disk and the other processes do."""

import json
import logging
import os
import stat
import subprocess
import sys
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sightline_processors.sla_clock import EPOCH, Clocks

from sightline_processors import report
from sightline_processors.sla import state as state_module
from sightline_processors.sla.objectives import parse_objective
from sightline_processors.sla.state import SavedWindows, StateFolder
from sightline_processors.sla.tracker import SlaTracker
from sightline_processors.sla.windows import Counts

DEFAULT = parse_objective("500ms@99%, 99.9%")


@pytest.fixture(autouse=True)
def fresh_reports(monkeypatch):
    monkeypatch.setattr(report, "_kinds", {})


class Process:
    """Is a tracker with clocks of its own, as a process has; `end` is what its end does."""

    def __init__(self, folder, clocks=None, service=""):
        self.clocks = clocks or Clocks()
        self.tracker = SlaTracker(self.clocks.read_monotonic, self.clocks.read_wall)
        self.tracker.set_objectives([DEFAULT])
        self.tracker.keep_state(folder, service)

    def fail(self, number):
        self.tracker.cell(DEFAULT, "GET", "/").add("failed", [0.1] * number)
        return self

    def bad(self):
        """Returns the failed requests of each window."""
        (objective,) = self.tracker.objective_statuses()
        return [window.bad for window in objective.kinds[1].windows]

    def end(self, *, is_killed=False):
        if not is_killed:
            self.tracker.save()
        self.tracker._keeper._folder.abandon()


def later(seconds, wall=None):
    """Returns the clocks of a machine that was started anew, some time after `EPOCH`."""
    return Clocks(5.0, EPOCH + seconds if wall is None else wall)


def files(folder, suffix=".state"):
    return sorted(path.name for path in folder.iterdir() if path.suffix == suffix)


def state_file(folder):
    (path,) = folder.glob("*.state")
    return path


def test_a_restarted_process_goes_on_where_the_other_ended(tmp_path):
    Process(tmp_path).fail(3).end()
    process = Process(tmp_path, later(5)).fail(1)
    assert process.bad() == [4, 4, 4, 4]
    process.end()
    assert Process(tmp_path, later(9)).bad() == [4, 4, 4, 4]
    assert files(tmp_path) == ["sla-00000000-0.state"]


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        (299, [2, 2, 2, 2]),
        (301, [0, 2, 2, 2]),
        (3_700, [0, 0, 2, 2]),
        (22_000, [0, 0, 0, 2]),
        (260_000, [0] * 4),
    ],
)
def test_what_became_too_old_meanwhile_is_dropped(tmp_path, seconds, left):
    Process(tmp_path).fail(2).end()
    assert Process(tmp_path, later(seconds)).bad() == left


def test_a_wall_clock_that_went_back_in_between_takes_no_time(tmp_path):
    Process(tmp_path).fail(2).end()
    process = Process(tmp_path, later(0, wall=EPOCH - 40 * 86_400))
    assert process.bad() == [2, 2, 2, 2]
    process.clocks.advance(301)
    assert process.bad() == [0, 2, 2, 2]


def test_a_wall_clock_that_was_set_during_a_process_changes_no_age(tmp_path):
    first = Process(tmp_path).fail(2)
    first.clocks.advance(100)
    first.clocks.wall += 7_200
    first.end()
    process = Process(tmp_path, Clocks(5.0, first.clocks.wall + 10))
    assert process.bad() == [2, 2, 2, 2]
    process.clocks.advance(200)
    assert process.bad() == [0, 2, 2, 2]


def test_only_windows_are_kept_counters_begin_at_0(tmp_path):
    Process(tmp_path).fail(2).end()
    process = Process(tmp_path, later(1))
    assert process.tracker.cells() == []
    assert process.tracker.status().objectives[0].requests["failed"] == 0


def test_files_are_private(tmp_path):
    folder = tmp_path / "made" / "here"
    Process(folder).fail(1).end()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_state_is_written_every_half_minute_by_whoever_reads(tmp_path):
    process = Process(tmp_path).fail(1)
    process.clocks.advance(29)
    process.tracker.save_if_due()
    assert files(tmp_path) == []
    process.clocks.advance(1)
    process.tracker.save_if_due()
    process.end(is_killed=True)
    assert Process(tmp_path, later(31)).bad() == [1, 1, 1, 1]


def test_processes_side_by_side_have_a_slot_each(tmp_path):
    first, second = Process(tmp_path).fail(1), Process(tmp_path).fail(2)
    first.end()
    second.end()
    assert files(tmp_path) == ["sla-00000000-0.state", "sla-00000000-1.state"]
    assert [Process(tmp_path, later(1)).bad()[3] for _ in range(2)] == [1, 2]


def test_what_nobody_takes_within_a_minute_is_taken_over_once(tmp_path):
    processes = [Process(tmp_path).fail(number) for number in (1, 2, 4)]
    for process in processes:
        process.end()
    survivor, other = Process(tmp_path, later(1)), Process(tmp_path, later(1))
    assert (survivor.bad()[3], other.bad()[3]) == (1, 2)
    survivor.clocks.advance(30)
    survivor.tracker.save()
    assert survivor.bad()[3] == 1, "the third may still come back"
    for process in (survivor, other):
        process.clocks.advance(60)
        process.tracker.save()
    assert (survivor.bad()[3], other.bad()[3]) == (5, 2)
    assert files(tmp_path) == ["sla-00000000-0.state", "sla-00000000-1.state"]


def test_the_state_of_a_process_that_lives_is_not_taken_over(tmp_path):
    living = Process(tmp_path).fail(1)
    living.tracker.save()
    other = Process(tmp_path, later(500))
    other.tracker.save()
    assert other.bad() == [0, 0, 0, 0]


def test_services_that_share_a_folder_do_not_mix(tmp_path):
    Process(tmp_path, service="shop").fail(1).end()
    other = Process(tmp_path, later(1), service="search")
    other.clocks.advance(100)
    other.tracker.save()
    assert other.bad() == [0, 0, 0, 0]
    assert Process(tmp_path, later(120), service="shop").bad()[3] == 1


KILLED = """
import os, sys
from sightline_processors.sla.objectives import parse_objective
from sightline_processors.sla.tracker import SlaTracker
tracker = SlaTracker()
tracker.keep_state(sys.argv[1])
tracker.cell(parse_objective("500ms@99%, 99.9%"), "GET", "/").add("failed", [0.1, 0.2])
tracker.save()
os.kill(os.getpid(), 9)
"""


def test_a_process_that_is_killed_leaves_its_slot_to_the_next(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    tracker = SlaTracker()
    tracker.set_objectives([DEFAULT])
    tracker.keep_state(tmp_path)
    assert [each.bad for each in tracker.objective_statuses()[0].kinds[1].windows] == [2, 2, 2, 2]


def test_a_forked_process_has_a_slot_of_its_own_and_leaves_the_parents_alone(tmp_path):
    process = Process(tmp_path).fail(5)
    child = os.fork()
    if not child:
        process.fail(1).tracker.save()
        os._exit(process.bad()[3])
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    process.tracker.save()
    assert files(tmp_path) == ["sla-00000000-0.state", "sla-00000000-1.state"]
    assert process.bad()[3] == 5
    process.clocks.advance(61)
    process.tracker.save()
    assert process.bad()[3] == 6


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


BAD = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-20],
    "only the head": lambda content: content.partition(b"\n")[0],
    "a later version": lambda content: content.replace(b"SLA 1", b"SLA 2"),
    "foreign": lambda content: b"\x00\xff not ours",
    "a list": lambda content: whole(b"[]"),
    "not JSON": lambda content: whole(b"{"),
    "deep": lambda content: whole(b"[" * 200_000),
    "no times": lambda content: whole(b'{"objectives":{}}'),
    "not a number": lambda content: whole(b'{"taken_at":NaN,"wall":1,"objectives":{}}'),
    "slots of words": lambda content: whole(
        b'{"taken_at":1,"wall":1,"objectives":{"default":{"5m":[["a",1,1,1,1]]}}}'
    ),
    "a slot too narrow": lambda content: whole(
        b'{"taken_at":1,"wall":1,"objectives":{"default":{"5m":[[1,1]]}}}'
    ),
    "negative counts": lambda content: whole(
        b'{"taken_at":1,"wall":1,"objectives":{"default":{"5m":[[1,1,-1,1,1]]}}}'
    ),
}


def whole(body):
    return b"SIGHTLINE SLA 1 %08x\n%s" % (zlib.crc32(body), body)


@pytest.mark.parametrize(("name", "spoil"), BAD.items())
def test_a_bad_file_is_one_line_and_replaced_by_the_next_save(tmp_path, caplog, name, spoil):
    Process(tmp_path).fail(2).end()
    path = state_file(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    process = Process(tmp_path, later(1))
    assert process.bad() == [0, 0, 0, 0]
    assert len(lines(caplog)) == 1
    assert "SLA windows are not kept over a restart: a file of state is not readable" in lines(caplog)[0]
    process.fail(1).end()
    assert Process(tmp_path, later(2)).bad()[3] == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_to_a_file_raises_or_changes_counts(tmp_path, data):
    content = state_module._encoded(
        SavedWindows(EPOCH, EPOCH, {"default": {"5m": [(int(EPOCH // 10), Counts(1, 2, 3, 4))]}})
    )
    position = data.draw(st.integers(0, len(content) - 1))
    changed = (
        content[:position]
        + bytes([content[position] ^ data.draw(st.integers(1, 255))])
        + content[position + 1 :]
    )
    (tmp_path / "sla-00000000-0.state").write_bytes(changed)
    folder = StateFolder(tmp_path)
    assert folder.claim() is None
    folder.abandon()


def test_an_orphan_that_is_no_good_is_one_line_and_left_alone(tmp_path, caplog):
    (tmp_path / "sla-00000000-7.state").write_bytes(b"somebody else's")
    process = Process(tmp_path)
    for _ in range(3):
        process.clocks.advance(100)
        process.tracker.save()
    assert len(lines(caplog)) == 1
    assert report.reported("sla_state") == 1
    assert (tmp_path / "sla-00000000-7.state").read_bytes() == b"somebody else's"


def test_links_are_not_followed(tmp_path):
    Process(tmp_path / "elsewhere").fail(7).end()
    elsewhere = state_file(tmp_path / "elsewhere")
    precious = elsewhere.read_bytes()
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "sla-00000000-0.state").symlink_to(elsewhere)
    (folder / "sla-00000000-0.part").symlink_to(elsewhere)
    process = Process(folder).fail(1)
    assert process.bad()[3] == 1
    process.end()
    assert elsewhere.read_bytes() == precious
    assert Process(folder, later(1)).bad()[3] == 1


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    Process(tmp_path).fail(1).end()
    monkeypatch.setattr(state_module, "MAX_STATE_BYTES", 10)
    assert Process(tmp_path, later(1)).bad() == [0, 0, 0, 0]


def test_a_folder_that_cannot_be_made_is_one_line_and_harms_nobody(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    process = Process(tmp_path / "file" / "state").fail(1)
    for _ in range(3):
        process.tracker.save()
    assert process.bad()[3] == 1
    assert len(lines(caplog)) == 1
    assert "SIGHTLINE_STATE_DIR must be a folder that this process may write to" in lines(caplog)[0]


def test_a_folder_of_an_impossible_name_harms_nobody(caplog):
    process = Process("state\0").fail(1)
    process.tracker.save()
    assert process.bad()[3] == 1
    assert len(lines(caplog)) == 1


def test_a_disk_that_is_full_keeps_the_last_state(tmp_path, monkeypatch, caplog):
    process = Process(tmp_path).fail(1)
    process.tracker.save()

    def full(descriptor, mode):
        os.close(descriptor)
        raise OSError(28, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(state_module, "open", full, raising=False)
        process.fail(1).end()
    assert len(lines(caplog)) == 1
    assert Process(tmp_path, later(1)).bad()[3] == 1


def test_when_all_slots_are_taken_a_process_does_without(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(state_module, "MAX_PROCESSES", 2)
    processes = [Process(tmp_path) for _ in range(3)]
    processes[2].fail(1).tracker.save()
    assert processes[2].bad()[3] == 1
    assert "all 2 slots of the folder are taken" in lines(caplog)[0]


def test_the_state_of_many_objectives_is_small(tmp_path):
    process = Process(tmp_path)
    for number in range(10):
        objective = parse_objective("99%", name=f"objective-{number}")
        cell = process.tracker.cell(objective, "GET", "/")
        for _ in range(300):
            cell.add("failed", [0.1] * 1_000)
            process.clocks.advance(7)
    process.end()
    assert state_file(tmp_path).stat().st_size < 60_000
    assert json.loads(state_file(tmp_path).read_bytes().partition(b"\n")[2])["wall"] == process.clocks.wall
