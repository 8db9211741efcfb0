"""One HTTP client per service and key, shared by all steps of a process.

A client's connections belong to the event loop they were opened in, so the loop is part of the identity.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Lock
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

CONNECT_TIMEOUT = 10.0
"""Seconds to open a connection; the whole answer has the request's own limit."""


@dataclass
class _Shared:
    client: AsyncOpenAI
    users: int = 0


_Identity = tuple[asyncio.AbstractEventLoop, str, str]

_clients: dict[_Identity, _Shared] = {}
_lock = Lock()


class ClientLease:
    """The right to use a shared client; give it back with ``release``."""

    def __init__(self, identity: _Identity, client: AsyncOpenAI) -> None:
        self._identity = identity
        self.client = client
        self._released = False

    async def release(self) -> None:
        """Close the client when this was its last user; idempotent."""
        with _lock:
            if self._released:
                return
            self._released = True
            shared = _clients[self._identity]
            shared.users -= 1
            if shared.users:
                return
            del _clients[self._identity]
        await self.client.close()


def lease(base_url: str, api_key: str) -> ClientLease:
    """Take a share of the running loop's client for this service and key."""
    identity = (asyncio.get_running_loop(), base_url, api_key)
    with _lock:
        shared = _clients.get(identity)
        if shared is None:
            shared = _clients[identity] = _Shared(_new_client(base_url, api_key))
        shared.users += 1
        return ClientLease(identity, shared.client)


def open_clients() -> int:
    """How many clients this process holds open."""
    with _lock:
        return len(_clients)


def is_loopback(base_url: str) -> bool:
    """Whether the service runs on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _new_client(base_url: str, api_key: str) -> AsyncOpenAI:
    local = is_loopback(base_url)
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key,
        max_retries=0,  # the runtime retries, with the step's own policy; twice would multiply the calls
        timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT),
        http_client=DefaultAsyncHttpxClient(
            # A proxy from the environment must not catch calls to this machine's own model server.
            trust_env=not local,
            # Small servers close idle connections just when they are used again; opening one costs nothing here.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0 if local else 64),
        ),
    )
