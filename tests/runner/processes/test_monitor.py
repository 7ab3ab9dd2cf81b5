"""Rank 0's monitor and its clients, all in this process; what would end a process is only noted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runner.loop.stop import PeerLost
from runner.processes.json_socket import JsonSocket
from runner.processes.monitor import Monitor
from runner.processes.monitor_client import End, MonitorClient, Place

TIMEOUT = 1.0
NAME = "this run"


class Watch:
    """A monitor, its clients, and what they did."""

    def __init__(self, world: int, *, server: bool = False, machine: str | None = None) -> None:
        self.faults: list[str] = []
        self.broken: list[tuple[int, ...]] = []
        self.overdue: list[tuple[str, int]] = []
        self.ends: dict[int, End] = {}
        self.clients: dict[int, MonitorClient] = {}
        self.monitor = Monitor(
            world,
            TIMEOUT,
            server=server,
            machine=machine,
            welcome={"welcome": NAME, "folder": "somewhere", "host": "here", "pid": os.getpid()},
            break_off=lambda *ranks: self.broken.append(ranks),
            on_fault=self.faults.append,
            on_overdue=lambda text, code: self.overdue.append((text, code)),
        )
        self.monitor.start()

    def join(self, rank: int, machine: str | None = None, pid: int | None = None) -> MonitorClient:
        client = MonitorClient(
            rank,
            TIMEOUT,
            name="server",
            machine=machine,
            locate=lambda: Place("127.0.0.1", self.monitor.port, NAME),
            on_end=lambda end: self.ends.update({rank: end}),
        )
        if pid is not None:
            client.hello["pid"] = pid
        client.start()
        self.clients[rank] = client
        return client

    def silence(self, rank: int) -> None:
        """Have a client say nothing any more, as that of a process that is stopped."""
        client = self.clients[rank]
        client._over.set()
        client._thread.join()

    def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return value


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def make(world: int, **options: Any) -> Watch:
        made.append(Watch(world, **options))
        return made[-1]

    yield make
    for one in made:
        for client in one.clients.values():
            client.finish(0)
        one.monitor.finish(0)


def test_all_ranks_are_waited_for(watch: Callable[..., Watch]):
    run = watch(3)
    run.join(1)
    assert not run.monitor._all_here.is_set()
    run.join(2)
    assert run.monitor.wait_for_all()


def test_who_did_not_come_is_named(watch: Callable[..., Watch]):
    run = watch(4, server=True)
    begin = time.monotonic()
    run.join(2)
    assert not run.monitor.wait_for_all()
    assert time.monotonic() - begin < TIMEOUT + 1
    assert run.faults == ["worker 0 (rank 1), worker 2 (rank 3) did not come within 1 s (cluster.timeout)"]
    assert run.until(lambda: run.ends[2].text) == run.faults[0]
    assert not run.ends[2].first


def test_a_closed_connection_is_a_death(watch: Callable[..., Watch]):
    run = watch(3)
    run.join(1).mark_step(7)
    run.join(2)
    time.sleep(0.2)
    connection = run.clients[1]._connection
    assert connection is not None
    run.silence(1)
    connection.close()
    assert run.until(lambda: run.monitor.wait_fault()).startswith("worker 1 (rank 1, host ")
    [said] = run.faults
    assert f"pid {os.getpid()}) died; its last step was number 7, 0." in said
    # All transfers are broken: whoever waits for the dead rank is woken.
    assert run.broken == [()]
    run.until(lambda: 2 in run.ends)
    assert (run.ends[2].code, run.ends[2].first) == (3, False)


def test_a_silent_rank_is_noticed_in_time(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1)
    assert run.monitor.wait_for_all()
    begin = time.monotonic()
    run.silence(1)
    run.until(lambda: run.faults)
    assert 0.7 * TIMEOUT < time.monotonic() - begin < TIMEOUT + 1
    assert "is stuck or out of reach: no heartbeat for 0.8 s; before its first step" in run.faults[0]


def test_rank_0_is_ended_if_it_does_not_end(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1)
    assert run.monitor.wait_for_all()
    run.silence(1)
    run.until(lambda: run.overdue)
    assert run.overdue == [(run.faults[0], 3)]


def test_a_server_goes_on_without_a_worker(watch: Callable[..., Watch]):
    run = watch(3, server=True)
    run.join(1)
    run.join(2)
    assert run.monitor.wait_for_all()
    assert run.monitor.find_lost() == []
    run.silence(2)
    [(worker, what)] = run.until(run.monitor.find_lost)
    assert worker == 1
    assert "worker 1 (rank 2, host" in what
    assert run.broken == [(2,)]
    assert run.faults == []
    assert run.monitor.fault is None
    # It comes back: the run goes on without it.
    with pytest.raises(PeerLost) as lost:
        run.join(2)
    assert lost.value.message == "the run goes on without rank 2, which was lost before"


def test_a_stuck_rank_of_this_machine_is_killed(watch: Callable[..., Watch]):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stuck:
        run = watch(2, server=True, machine="0")
        run.join(1, machine="0", pid=stuck.pid)
        assert run.monitor.wait_for_all()
        run.monitor.find_lost()
        run.silence(1)
        run.until(run.monitor.find_lost)
        assert stuck.wait(5) == -signal.SIGKILL


def test_a_stuck_rank_is_killed_by_its_neighbour(watch: Callable[..., Watch]):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stuck:
        run = watch(3, server=True, machine="0")
        run.join(1, machine="1", pid=stuck.pid)
        run.join(2, machine="1")
        assert run.monitor.wait_for_all()
        run.monitor.find_lost()
        run.silence(1)
        run.until(run.monitor.find_lost)
        assert stuck.wait(5) == -signal.SIGKILL


def test_the_culprit_is_named_and_not_who_follows(watch: Callable[..., Watch]):
    """A rank that lost its peer says so and ends; whom it lost is found a little later."""
    run = watch(3)
    run.join(1)
    run.join(2)
    assert run.monitor.wait_for_all()
    run.silence(2)
    run.silence(1)
    time.sleep(0.3)
    run.clients[1].finish(3)
    run.until(lambda: run.faults)
    assert run.faults[0].startswith("worker 2 (rank 2")


def test_an_exit_code_is_handed_on(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1).finish(2)
    run.until(lambda: run.faults)
    assert "ended with exit code 2; before its first step" in run.faults[0]
    assert run.monitor.fault is not None
    assert run.monitor.fault[1] == 2


@pytest.mark.parametrize(("code", "own"), [(0, 0), (2, 2), (3, 3), (143, 0)])
def test_the_end_of_rank_0_is_the_ranks_end(watch: Callable[..., Watch], code: int, own: int):
    """A signal is rank 0's own exit code: the others ended as they should."""
    run = watch(2)
    client = run.join(1)
    assert run.monitor.wait_for_all()
    run.monitor.finish(code)
    end = client.wait_end()
    assert end is not None
    assert end.code == own
    # Only where something is wrong is there something to say.
    assert bool(end.text) == bool(own)
    assert not own or f"ended with exit code {own}" in end.text
    assert [client.may_tell(), client.may_tell()] == [True, False]


def test_a_dead_rank_0_is_named(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1)
    assert run.monitor.wait_for_all()
    run.monitor.mark_step(4)
    time.sleep(0.2)
    run.monitor._over.set()
    run.monitor._thread.join()
    connection = run.monitor.peers[1].connection
    assert connection is not None
    connection.close()
    end = run.until(lambda: run.ends.get(1))
    assert end.text.startswith(f"server (rank 0, host here, pid {os.getpid()}) died; its last update was number 4")
    assert (end.code, end.first, end.dead) == (3, True, True)


def test_a_silent_rank_0_is_noticed_in_time(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1)
    assert run.monitor.wait_for_all()
    begin = time.monotonic()
    run.monitor._over.set()
    run.monitor._thread.join()
    end = run.until(lambda: run.ends.get(1))
    assert time.monotonic() - begin < TIMEOUT + 1
    assert "server (rank 0, host here" in end.text
    assert "is stuck or out of reach" in end.text
    assert (end.first, end.dead) == (True, False)


def test_a_new_connection_replaces_a_silent_one(watch: Callable[..., Watch]):
    """As after a wire was cut and mended: the system retries the old connection only now and then."""
    run = watch(2)
    client = run.join(1)
    assert run.monitor.wait_for_all()
    old = client._connection
    assert old is not None
    old.broken = True
    run.until(lambda: client._connection is not old)
    time.sleep(1.5 * TIMEOUT)
    assert run.faults == []
    assert run.ends == {}


def test_an_attempt_that_is_given_up_is_no_death(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1)
    assert run.monitor.wait_for_all()
    attempt = JsonSocket(socket.create_connection(("127.0.0.1", run.monitor.port)))
    attempt.send(run.clients[1].hello)
    time.sleep(0.1)
    attempt.close()
    time.sleep(0.3)
    assert run.faults == []


def test_strangers_are_not_listened_to(watch: Callable[..., Watch]):
    run = watch(2)
    run.join(1)
    assert run.monitor.wait_for_all()
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"here": 9}\n', b'{"hello": "x"}\n', b'{"here": 1}\n'):
        with socket.create_connection(("127.0.0.1", run.monitor.port)) as stranger:
            stranger.sendall(said)
            time.sleep(0.1)
    assert run.faults == []
    assert run.monitor._thread.is_alive()


def test_another_runs_monitor_is_not_joined(watch: Callable[..., Watch]):
    """An earlier run's place may still be in the store, and its port another run's."""
    run = watch(2)
    client = MonitorClient(
        1,
        TIMEOUT,
        name="worker 0",
        machine=None,
        locate=lambda: Place("127.0.0.1", run.monitor.port, "an earlier run"),
        on_end=lambda end: None,
    )
    with pytest.raises(PeerLost) as lost:
        client.start()
    assert lost.value.message == "worker 0 (rank 0) did not come within 1 s (cluster.timeout)"
