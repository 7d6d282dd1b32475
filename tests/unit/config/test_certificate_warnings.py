"""A certificate that can be used, and does not hold today, is warned of."""

from __future__ import annotations

from datetime import UTC, datetime

import trustme

from headrace.config.load import load
from tests.certificates import write_certificate

TLS = "tls: {cert_file: cert.pem, key_file: key.pem}"
TEXT = f"""
listen: {{{TLS}}}
pools:
  - {{name: p, model: m, replicas: ["https://127.0.0.1:1"], {TLS}}}
"""


def warnings(folder):
    file = folder / "headrace.yaml"
    file.write_text(TEXT)
    return [each for each in load(file).warnings if "certificate" in each]


def test_only_one_that_does_not_hold_is_warned_of(tmp_path):
    ca, year = trustme.CA(), datetime.now(UTC).year
    write_certificate(ca, tmp_path, "127.0.0.1")
    assert warnings(tmp_path) == []

    begins, ends = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, 3, 4, tzinfo=UTC)
    write_certificate(ca, tmp_path, "127.0.0.1", begins=begins, ends=ends)
    told = "tls.cert_file: the certificate in 'cert.pem' expired at 2020-02-01 03:04 UTC"
    assert warnings(tmp_path) == [f"listen.{told}", f"pools[0].{told}"]

    begins, ends = datetime(year + 2, 1, 1, tzinfo=UTC), datetime(year + 3, 1, 1, tzinfo=UTC)
    write_certificate(ca, tmp_path, "127.0.0.1", begins=begins, ends=ends)
    assert warnings(tmp_path)[0].endswith(f"holds only from {year + 2}-01-01 00:00 UTC on")
