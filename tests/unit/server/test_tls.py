"""TLS without sockets: which certificate is shown, whom it believes, what a bad file says."""

from __future__ import annotations

import contextlib
import re
import shutil
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.certificates import Authority

from isthmus.config_listeners import ServerCertificate, TlsOptions
from isthmus.errors import ConfigError
from isthmus.server.tls import Certificates

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


REFUSED = re.compile("revoked|verify failed", re.IGNORECASE)


def client_context(ca: Authority, *certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca.certificate)
    for each in certificates:
        context.load_cert_chain(each)
    return context


def handshake(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Return the client's and the server's end of a connection; ssl.SSLError if it fails."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    theirs.write(b"x")  # the client has the session only when something was read
    assert ours.read(1) == b"x"
    return ours, theirs


def names_shown(certificates: Certificates, ca: Authority, name: str | None) -> list[str]:
    client = client_context(ca)
    client.check_hostname = False
    shown: Any = handshake(certificates.context, client, name)[0].getpeercert()
    return [text for _, text in shown["subjectAltName"]]


def options(certificate: Path, **more: Any) -> TlsOptions:
    return TlsOptions(
        certificate=str(certificate),
        **{
            key: str(value) if key in {"client_ca", "crl"} else value
            for key, value in more.items()
        },
    )


def test_a_certificate_is_chosen_by_the_name_asked_for(ca: Authority) -> None:
    plain = ca.issue("plain", "localhost")
    more = (
        ServerCertificate(names=("A.example",), certificate=str(ca.issue("a", "a.example"))),
        ServerCertificate(
            names=("*.b.example",), certificate=str(ca.issue("b", "*.b.example"))
        ),
    )
    certificates = Certificates(options(plain, certificates=more), "door")
    assert names_shown(certificates, ca, "a.example") == ["a.example"]
    assert names_shown(certificates, ca, "x.b.example") == ["*.b.example"]
    assert names_shown(certificates, ca, "y.x.b.example") == ["localhost"]
    assert names_shown(certificates, ca, "other") == ["localhost"]
    assert names_shown(certificates, ca, None) == ["localhost"]


def test_the_certificates_between_may_be_in_a_file_of_their_own(tmp_path: Path) -> None:
    root = trustme.CA()
    between = root.create_child_ca()
    server = between.issue_cert("localhost")
    files = {
        "server.pem": server.private_key_pem.bytes() + server.cert_chain_pems[0].bytes(),
        "chain.pem": between.cert_pem.bytes(),
        "root.pem": root.cert_pem.bytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    alone, whole = (
        Certificates(options(tmp_path / "server.pem", chain=chain), "door").context
        for chain in ("", str(tmp_path / "chain.pem"))
    )
    client = ssl.create_default_context(cafile=tmp_path / "root.pem")
    handshake(whole, client)
    with pytest.raises(ssl.SSLError, match="verify failed"):
        handshake(alone, client)


def test_files_are_read_again_when_they_change(ca: Authority) -> None:
    certificates = Certificates(options(ca.issue("server", "old.example")), "door")
    assert not certificates.reload(forced=False)
    ca.issue("server", "new.example")
    assert certificates.reload(forced=False)
    assert names_shown(certificates, ca, None) == ["new.example"]
    assert not certificates.reload(forced=False)
    assert certificates.reload(forced=True)


def test_a_file_that_goes_bad_changes_nothing(
    ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    file = ca.issue("server", "old.example")
    certificates = Certificates(options(file), "door")
    file.unlink()
    assert not certificates.reload(forced=False)
    assert not certificates.reload(forced=False)  # said once
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"certificate = '{file}' cannot be read" in record.getMessage()
    assert names_shown(certificates, ca, None) == ["old.example"]
    ca.issue("server", "new.example")
    assert certificates.reload(forced=False)


def test_only_clients_of_the_ca_are_let_in(ca: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").issue("stranger", "x@y.example")
    for how, without in (("required", False), ("optional", True)):
        wanted = options(
            ca.issue("server", "localhost"),
            client_ca=ca.certificate,
            client_certificates=how,
        )
        context = Certificates(wanted, "door").context
        known = handshake(context, client_context(ca, ca.issue("c", "c@y.example")))[1]
        assert known.getpeercert()
        with pytest.raises(ssl.SSLError):
            handshake(context, client_context(ca, stranger))
        if without:
            assert not handshake(context, client_context(ca))[1].getpeercert()
        else:
            with pytest.raises(ssl.SSLError):
                handshake(context, client_context(ca))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_is_revoked_does_not_live_on_in_an_old_session(
    ca: Authority, version: ssl.TLSVersion
) -> None:
    first, second = ca.issue("first", "a@y.example"), ca.issue("second", "b@y.example")
    wanted = options(
        ca.issue("server", "localhost"),
        client_ca=ca.certificate,
        client_certificates="required",
        crl=ca.revoke(second),
    )
    certificates = Certificates(wanted, "door")
    with pytest.raises(ssl.SSLError, match=REFUSED):
        handshake(certificates.context, client_context(ca, second))
    client = client_context(ca, first)
    client.maximum_version = version
    session = handshake(certificates.context, client)[0].session
    assert handshake(certificates.context, client, session=session)[1].session_reused
    ca.revoke(first)
    assert certificates.reload(forced=False)
    with pytest.raises(ssl.SSLError, match=REFUSED):
        handshake(certificates.context, client, session=session)


def test_the_ca_is_read_again(ca: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    wanted = options(
        ca.issue("server", "localhost"),
        client_ca=ca.certificate,
        client_certificates="required",
    )
    certificates = Certificates(wanted, "door")
    client = client_context(ca, other.issue("client", "c@y.example"))
    with pytest.raises(ssl.SSLError):
        handshake(certificates.context, client)
    shutil.copy(other.certificate, ca.certificate)
    assert certificates.reload(forced=False)
    handshake(certificates.context, client)


def test_the_oldest_version_and_the_ciphers_are_as_set(ca: Authority) -> None:
    server = ca.issue("server", "localhost")
    client = client_context(ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    chosen = Certificates(options(server, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"), "door")
    cipher = handshake(chosen.context, client)[0].cipher()
    assert cipher is not None and cipher[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    newer = Certificates(options(server, tls_min="1.3"), "door")
    with pytest.raises(ssl.SSLError):
        handshake(newer.context, client)


# --- what is wrong with a file is one sentence ------------------------------------------------


def encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    loaded = form.load_pem_private_key(key, None)
    return loaded.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret")
    )


def test_a_bad_file_is_named_with_its_setting(ca: Authority, tmp_path: Path) -> None:
    good, other = ca.issue("good", "a"), ca.issue("other", "b")
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(encrypted(good.read_bytes()))
    gone = tmp_path / "gone.pem"
    asks = {"client_certificates": "required", "client_ca": str(ca.certificate)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"certificate": str(gone)}, f"certificate = '{gone}' cannot be read: No such file"),
        (
            {"certificate": str(tmp_path)},
            f"certificate = '{tmp_path}' cannot be read: Is a dir",
        ),
        ({"certificate": str(good), "key": str(gone)}, f"key = '{gone}' cannot be read"),
        ({"certificate": str(good), "key": str(other)}, f"key = '{other}' does not belong to"),
        ({"certificate": str(good), "key": str(locked)}, f"key = '{locked}' is encrypted"),
        (
            {"certificate": str(ca.certificate)},
            f"key = '{ca.certificate}' holds no private key",
        ),
        ({"certificate": str(locked), "key": str(good)}, "holds no certificate"),
        ({"certificate": str(junk), "key": str(good)}, f"certificate = '{junk} and {good}' is"),
        ({"certificate": str(good), "ciphers": "NONE"}, "ciphers = 'NONE' names no cipher"),
        (
            {"certificate": str(good), **asks, "client_ca": str(junk)},
            f"client_ca = '{junk}' is",
        ),
        (
            {"certificate": str(good), **asks, "crl": str(gone)},
            f"crl = '{gone}' cannot be read",
        ),
        (
            {"certificate": str(good), **asks, "crl": str(ca.certificate)},
            f"crl = '{ca.certificate}' holds no list of revoked certificates",
        ),
        (
            {"certificate": str(good), **asks, "client_ca": str(ca.revoke())},
            "holds no certificate of a CA",
        ),
    ]
    for wanted, says in cases:
        with pytest.raises(ConfigError) as caught:
            Certificates(TlsOptions(**wanted), "door")
        text = str(caught.value)
        assert says in text and text.startswith("the listener door: ") and "\n" not in text
