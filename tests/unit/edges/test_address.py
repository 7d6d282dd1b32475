"""Addresses of engines as text, and when one is another one."""

import pytest
import trustme

from headrace.edges.http.address import Address, AddressBook, split_url, url_at
from headrace.edges.http.tls import ClientTls, UpstreamTls, system_tls


def test_the_three_kinds():
    plain = Address.parse("http://engine.test")
    assert (plain.host, plain.port, plain.host_header) == ("engine.test", 80, b"engine.test")
    secure = Address.parse("https://[::1]:8443")
    assert (secure.host, secure.port, secure.host_header) == ("::1", 8443, b"[::1]:8443")
    assert secure.tls is system_tls()
    linked = Address.parse("http://[fe80::1%eth0]:8000")
    assert (linked.host, linked.host_header) == ("fe80::1%eth0", b"[fe80::1]:8000")
    unix = Address.parse("unix:/run/engine.sock")
    assert (unix.host, unix.port, unix.host_header) == ("/run/engine.sock", 0, b"localhost")


def test_an_engine_may_be_behind_a_path():
    behind = AddressBook().find("http://engine.test:81/llama/8b")
    assert (behind.host, behind.port, behind.base) == ("engine.test", 81, b"/llama/8b")
    assert behind.host_header == b"engine.test:81"
    assert AddressBook().find("http://engine.test:81").base == b""
    assert split_url(url_at("http://h:1/llama", "/v1/models?a=b")) == (
        "http://h:1",
        "/llama/v1/models?a=b",
    )


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h/path", "http://h?q", "unix:run"])
def test_what_is_no_address(url):
    with pytest.raises(ValueError, match="is not an engine address"):
        Address.parse(url)


@pytest.mark.parametrize("address", ["http://h:1", "https://[::1]:2", "unix:/run/engine.sock"])
@pytest.mark.parametrize("path", ["/health", "/v1/models?a=b:c"])
def test_a_url_comes_apart_as_it_was_put_together(address, path):
    assert split_url(url_at(address, path)) == (address, path)


def test_renewed_certificates_make_another_address(tmp_path):
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    tls = ClientTls(UpstreamTls(ca_file=str(file)))
    book = AddressBook(tls)
    before = book.find("https://h:1")
    assert book.find("https://h:1") is before
    assert not tls.renew()
    trustme.CA().cert_pem.write_to_path(file)
    assert tls.renew()
    assert book.find("https://h:1") is not before
