"""Reading http and https with the standard library: where a server may redirect to, and connections that a guard can end."""

from __future__ import annotations

import socket
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from attncli.batch.address_limits import TransferGuard

_SECONDS_PER_READ = 60.0  # how long one read may take
_TRANSLATED_IPV4 = IPv6Network("64:ff9b::/96")  # RFC 6052


class RedirectRefusedError(OSError):
    """Raised where a server redirects to a place that is not followed."""


def open_web_address(address: str, guard: TransferGuard) -> IO[bytes]:
    """Open a web address. User and password are sent to its own server, and not to one that it redirects to.

    Raises:
        OSError: it cannot be opened. Others are possible: the address may be nonsense.
    """
    from base64 import b64encode

    parts = urlsplit(address)
    request = Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", "Basic " + b64encode(credentials).decode())
    connector = _Connector(guard)
    opener = build_opener(_HttpHandler(connector), _HttpsHandler(connector), _RedirectHandler())
    response: IO[bytes] = opener.open(request, timeout=_SECONDS_PER_READ)
    return response


class _Connector:
    """Makes the connections of one address, one after the other where it is redirected.

    Once a public host was reached, private ones are refused: it could have this machine read what only this machine can.
    The address that a name stands for is looked up once, and it is that one which is looked at and connected to.
    """

    def __init__(self, guard: TransferGuard) -> None:
        self.guard = guard
        self.has_met_public_host = False

    def connect(self, address: tuple[str, int], timeout: float, source_address: object = None) -> socket.socket:
        """Connect to a host and a port.

        Raises:
            OSError: nobody answers there, or it is a private host to which a public one redirects.
        """
        host, port = address
        last_error: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            is_public = is_public_ip(str(place[0]))
            if self.has_met_public_host and not is_public:
                last_error = RedirectRefusedError(f"it redirects to {host}, which is in a private network")
                continue
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(timeout)
                self.guard.add_socket(connection)
                connection.connect(place)
            except OSError as error:
                connection.close()
                last_error = error
                continue
            self.has_met_public_host = self.has_met_public_host or is_public
            return connection
        raise last_error


def is_public_ip(text: str) -> bool:
    """Whether an IP address is one of the internet: not of this machine, of a private network or of a single link."""
    ip: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(ip, IPv6Address):
        embedded = IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _TRANSLATED_IPV4 else None
        ip = embedded or ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


def _is_private_name(host: str) -> bool:
    """Whether a host is private by its very name: where a proxy connects, names are not looked up here."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public_ip(host)
    except ValueError:
        pass
    try:
        return not is_public_ip(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001
    except (OSError, ValueError):
        return False


class _RedirectHandler(HTTPRedirectHandler):
    """Follows redirects to http and https."""

    def redirect_request(
        self, request: Request, response: IO[bytes], code: int, message: str, headers: HTTPMessage, address: str
    ) -> Request | None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https"):
            raise RedirectRefusedError(f"it redirects to {parts.scheme}://, but only http and https are followed")
        has_proxy = request.has_proxy() or getattr(request, "_tunnel_host", None)
        host = (parts.hostname or "").lower()
        if has_proxy and _is_private_name(host) and not _is_private_name(urlsplit(request.full_url).hostname or ""):
            raise RedirectRefusedError(f"it redirects to {host}, which is in a private network")
        return super().redirect_request(request, response, code, message, headers, address)


class _HttpHandler(HTTPHandler):
    """Opens http with the connections of a connector."""

    def __init__(self, connector: _Connector) -> None:
        super().__init__()
        self.connector = connector

    def http_open(self, request: Request) -> HTTPResponse:
        """Open an address."""
        return self.do_open(self._make_connection, request)

    # The options are those that urllib passes on to a connection.
    def _make_connection(self, host: str, **options: Any) -> HTTPConnection:
        connection = HTTPConnection(host, **options)
        connection._create_connection = self.connector.connect  # type: ignore[attr-defined]  # noqa: SLF001
        return connection


class _HttpsHandler(HTTPSHandler):
    """Opens https with the connections of a connector."""

    def __init__(self, connector: _Connector) -> None:
        super().__init__()
        self.connector = connector

    def https_open(self, request: Request) -> HTTPResponse:
        """Open an address."""
        return self.do_open(self._make_connection, request)

    def _make_connection(self, host: str, **options: Any) -> HTTPSConnection:
        connection = HTTPSConnection(host, **options)
        connection._create_connection = self.connector.connect  # type: ignore[attr-defined]  # noqa: SLF001
        return connection
