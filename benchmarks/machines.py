"""Machines on this one: network namespaces, each with an interface of its own on one switch, whose wires can be cut.

As on most Debian machines, a machine's name leads to its loopback interface. Only root can make them (Linux, `ip`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = Path("/etc/netns")
"""Where `ip netns exec` looks for a namespace's own files of /etc."""
_numbers = itertools.count()


def missing() -> str | None:
    """Return why no machines can be made here, None if they can."""
    if os.geteuid() != 0:
        return "network namespaces can only be made by root"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "network namespaces need the programs ip (iproute2) and unshare (util-linux)"
    made = subprocess.run(["ip", "netns", "add", f"dcrun-{os.getpid()}"], capture_output=True, text=True)
    if made.returncode:
        return f"this system makes no network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", f"dcrun-{os.getpid()}")
    return None


class Machine:
    """A machine.

    Args:
        name: its host name.
        namespace: its network's name.
        address: on the switch.
        port: the switch's end of its wire.
        switch: the switch's namespace.
    """

    def __init__(self, name: str, namespace: str, address: str, port: str, switch: str) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self._port = port
        self._switch = switch

    def cut(self) -> None:
        """Cut the wire: nothing arrives any more, and no interface says so."""
        _ip("-n", self._switch, "link", "set", self._port, "nomaster")

    def mend(self) -> None:
        """Join the wire again."""
        _ip("-n", self._switch, "link", "set", self._port, "master", "switch")

    def slow_down(self, rate: str) -> None:
        """Limit what the switch sends here, as `200mbit`."""
        queue = ["tc", "qdisc", "add", "dev", self._port, "root", "tbf", "rate", rate, "burst", "256k"]
        _ip("netns", "exec", self._switch, *queue, "latency", "400ms")

    def start(self, command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
        """Start a program here, in a process group of its own."""
        inside = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c"]
        shell = ['hostname $0; exec "$@"', self.name, *command]
        return subprocess.Popen(
            [*inside, *shell],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def torchrun(
        self,
        here: int,
        machines: int,
        number: int,
        master: str,
        folder: Path,
        *arguments: str,
        options: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        """Start `here` ranks of a run.

        Args:
            here: how many.
            machines: of the run.
            number: of this one among them.
            master: address of machine 0.
            folder: the current folder.
            arguments: of dcrun.
            options: more of torchrun's.
        """
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={machines}", f"--nproc-per-node={here}"]
        static = [f"--node-rank={number}", f"--master-addr={master}", "--master-port=29511"]
        where = options if any("rdzv" in option for option in options) else [*static, *options]
        return self.start([*launcher, *where, "-m", "runner.cli", *arguments], folder)

    def ranks(self) -> dict[int, int]:
        """Return the process ids of the ranks here by rank."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout
        found = {}
        for pid in map(int, listed.split()):
            with contextlib.suppress(OSError):
                pairs = (item.partition(b"=") for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
                own = {name: value for name, _, value in pairs}
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"RANK" in own and b"runner.cli" in command and b"torch.distributed" not in command:
                    found[int(own[b"RANK"])] = pid
        return found

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all processes here."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout
        for pid in map(int, listed.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Make machines `a`, `b`, ... on one switch; at the end all that runs on them is killed, and they are removed."""
    name = f"dcrun-{os.getpid()}-{next(_numbers)}"
    switch = f"{name}-switch"
    made: list[Machine] = []
    _ip("netns", "add", switch)
    try:
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        for number in range(count):
            letter = "abcdefgh"[number]
            namespace, address = f"{name}-{letter}", f"10.77.0.{number + 1}"
            _ip("netns", "add", namespace)
            made.append(Machine(letter, namespace, address, f"port-{letter}", switch))
            _ip(
                "-n",
                namespace,
                "link",
                "add",
                "wire0",
                "type",
                "veth",
                "peer",
                "name",
                f"port-{letter}",
                "netns",
                switch,
            )
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "wire0")
            _ip("-n", namespace, "link", "set", "lo", "up")
            _ip("-n", namespace, "link", "set", "wire0", "up")
            _ip("-n", switch, "link", "set", f"port-{letter}", "master", "switch", "up")
        for machine in made:
            _name(machine, made)
        yield made
    finally:
        for machine in made:
            machine.kill()
            subprocess.run(["ip", "netns", "del", machine.namespace], check=False)
            shutil.rmtree(FILES / machine.namespace, ignore_errors=True)
        subprocess.run(["ip", "netns", "del", switch], check=False)


def _name(machine: Machine, all_machines: list[Machine]) -> None:
    """Have a machine know its own name as loopback, as on Debian, and the others' as addresses on the switch."""
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {machine.name}"]
    lines += [f"{other.address} {other.name}" for other in all_machines if other is not machine]
    # `ip netns exec` lays the files of this folder over those of /etc.
    folder = FILES / machine.namespace
    folder.mkdir(parents=True)
    (folder / "hosts").write_text("\n".join(lines) + "\n")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
