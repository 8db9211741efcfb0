"""Collection names as Milvus servers allow them: letters, digits and underscores, not a digit first.

Names that are legal there stay as they are. Other characters are written as ``_u<hex>_``, which is undone
when names are listed, so that ``my-docs`` and ``my_docs`` are two collections.
"""

from __future__ import annotations

import re

_ILLEGAL = re.compile(r"[^A-Za-z0-9_]|^[0-9]|_(?=u[0-9a-f]+_)")
_ESCAPE = re.compile(r"_u([0-9a-f]+)_")


def physical_name(name: str) -> str:
    """The name that Milvus sees."""
    return _ILLEGAL.sub(lambda match: f"_u{ord(match[0]):x}_", name)


def logical_name(name: str) -> str:
    """The name that users see."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
