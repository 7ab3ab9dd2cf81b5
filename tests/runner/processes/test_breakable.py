"""Connections that this process breaks from its own side."""

import os
import socket

from runner.processes.breakable import Breakable


def test_a_broken_connection_ends_a_wait():
    breakable, kept = Breakable(), socket.socketpair()
    with breakable.opening(1):
        one = socket.socketpair()
    with breakable.opening(2):
        two = socket.socketpair()
    breakable.break_off(1)
    assert one[0].recv(1) == b""
    for end in (two[0], kept[0]):
        end.setblocking(False)
        assert end.send(b"x") == 1
    breakable.break_off()
    assert two[0].recv(1) == b""
    assert kept[0].send(b"y") == 1


def test_a_socket_that_listens_is_left_alone():
    """gloo aborts the process if its own is shut down."""
    breakable = Breakable()
    with breakable.opening():
        server = socket.create_server(("127.0.0.1", 0))
    breakable.break_off()
    with server, socket.create_connection(server.getsockname()) as far:
        near, _ = server.accept()
        with near:
            far.send(b"x")
            assert near.recv(1) == b"x"


def test_connections_to_a_spared_port_stay():
    """The monitor's: a rank may come back to it while the links to others are opened."""
    breakable = Breakable()
    with socket.create_server(("127.0.0.1", 0)) as server:
        breakable.spare(server.getsockname()[1])
        far = socket.create_connection(server.getsockname())
        with breakable.opening(1):
            near, _ = server.accept()
        breakable.break_off()
        with near, far:
            far.send(b"x")
            assert near.recv(1) == b"x"


def test_another_socket_of_the_same_number_is_left_alone():
    breakable = Breakable()
    with breakable.opening():
        old = socket.socketpair()
    numbers = [end.fileno() for end in old]
    new = socket.socketpair()
    for end, number in zip(new, numbers, strict=True):
        os.dup2(end.fileno(), number)
    breakable.break_off()
    assert new[0].send(b"x") == 1
    assert new[1].recv(1) == b"x"
