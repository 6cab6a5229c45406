"""The way out to addresses that users give: the public Internet, and what the operator lets through, alone.

Whoever may add a channel could otherwise have Grafient ask the machines around it, such as ``169.254.169.254``, which
tells a cloud's credentials. Looking up a name before sending is not enough: a name server can answer with a public
address when it is checked and with 127.0.0.1 a moment later, when the connection is made. So the look-up is part of
making the connection: each address that the name leads to is checked, and exactly these are connected to. The
certificate is verified for the name all the same.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from grafient.config import Address, AlertHosts
from grafient.providers.http import Transport, within

SECONDS = 10.0
"""For a whole exchange, from looking up the name to the last byte that is read."""
MOST_BYTES = 64 * 1024
"""How much of an answer is read. None of it is shown or logged."""


class Unreached(Exception):
    """Nobody answered, or nobody was asked. The message is a sentence for users, without any secret."""


@dataclass(frozen=True)
class Answer:
    """What the other end said; ``body``: the beginning of it."""

    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)


class _Refused(Exception):
    pass


for _name in ("httpx", "httpcore"):  # they would log addresses, with what is secret in them
    logging.getLogger(_name).setLevel(logging.WARNING)

_HEADERS = {"User-Agent": "Grafient", "Accept-Encoding": "identity"}


def exchange(
    method: str,
    url: str,
    hosts: AlertHosts,
    *,
    headers: Mapping[str, str],
    content: bytes,
    seconds: float = SECONDS,
) -> Answer:
    """Send a request, and follow no redirect. Raises Unreached. From any number of threads.

    ``http://`` is for hosts that the operator lets through, since what is sent to others would be read on the way.
    """
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:
        target = httpx.URL("")
    if target.scheme not in ("http", "https") or target.userinfo:
        raise Unreached("This is not an address that alerts can be sent to.")
    plain = target.scheme == "http"

    def lookup(host: str, port: int) -> Sequence[str]:
        return _addresses(host, port, hosts, plain=plain)

    try:
        with (
            within(seconds),
            httpx.Client(
                transport=Transport(_tls(), lookup),
                follow_redirects=False,
                trust_env=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                timeout=httpx.Timeout(seconds),
            ) as client,
            client.stream(method, target, content=content, headers={**_HEADERS, **headers}) as response,
        ):
            return Answer(response.status_code, response.headers, _beginning(response))
    except _Refused as refused:
        raise Unreached(str(refused)) from None
    except httpx.TimeoutException:
        raise Unreached(f"{target.host} did not answer within {math.ceil(seconds)} seconds.") from None
    except (httpx.HTTPError, OSError, UnicodeError) as error:
        raise Unreached(_why(error, target.host)) from None


def is_public(address: Address) -> bool:
    """Whether an address is one of the public Internet.

    Of those in IPv6 that stand for one in IPv4 it is that one that counts: ``::ffff:127.0.0.1`` is this machine, and
    behind a NAT64 ``64:ff9b::7f00:1`` is as well. 6to4 and Teredo are of the past, and lead wherever they like.
    """
    if isinstance(address, ipaddress.IPv6Address):
        within_it = address.ipv4_mapped or (ipaddress.IPv4Address(int(address) % 2**32) if address in _NAT64 else None)
        if within_it is not None:
            return is_public(within_it)
        return address in _GLOBAL and not any(address in one for one in _NOT_GLOBAL) and address.is_global
    return address.is_global and not (address.is_multicast or address.is_reserved or address in _RELAYS)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL = ipaddress.ip_network("2000::/3")
_NOT_GLOBAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "2001::/23",  # Teredo, and what protocols use among themselves
            "2001:db8::/32",  # these two are for documents
            "3fff::/20",
            "2002::/16",  # 6to4
        ),
    )
)
_RELAYS = ipaddress.ip_network("192.88.99.0/24")  # of 6to4


def _addresses(host: str, port: int, hosts: AlertHosts, *, plain: bool) -> Sequence[str]:
    """The addresses of a host, in the order in which they are to be tried. Raises _Refused if one may not be reached:
    a name that has both a public and a private address is up to something."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _Refused(f"No machine has the name {host}.") from None
    texts = list(dict.fromkeys(str(one[4][0]) for one in found))
    for text in texts:
        address = ipaddress.ip_address(text.partition("%")[0])
        allowed = hosts.has(host, address)
        if not allowed and not is_public(address):
            raise _Refused(
                f"{host} is not on the public Internet. If it is in your own network, the operator of this Grafient "
                "can let it through with GRAFIENT_ALERT_HOSTS."
            )
        if plain and not allowed:
            raise _Refused(f"{host} can be sent alerts over https:// only.")
    if not texts:
        raise _Refused(f"No machine has the name {host}.")
    return texts


def _beginning(response: httpx.Response) -> bytes:
    """What there is of a body, up to MOST_BYTES or to the deadline: who answered has got the message."""
    found = bytearray()
    try:
        for chunk in response.iter_raw():
            found += chunk
            if len(found) >= MOST_BYTES:
                break
    except httpx.HTTPError:
        pass
    return bytes(found[:MOST_BYTES])


@cache
def _tls() -> ssl.SSLContext:
    """Made once: it takes 30 to 43 ms of processor."""
    return httpx.create_ssl_context()


def _why(error: BaseException, host: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"The certificate of {host} is not valid for that name, or nobody known vouches for it."
    if isinstance(error, httpx.ConnectError | OSError):
        return f"No connection could be made to {host}."
    return f"The connection to {host} broke off."
