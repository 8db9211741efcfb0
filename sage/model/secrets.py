"""Texts that nobody may read in a log, an error, a span, a dead letter or a status, and how they are kept out of them.

Libraries quote what they were given: an HTTP client the header that it finds malformed, the key included. So whoever
resolves a secret remembers it here, and whatever writes words of an exception for somebody else to read hides it. What
is remembered belongs to the process, as its environment does: an exception does not say which topology it came from.
"""

from __future__ import annotations

import re
import threading
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "***"

SHORTEST: Final = 6
"""Characters; a shorter text is no secret worth the name, and stands in too many others."""

# Up to the last @ of what may be a host: a password may hold one itself.
_USERINFO: Final = re.compile(r"(?<=://)[^\s/?#\"'<>,]+@")


class Secrets:
    """What has to be hidden. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def remember(self, *texts: str) -> None:
        """Hide these from now on, also as ``repr`` and addresses write them; each line of a key in PEM by itself."""
        lines = [line.strip() for text in texts for line in (text, *text.splitlines())]
        kept = [line for line in lines if len(line) >= SHORTEST and not line.startswith("-----")]
        new = {form for line in kept for form in (line, repr(line)[1:-1], quote(line, safe=""))}
        if new <= self._known:
            return
        with self._lock:
            self._known |= new
            # The longest first: one that begins another is hidden with it.
            longest_first = sorted((re.escape(text) for text in self._known), key=len, reverse=True)
            self._pattern = re.compile("|".join(longest_first))

    def forget(self) -> None:
        """Hide nothing of what was remembered any more: for whoever runs many programs in one process, as tests do."""
        with self._lock:
            self._known = frozenset()
            self._pattern = None

    def hide(self, text: str) -> str:
        """``text`` without what was remembered, and without users and passwords in addresses."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return without_userinfo(text)


def without_userinfo(text: str) -> str:
    """``text`` with the user and the password of each address in it hidden.

    >>> without_userinfo("cannot reach https://ann:horse@memory.example:19530/x")
    'cannot reach https://***@memory.example:19530/x'
    """
    return _USERINFO.sub(f"{HIDDEN}@", text) if "@" in text else text


def has_userinfo(text: str) -> bool:
    """Whether an address in ``text`` names a user, with a password or without.

    >>> has_userinfo("http://key@host/v1"), has_userinfo("http://host/v1?to=ann@host")
    (True, False)
    """
    return "@" in text and _USERINFO.search(text) is not None


_OF_THIS_PROCESS: Final = Secrets()

remember_secret = _OF_THIS_PROCESS.remember
hide_secrets = _OF_THIS_PROCESS.hide
forget_secrets = _OF_THIS_PROCESS.forget
