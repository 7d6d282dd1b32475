"""The dates of one's own certificate, read out of its file."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trustme

from headrace.edges.http.certificate_dates import dates_of


def moment(year: int) -> datetime:
    return datetime(year, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begins", "ends"),
    [(2020, 2030), (2001, 2049), (2001, 2050), (2050, 2099)],
    ids=["both short", "the last short year", "short and long", "both long"],
)
def test_both_kinds_of_time_are_read(tmp_path, begins, ends):
    ca = trustme.CA()
    leaf = ca.issue_cert("a", not_before=moment(begins), not_after=moment(ends))
    other = ca.issue_cert("b", not_before=moment(2011), not_after=moment(2012))
    chain = [*leaf.cert_chain_pems, *other.cert_chain_pems]
    file = tmp_path / "chain.pem"
    file.write_bytes(b"a remark\n" + b"".join(each.bytes() for each in chain))

    dates = dates_of(str(file))

    assert dates is not None
    assert dates.begins_s == moment(begins).timestamp()
    assert dates.ends_s == moment(ends).timestamp()
    assert dates.hold_at(dates.begins_s)
    assert dates.hold_at(dates.ends_s)
    assert dates.fault(dates.ends_s + 1) == f"expired at {ends}-03-04 05:06 UTC"
    assert dates.fault(dates.begins_s - 1) == f"holds only from {begins}-03-04 05:06 UTC on"


def test_what_is_no_certificate_has_no_dates(tmp_path):
    file = tmp_path / "cert.pem"
    whole = trustme.CA().issue_cert("a").cert_chain_pems[0].bytes()
    head, foot = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    for text in (b"", whole[:200], head + b"AAAA\n" + foot, head + whole[30:130] + b"\n" + foot):
        file.write_bytes(text)
        assert dates_of(str(file)) is None
    assert dates_of(str(tmp_path / "absent.pem")) is None
    assert dates_of(None) is None
