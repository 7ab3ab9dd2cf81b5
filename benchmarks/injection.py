"""Damages runs for real: kills and stops ranks at chosen moments, cuts and flips files.

A `Host` is a process that has imported everything once and makes one run after the other, as `dcrun` would. The
injector watches it from outside, through its log and `/proc` (Linux). `benchmarks/faults.py` and the tests use it.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300.0
"""Seconds after which something that should have happened counts as a hang."""


class Hang(Exception):
    """Something did not happen in time."""


def until(condition: Callable[[], Any], what: str, limit: float = LIMIT, every: float = 0.01) -> Any:
    """Wait until a condition holds, and return its value.

    Raises:
        Hang: it did not within `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Hang(f"waited {limit:g} s for {what}")
        time.sleep(every)
    return value


class TooLate(Exception):
    """The run was over before it could be hurt: a busy machine; to be tried again."""


class Run:
    """A run in progress, as its folder tells of it."""

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.folder = folder
        self.host = host
        self._code = folder.with_name(folder.name + ".code")

    @property
    def log(self) -> str:
        """What `dcrun.log` says so far."""
        path = self.folder / "dcrun.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def ranks(self) -> dict[str, int]:
        """Process ids of the run's last start, by name (`server`, `worker 0`)."""
        return {name: int(pid) for name, pid in re.findall(r"dcrun: ([\w ]+) is rank \d+, pid (\d+)", self.log)}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The trace so far."""
        path = self.folder / "trace.jsonl"
        whole = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in whole]

    def training(self) -> Run:
        """Wait until all ranks have met and training has begun: an empty metrics.jsonl may be older."""
        until(lambda: self.code is not None or (self.folder / "timeline.jsonl").exists(), "training to begin")
        if self.code is not None:
            raise RuntimeError(f"the run ended early with {self.code}: {self.log[-2000:]}")
        return self

    def signal(self, name: str, number: signal.Signals) -> datetime.datetime:
        """Send a signal to a rank, and return when.

        Raises:
            TooLate: it is gone.
        """
        try:
            os.kill(self.ranks[name], number)
        except ProcessLookupError as error:
            raise TooLate(f"{name} has ended") from error
        return datetime.datetime.now()

    def saved(self, count: int = 1) -> Run:
        """Wait until `count` checkpoints were announced.

        Raises:
            TooLate: the run is over.
        """
        until(lambda: self.code is not None or self.log.count("dcrun: checkpoint step") >= count, "checkpoints")
        if self.code is not None:
            raise TooLate("the run has ended")
        return self

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return int(self._code.read_text()) if self._code.exists() else None

    def end(self, limit: float = LIMIT) -> int:
        """Wait for the end and return the exit code.

        Raises:
            Hang: it does not end.
        """
        return int(until(lambda: self._code.exists() and self._code.read_text(), f"{self.folder} to end", limit))

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` says."""
        return json.loads((self.folder / "summary.json").read_text())

    def noticed(self, pattern: str, since: datetime.datetime) -> float | None:
        """Return after how many seconds the log first had a line that matches."""
        for line in self.log.splitlines():
            if (
                re.search(pattern, line)
                and (at := datetime.datetime.fromisoformat(line[:23].replace(",", "."))) >= since
            ):
                return (at - since).total_seconds()
        return None

    def orphans(self) -> list[int]:
        """Return the ranks that still run."""
        return [pid for pid in self.ranks.values() if alive(pid)]


class Host:
    """A process that makes runs, one at a time.

    Args:
        folder: for its own output.
    """

    def __init__(self, folder: Path) -> None:
        self.output = folder / "host.txt"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=ROOT,
            )

    def start(self, folder: Path, *overrides: str, resume: bool = False) -> Run:
        """Start a run.

        Args:
            folder: the run folder.
            overrides: as on the command line.
            resume: continue it.
        """
        run = Run(folder, self)
        run._code.unlink(missing_ok=True)
        request = {"folder": str(folder), "overrides": overrides, "resume": resume}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return run

    def close(self) -> None:
        """End the host."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def host(folder: Path) -> Iterator[Host]:
    """A host that is closed at the end."""
    made = Host(folder)
    try:
        yield made
    finally:
        made.close()


def alive(pid: int) -> bool:
    """Whether a process runs, or is stopped; one that is dead and not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Connection(NamedTuple):
    """A TCP socket of `/proc/net/tcp`."""

    address: str
    port: int
    peer: int
    listening: bool
    sending: int


def sockets(pid: int) -> list[Connection]:
    """Return the TCP sockets of a process, IPv4 and IPv6."""
    inodes = set()
    for name in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(name))
        except OSError:
            continue  # closed meanwhile
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            words = line.split()
            if f"socket:[{words[9]}]" in inodes:
                (local, port), (_, peer) = words[1].split(":"), words[2].split(":")
                # The kernel prints addresses as words in the machine's byte order.
                raw = b"".join(bytes.fromhex(local[i : i + 8])[::-1] for i in range(0, len(local), 8))
                queued = int(words[4].split(":")[0], 16)
                address = socket.inet_ntop(family, raw)
                found.append(Connection(address, int(port, 16), int(peer, 16), words[3] == "0A", queued))
    return found


def travelling(sender: int, receiver: int) -> int:
    """Return how many bytes wait in sockets from one process to the other."""
    ports = {connection.port for connection in sockets(receiver)}
    return sum(connection.sending for connection in sockets(sender) if connection.peer in ports)


def catch_in_transfer(sender: int, receiver: int) -> None:
    """Stop `receiver` (SIGSTOP) in the middle of a message from `sender`: more than its sockets hold is on the way.

    Raises:
        TooLate: one of the two has ended before.
    """

    def caught() -> bool:
        try:
            os.kill(receiver, signal.SIGSTOP)
            time.sleep(0.05)
            if travelling(sender, receiver) > 100_000:
                return True
            os.kill(receiver, signal.SIGCONT)
        except (ProcessLookupError, FileNotFoundError) as error:
            raise TooLate("a rank has ended") from error
        return False

    until(caught, "a message on its way", every=0.02)


def main() -> int:
    """Be a host: make the runs that standard input asks for."""
    import logging

    from omegaconf import OmegaConf, open_dict

    from runner.cli.compose import composer
    from runner.config import schema
    from runner.config.exit_codes import log_to, run_guarded
    from runner.config.process_settings import set_process
    from runner.config.schema import without_hydra
    from runner.sweeps import subprocess_launcher

    set_process()  # before torch is imported
    from runner.train.dispatch import dispatch

    schema.register()
    subprocess_launcher.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(request["folder"])
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        with composer() as compose:
            composed = compose.one(["logger=none", "run.threads=1", "run.device=cpu", *request["overrides"]])
        cfg = without_hydra(composed)
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
        with open_dict(cfg):
            cfg["names"] = {group: composed.hydra.runtime.choices.get(group) for group in schema.GROUPS}
        cfg.run.resume = str(folder) if request["resume"] else None
        log_to(folder)
        code = run_guarded(lambda cfg=cfg, folder=folder: dispatch(cfg, folder), folder)
        logging.shutdown()
        done = folder.with_name(folder.name + ".code")
        done.with_suffix(".tmp").write_text(str(code))
        done.with_suffix(".tmp").rename(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
