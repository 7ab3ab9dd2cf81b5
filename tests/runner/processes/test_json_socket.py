"""Lines of JSON over a connection that nobody waits for."""

import socket

from runner.processes.json_socket import JsonSocket


def pair() -> tuple[JsonSocket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    return JsonSocket(here), there


def until(end: JsonSocket) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while not found and not end.broken:
        found += end.receive()
    return found


def test_messages_come_whole_and_in_order():
    end, there = pair()
    there.sendall(b'{"a": 1}\n{"b"')
    assert until(end) == [{"a": 1}]
    assert end.receive() == []
    there.sendall(b": 2}\n")
    assert until(end) == [{"b": 2}]
    end.send({"c": 3})
    assert there.recv(100) == b'{"c": 3}\n'


def test_a_peer_that_takes_nothing_makes_nobody_wait():
    end, _there = pair()
    for _ in range(20):
        end.send({"x": "y" * 400_000})
    assert not end.broken


def test_a_closed_peer_has_ended():
    end, there = pair()
    there.sendall(b'{"a": 1}\n')
    there.close()
    assert until(end) == [{"a": 1}]
    assert until(end) == []
    assert (end.ended, end.broken) == (True, True)
    # Nothing more is sent or read, and nothing is raised.
    end.send({"b": 2})
    assert end.receive() == []


def test_what_is_no_message_ends_the_connection():
    for said in (b"GET / HTTP/1.1\r\n", b"7\n", b'"text"\n', b"\xff\xfe\n"):
        end, there = pair()
        there.sendall(said)
        assert until(end) == []
        assert end.broken
