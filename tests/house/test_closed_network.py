"""Tests reach loopback and nothing else."""

from __future__ import annotations

import os
import socket

import pytest
from pytest_socket import SocketConnectBlockedError


@pytest.mark.filterwarnings("ignore:A test tried to use socket:UserWarning")
def test_a_socket_to_anywhere_else_is_refused() -> None:
    # 0.0.0.0 is not on the list of allowed hosts, and were it let through, Linux would take it for loopback.
    with pytest.raises(SocketConnectBlockedError):
        socket.create_connection(("0.0.0.0", 9), timeout=1)


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_libraries_with_sockets_of_their_own_are_sent_to_a_port_that_nobody_answers() -> None:
    assert os.environ["https_proxy"] == "http://127.0.0.1:9"
    assert "127.0.0.1" in os.environ["no_proxy"]
