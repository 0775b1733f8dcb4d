"""Posts alerts to a URL: signed, without redirects, and to no private address unless that is wanted.

A webhook's URL comes from whoever configures it, so it must not become a way into the network that the process is in
(OWASP, "Server-Side Request Forgery Prevention"): the address that was checked is the one that is connected to.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

from synergymesh.errors import InvalidRequest

SECONDS_MAX: Final = 5.0
"""For connecting, and for each piece of an answer; an alert that takes longer is tried again later."""

DELIVERY_SECONDS_MAX: Final = 10.0
"""For all of it: a receiver that answers a byte at a time does not keep the alerts behind this one."""

ANSWER_BYTES_SHOWN: Final = 300

SIGNATURE_HEADER: Final = "X-SynergyMesh-Signature"

SAFE_IN_TARGETS: Final = "/%:@!$&'()*+,;=?-._~"
"""What stays as it is in paths and queries (RFC 3986); everything else is percent-encoded."""

_EMBEDDING = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of an own network (RFC 8215)
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
    (ipaddress.IPv6Network("::/96"), 0),  # compatible with IPv4 (RFC 4291, deprecated)
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped (RFC 4291)
)
"""Networks whose addresses lead to an IPv4 address inside them, and how many bits are behind it."""

Resolve = Callable[[str, int], list[str]]


class Webhook:
    """Post lines of JSON.

    Args:
        url: `https://…`, or `http://…`.
        secret: signs each body: `t=SECONDS,v1=HEX`, HMAC-SHA-256 over `SECONDS.BODY`; None for no signature.
        allow_private: whether addresses may be connected to that are not of the public internet.
        resolve: gives the addresses of a host and port.

    Raises:
        InvalidRequest: the URL cannot be used.
    """

    def __init__(self, url: str, secret: bytes | None, *, allow_private: bool, resolve: Resolve | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidRequest(f"alert_sinks: {url!r} is no URL: {error}.", field="alert_sinks") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise InvalidRequest(
                f"alert_sinks: a webhook is https://HOST/PATH without a user name, not {url!r}.", field="alert_sinks"
            )
        self.name = f"webhook:{parts.scheme}://{parts.netloc}"
        self._is_tls = parts.scheme == "https"
        self._host = _host(parts.hostname)
        self._port = port or (443 if self._is_tls else 80)
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._netloc = shown if port is None else f"{shown}:{port}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._target = quote(target, safe=SAFE_IN_TARGETS)
        self._secret = secret
        self._allow_private = allow_private
        self._resolve = resolve or _resolve

    def deliver(self, line: bytes) -> None:
        """Post a line.

        Raises:
            OSError: nobody took it: no connection, a private address, an answer other than 2xx.
        """
        connection = _Pinned(self._address(), self._host, self._port, self._is_tls)
        deadline = threading.Timer(DELIVERY_SECONDS_MAX, connection.abort)
        deadline.daemon = True
        deadline.start()
        headers = {"Content-Type": "application/json", "Host": self._netloc, "User-Agent": "synergymesh"}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = sign(line, self._secret, int(time.time()))
        try:
            connection.request("POST", self._target, body=line, headers=headers)
            answer = connection.getresponse()
            said = answer.read(ANSWER_BYTES_SHOWN)
        except http.client.HTTPException as error:
            if connection.is_aborted:
                raise OSError(f"it took longer than {DELIVERY_SECONDS_MAX:g} seconds") from None
            raise OSError(f"it does not speak HTTP: {error!r}") from None
        finally:
            deadline.cancel()
            connection.close()
        if connection.is_aborted:
            raise OSError(f"it took longer than {DELIVERY_SECONDS_MAX:g} seconds")
        if not 200 <= answer.status < 300:
            redirect = " Redirects are not followed; name the final URL." if 300 <= answer.status < 400 else ""
            raise OSError(f"it answered {answer.status} {answer.reason}: {said!r}.{redirect}")

    def _address(self) -> str:
        """Give an address of the host that may be connected to; all of them have to be allowed."""
        addresses = self._resolve(self._host, self._port)
        if not addresses:
            raise OSError(f"{self._host} has no address")
        for address in addresses:
            if not self._allow_private and not is_public(address):
                raise OSError(
                    f"{self._host} is {address}, which is not of the public internet. "
                    f"Set alert_webhook_allow_private to allow it."
                )
        return addresses[0]


class _Pinned(http.client.HTTPConnection):
    """Connect to an address, whatever the name says by then; the certificate has to be that of the name."""

    def __init__(self, address: str, host: str, port: int, is_tls: bool) -> None:
        super().__init__(host, port, timeout=SECONDS_MAX)
        self.is_aborted = False
        self._address = address
        self._is_tls = is_tls
        self._plain: socket.socket | None = None

    def connect(self) -> None:
        """Open the connection."""
        sock = self._plain = socket.create_connection((self._address, self.port), SECONDS_MAX)
        if self._is_tls:
            try:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
            except BaseException:
                sock.close()
                raise
        self.sock = sock

    def abort(self) -> None:
        """End it from another thread: whatever waits for the other side goes on with an error."""
        self.is_aborted = True
        plain = self._plain
        if plain is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                plain.shutdown(socket.SHUT_RDWR)


def sign(body: bytes, secret: bytes, seconds: int) -> str:
    """Give the signature of a body at a moment; the receiver computes it again and refuses old moments."""
    signed = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={signed}"


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet, also where it only leads to another one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        for network, behind in _EMBEDDING:
            if parsed in network:
                return is_public(str(ipaddress.IPv4Address(int(parsed) >> behind & 0xFFFFFFFF)))
        if parsed.teredo is not None or parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast


def _host(name: str) -> str:
    """Give a host as it is asked for in the network: international names in ASCII (IDNA, RFC 3490)."""
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise InvalidRequest(f"alert_sinks: {name!r} is no name of a host: {error}.", field="alert_sinks") from None


def _resolve(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
