"""What a client of plain HTTP needs of TLS: nothing."""

import ssl

NO_TRUST_STORE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. Without `verify=` httpx reads all of the machine's certificates for each client,
which takes longer than most requests of a test."""
