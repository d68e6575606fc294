"""Until when certificates and lists are good, and who says so before it is too late."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from tests.certificates import FAR_AHEAD, LONG_AGO, Authority

from isthmus.config_listeners import TlsOptions
from isthmus.server.lifetimes import Ends, Lifetime, lifetimes_in
from isthmus.server.tls import Certificates

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DAY_S = 86_400


def test_the_dates_of_a_list_and_of_a_chain_are_read(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    begin, end = (int(each.timestamp()) for each in (LONG_AGO, FAR_AHEAD))
    assert lifetimes_in(ca.revoke().read_text()) == [Lifetime(begin, end)]
    file = ca.issue("server", "localhost")
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    own, *_ = lifetimes_in(file.read_text())
    assert own.begin_s == int(certificate.not_valid_before_utc.timestamp())
    assert own.end_s == int(certificate.not_valid_after_utc.timestamp())
    assert lifetimes_in("nothing of that kind") == []


def test_soon_is_a_fifth_of_the_time_and_two_weeks_at_most() -> None:
    assert Lifetime(0, 10 * DAY_S).soon_s == 8 * DAY_S
    assert Lifetime(0, 365 * DAY_S).soon_s == 351 * DAY_S


def test_what_is_about_to_be_over_is_said_once_and_once_that_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = Authority(tmp_path)
    end = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    options = TlsOptions(
        certificate=str(ca.issue("server", "localhost")),
        client_ca=str(ca.certificate),
        client_certificates="optional",
        crl=str(ca.revoke(until=end)),
    )
    certificates = Certificates(options, "door")
    now_s = int(end.timestamp()) - 20 * DAY_S
    ends = Ends([certificates], lambda: now_s * 1000)

    def look() -> list[str]:
        caplog.clear()
        for _ in "ab":
            asyncio.run(ends.renew(forced=False))
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if line.startswith("crl ")]

    assert look() == []
    now_s += 10 * DAY_S
    until = "listener=door until=2026-01-01T00:00:00+00:00"
    assert look() == [f"crl of a listener will soon be over {until}"]
    now_s += 10 * DAY_S
    assert look() == [f"crl of a listener is over {until}"]
    ca.revoke()
    assert certificates.reload(forced=False)
    assert look() == []
