"""Redis over TLS: whom the store trusts, and who is let in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from circuitry import Factory, Outcome, Stored, StoreError
from circuitry.redis import AsyncRedisStore, RedisStore
from servers import Server, free_port, fresh_prefix


class Certificates:
    """An authority of a test's own, and what it has signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = folder / "authority.pem"
        self._openssl(
            "req", "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", "authority.key", "-out", "authority.pem",
            *self._NEW_KEY,
        )  # fmt: skip
        for name in ("server", "worker"):
            self._sign(name)

    _NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def certificate(self, name: str) -> tuple[str, str]:
        """A certificate and its key."""
        return str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key")

    def _sign(self, name: str) -> None:
        self._openssl("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", *self._NEW_KEY)
        (self._folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)


class TlsServer(Server):
    """A redis-server that asks for a certificate, with a plain port beside it."""

    def __init__(self, certificates: Certificates) -> None:
        self.tls_port = free_port()
        certificate, key = certificates.certificate("server")
        super().__init__(
            "--tls-port", str(self.tls_port), "--tls-cert-file", certificate, "--tls-key-file", key,
            "--tls-ca-cert-file", str(certificates.authority), "--tls-auth-clients", "yes",
        )  # fmt: skip

    @property
    def tls_url(self) -> str:
        return f"rediss://127.0.0.1:{self.tls_port}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[TlsServer]:
    server = TlsServer(certificates)
    try:
        yield server
    finally:
        server.kill()
        server.clean_up()


def url_for(server: TlsServer, certificates: Certificates) -> str:
    certificate, key = certificates.certificate("worker")
    return f"{server.tls_url}?ssl_ca_certs={certificates.authority}&ssl_certfile={certificate}&ssl_keyfile={key}"


def test_a_fleet_shares_a_circuit_over_tls(server: TlsServer, certificates: Certificates) -> None:
    prefix = fresh_prefix()
    with redis.Redis.from_url(url_for(server, certificates)) as client:
        for given in (url_for(server, certificates), client):
            store = RedisStore(given, prefix=prefix, operation_timeout_ms=20_000)
            factory = Factory(store, store_timeout_ms=20_000)
            settlement = factory.breaker_for("emails").start().end(Outcome.SUCCESS)
            assert not settlement.local
            store.close()
    plain = RedisStore(server.url, prefix=prefix)
    assert Factory(plain).breaker_for("emails").information().counts.total == 2
    plain.close()


async def test_tasks_use_tls_too(server: TlsServer, certificates: Certificates) -> None:
    store = AsyncRedisStore(url_for(server, certificates), prefix=fresh_prefix(), operation_timeout_ms=20_000)
    stored = await store.swap("emails", None, b"value", None)
    assert isinstance(stored, Stored)
    await store.aclose()


def refused(url: str, *, connect_timeout_ms: int = 20_000) -> StoreError:
    store = RedisStore(url, operation_timeout_ms=20_000, connect_timeout_ms=connect_timeout_ms)
    with pytest.raises(StoreError) as raised:
        store.connect()
    store.close()
    return raised.value


def test_a_server_whose_certificate_nobody_vouches_for_is_not_trusted(server: TlsServer) -> None:
    error = refused(server.tls_url)
    assert (error.kind, "certificate" in str(error).lower()) == ("other", True), str(error)


def test_a_server_that_speaks_no_tls_is_told_within_the_time_to_connect(
    server: TlsServer, certificates: Certificates
) -> None:
    plain = url_for(server, certificates).replace(str(server.tls_port), str(server.port))
    assert refused(plain, connect_timeout_ms=500).kind == "unavailable"


def test_who_shows_no_certificate_is_not_let_in(server: TlsServer, certificates: Certificates) -> None:
    # The server says so after the handshake, and hangs up: which of the two is seen first is up to the system.
    error = refused(f"{server.tls_url}?ssl_ca_certs={certificates.authority}")
    assert error.kind in ("other", "unavailable"), str(error)
