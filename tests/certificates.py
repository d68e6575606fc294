"""Certificates for tests, made when they run: a CA, servers, clients, and who was revoked."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

if TYPE_CHECKING:
    from pathlib import Path

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FAR_AHEAD = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """A CA with its files in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._ca = trustme.CA()
        self._revoked: list[int] = []
        self.certificate = self._write("ca.pem", self._ca.cert_pem.bytes())

    def issue(self, name: str, *names: str, common_name: str | None = None) -> Path:
        """Make `name`.pem, key (PKCS 8) and certificate, for host names and mail addresses."""
        made = self._ca.issue_cert(*names, common_name=common_name)
        key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
        plain = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,  # the only one that Java reads
            serialization.NoEncryption(),
        )
        chain = b"".join(each.bytes() for each in made.cert_chain_pems)
        return self._write(f"{name}.pem", plain + chain)

    def revoke(self, *certificates: Path, until: datetime.datetime = FAR_AHEAD) -> Path:
        """Take certificates back, with those before; return the file of the list."""
        for each in certificates:
            self._revoked.append(
                x509.load_pem_x509_certificate(each.read_bytes()).serial_number
            )
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        builder = x509.CertificateRevocationListBuilder(ca.subject, LONG_AGO, until)
        for number in self._revoked:
            revoked = x509.RevokedCertificateBuilder(number, LONG_AGO).build()
            builder = builder.add_revoked_certificate(revoked)
        crl = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
        return self._write("crl.pem", crl.public_bytes(serialization.Encoding.PEM))

    def _write(self, name: str, data: bytes) -> Path:
        file = self.directory / name
        file.write_bytes(data)
        return file
