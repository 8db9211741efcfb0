"""How far in a file a source has read, and the JSON position that says so."""

from __future__ import annotations

from dataclasses import dataclass

from sage.errors import InvalidTopology
from sage.model.json import Json


@dataclass(frozen=True, slots=True)
class Place:
    """So many bytes and lines of a file are done. The empty name sorts before every file.

    ``inode`` tells a followed file from another that took its name; 0 where nobody looks.
    """

    file: str = ""
    byte: int = 0
    line: int = 0
    inode: int = 0

    @classmethod
    def of(cls, position: Json | None) -> Place:
        """The place that a kept position names; ``None`` is the very start.

        Raises:
            InvalidTopology: the position is not one of a file source.
        """
        match position:
            case None:
                return cls()
            case {"file": str(file), "byte": int(byte), "line": int(line), **rest}:
                inode = rest.get("inode")
                return cls(file, byte, line, inode if isinstance(inode, int) else 0)
        raise InvalidTopology(
            f"the kept position {position!r} is not one of a file source; start afresh with --from-beginning"
        )


def other_places(position: Json | None) -> list[Place]:
    """The places in the other files of a glob that was followed."""
    others = position.get("others") if isinstance(position, dict) else None
    if not isinstance(others, dict):
        return []
    return [Place.of({"file": name, **values}) for name, values in others.items() if isinstance(values, dict)]
