"""The certificate of the gRPC server, taken up anew when its files change."""

from __future__ import annotations

from pathlib import Path

import grpc

from headrace.edges.http.tls import ServerCertificate, ServerTls, TlsError


def server_credentials(certificate: ServerCertificate) -> grpc.ServerCredentials:
    """Credentials that serve `certificate`, whose files were read and found good.

    With a `client_ca_file` only clients with a certificate of these CAs are answered. gRPC asks
    for the newest at every handshake, on a thread of its own.
    """

    def newest() -> grpc.ServerCertificateConfiguration | None:
        try:
            if certificate.renew():
                return _configuration(certificate.settings)
        except (TlsError, OSError):  # files that are being replaced; the old ones stay in use
            pass
        return None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificate.settings),
        newest,  # pyright: ignore[reportArgumentType] - None: the old one stays in use
        require_client_authentication=certificate.settings.client_ca_file is not None,
    )


def _configuration(settings: ServerTls) -> grpc.ServerCertificateConfiguration:
    pair = (Path(settings.key_file).read_bytes(), Path(settings.cert_file).read_bytes())
    authorities = settings.client_ca_file and Path(settings.client_ca_file).read_bytes()
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities or None)
