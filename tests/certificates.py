"""Certificates made for a test."""

from datetime import datetime
from pathlib import Path

import trustme


def write_certificate(
    ca: trustme.CA,
    folder: Path,
    *names: str,
    begins: datetime | None = None,
    ends: datetime | None = None,
) -> None:
    """Write `cert.pem` and `key.pem` for these names, and `ca.pem`; what is there is replaced."""
    certificate = ca.issue_cert(*names, not_before=begins, not_after=ends)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (folder / "cert.pem").write_bytes(chain)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
