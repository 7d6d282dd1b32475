"""TLS on both sides: certificates from PEM files, taken up anew when the files change.

A handshake uses what is newest when it begins; connections that are open keep what they have.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from headrace.edges.http.certificate_files import CertificateFiles, CertificateWatch, TlsError

if TYPE_CHECKING:
    from headrace.edges.http.address import AddressBook

HANDSHAKE_S = 10.0
"""A handshake that takes longer is given up, on both sides."""

_ALPN = ["http/1.1"]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The certificate of a listener. TLS 1.2 is the oldest version spoken."""

    cert_file: str
    """PEM file with the certificate and the chain up to its CA."""
    key_file: str
    """PEM file with the certificate's key, without a passphrase."""
    client_ca_file: str | None = None
    """PEM file with CAs; with it only clients with a certificate of theirs are served."""


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How servers at `https://` addresses are recognised, and this process by them."""

    ca_file: str | None = None
    """PEM file with the CAs that may have signed the servers' certificates, instead of those of
    the system."""
    verify: bool = True
    """False accepts every certificate: whoever sits in between can read and change everything."""
    server_name: str | None = None
    """The name that certificates must be for; by default the host of the address, or the
    name that was looked up."""
    cert_file: str | None = None
    """PEM file with the certificate that the servers ask of their clients."""
    key_file: str | None = None
    """PEM file with that certificate's key; by default it is in `cert_file` too."""


Settings = TypeVar("Settings", ServerTls, UpstreamTls)


def within(folder: Path, settings: Settings) -> Settings:
    """The same with relative file names starting at `folder`."""
    changes = {name: str(folder / file) for name, file in _files(settings)}
    return replace(settings, **changes)


class Certificates(Protocol):
    """Certificates in use, whichever side they are for."""

    @property
    def files(self) -> CertificateFiles:
        """Where they were read from."""
        ...

    def renew(self) -> bool:
        """Read the files again if they changed; whether they did.

        Raises TlsError for files that cannot be used, once for each change: what was in use
        stays in use. It also does in place of a certificate that does not hold now, unless its own
        does not either; one that holds from a later time on is taken up then.
        """
        ...


class ServerCertificate:
    """The certificate of a listener; `context` is for the listener and stays the same."""

    def __init__(self, settings: ServerTls) -> None:
        """Raises TlsError."""
        self.settings = settings
        self._watch = CertificateWatch(_files_of(settings))
        self._client_cas = _client_cas(settings)
        self._since_s = 0.0
        """When those CAs changed last, by the wall clock."""
        self.context = self._newest = _server_context(settings)
        self.context.sni_callback = self._choose

    @property
    def files(self) -> CertificateFiles:
        """See `Certificates`."""
        return self._watch.in_use

    def renew(self) -> bool:
        """See `Certificates`."""
        files = self._watch.look()
        if files is None:
            return False
        client_cas = _client_cas(self.settings)
        context = _server_context(self.settings)
        files.may_replace(self.files)
        self._newest, self._watch.in_use = context, files
        self._let_in_by(client_cas)
        return True

    def prepared(self, settings: ServerTls) -> Callable[[], None]:
        """What uses other files from its call on. Raises TlsError."""
        watch, client_cas = CertificateWatch(_files_of(settings)), _client_cas(settings)
        context = _server_context(settings)
        watch.in_use.may_replace(self.files)

        def use() -> None:
            self.settings, self._watch, self._newest = settings, watch, context
            self._let_in_by(client_cas)
            # Whether a certificate is asked of clients is decided before the choice of a context.
            self.context.verify_mode = context.verify_mode
            self.context.options = context.options
            self.context.num_tickets = context.num_tickets

        return use

    def _let_in_by(self, client_cas: bytes) -> None:
        # A certificate of ours may be renewed every day: no client has to begin anew for that.
        if client_cas != self._client_cas:
            self._client_cas, self._since_s = client_cas, time.time()

    def _choose(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> int | None:
        """Called with every ClientHello, whether it names a server or not."""
        connection.context = self._newest
        if not connection.session_reused or self.settings.client_ca_file is None:
            return None
        # TLS 1.2 goes on with a session by its id, without a look at the certificate of its client,
        # which other CAs may have let in: it has to begin anew.
        session = connection.session
        is_newer = session is not None and session.time > self._since_s
        return None if is_newer else ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE


class ClientTls:
    """How to reach engines by TLS; `context` is the newest. Equal only to itself."""

    def __init__(self, settings: UpstreamTls) -> None:
        """Raises TlsError."""
        self.settings = settings
        self.server_name = settings.server_name
        self.book: AddressBook | None = None
        """The addresses that our own requests reach with it; kept here to end together with it."""
        self._watch = CertificateWatch(_files_of(settings))
        self.context = _client_context(settings)

    @property
    def files(self) -> CertificateFiles:
        """See `Certificates`."""
        return self._watch.in_use

    def renew(self) -> bool:
        """See `Certificates`."""
        files = self._watch.look()
        if files is None:
            return False
        context = _client_context(self.settings)
        files.may_replace(self.files)
        self.context, self._watch.in_use = context, files
        return True


@cache
def system_tls() -> ClientTls:
    """Trusts what the system trusts."""
    return ClientTls(UpstreamTls())


def reason_of(error: OSError) -> str:
    """Why a connection failed, in words without addresses of code."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).replace("_", " ").lower()
        return f"TLS: {said}"
    return error.strerror or str(error) or "closed before it was open"


# ---------------------------------------------------------------- contexts


def _server_context(settings: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_up(context)
    _load_chain(context, settings.cert_file, settings.key_file)
    if settings.client_ca_file is not None:
        _load_authorities(context, "client_ca_file", settings.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would not be verified again when the CAs have changed.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _client_context(settings: UpstreamTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _set_up(context)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file is None:
        context.load_default_certs()
    else:
        _load_authorities(context, "ca_file", settings.ca_file)
    if settings.cert_file is not None:
        _load_chain(context, settings.cert_file, settings.key_file)
    return context


def _set_up(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN)


def _load_chain(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    for field, file in (("cert_file", cert_file), ("key_file", key_file)):
        if file is not None:
            _check_readable(field, file)
    try:
        # Without an answer here, OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except ssl.SSLError as error:
        raise _chain_error(error, cert_file, key_file or cert_file) from None


def _chain_error(error: ssl.SSLError, cert_file: str, key_file: str) -> TlsError:
    if error.reason == "KEY_VALUES_MISMATCH":
        message = f"is {key_file!r}, the key of another certificate than {cert_file!r}"
        return TlsError("key_file", message)
    message = (
        f"is {cert_file!r}, with the key in {key_file!r}: not a PEM certificate with its PEM key "
        "without a passphrase"
    )
    return TlsError("cert_file", message)


def _load_authorities(context: ssl.SSLContext, field: str, file: str) -> None:
    _check_readable(field, file)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        raise TlsError(field, f"is {file!r}, which holds no PEM certificate") from None


def _check_readable(field: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        message = f"is {file!r}, which cannot be read: {error.strerror}"
        raise TlsError(field, message) from None


# ---------------------------------------------------------------- files


def _files(settings: ServerTls | UpstreamTls) -> Iterable[tuple[str, str]]:
    named = ((each.name, getattr(settings, each.name)) for each in fields(settings))
    return [(name, file) for name, file in named if name.endswith("_file") and file is not None]


def _files_of(settings: ServerTls | UpstreamTls) -> CertificateFiles:
    """All that `settings` name."""
    return CertificateFiles(settings.cert_file, tuple(file for _, file in _files(settings)))


def _client_cas(settings: ServerTls) -> bytes:
    """What the file of those CAs says. To be read before the context that uses it is made: what is
    written in between is met as a change the next time.
    """
    file = settings.client_ca_file
    try:
        return b"" if file is None else Path(file).read_bytes()
    except OSError:
        return b""  # making the context says so
