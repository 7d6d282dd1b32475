"""Clients over IPv6 are told apart by their /64: one host has all of its addresses."""

from dataclasses import replace

import pytest

from headrace.edges.http.client_place import client_place
from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.server import HttpServer
from tests.property.test_http_requests import LIMITS, Recorder, Wire


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::%eth0/64"),
        ("::1", "::/64"),
        ("a:b", "a:b"),
    ],
)
def test_the_place_of_an_address(address, place):
    assert client_place(address) == place


class From(Wire):
    """The wire of a client with this address."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def get_extra_info(self, name, default=None):
        return (self.address, 1, 0, 0) if name == "peername" else default


def test_one_host_opens_no_more_connections_from_many_addresses():
    server = HttpServer(Recorder(), replace(LIMITS, max_connections_per_client=2))
    wires = [From(f"2001:db8::{n}") for n in (1, 2, 3)]
    neighbour = From("2001:db8:0:1::1")
    for wire in (*wires, neighbour):
        ClientConnection(server).connection_made(wire)
    assert [b" 429 " in wire.written for wire in (*wires, neighbour)] == [False, False, True, False]
