"""Bars of rates as an SVG: no library for one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

WIDTH, BAR, LABEL = 760, 22, 180


def bars(rates: Mapping[str, Any]) -> str:
    """One group of bars per comparison: medians in records per second, with a line from the least to the most."""
    parts: list[str] = []
    y = 10
    for title, values in rates.items():
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
        y += 24
        most = max(rate["most"] for rate in values.values())
        for name, spread in values.items():
            rate, least, highest = spread["median"], spread["least"], spread["most"]
            length = (WIDTH - LABEL - 110) * rate / most
            colour = "#2b6cb0" if name.startswith("sage") else "#a0aec0"
            parts.append(f'<text x="10" y="{y + 15}">{escape(name)}</text>')
            parts.append(f'<rect x="{LABEL}" y="{y + 3}" width="{length:.1f}" height="{BAR - 6}" fill="{colour}"/>')
            scale, middle = (WIDTH - LABEL - 110) / most, y + BAR / 2
            parts.append(
                f'<line x1="{LABEL + least * scale:.1f}" x2="{LABEL + highest * scale:.1f}" y1="{middle}" '
                f'y2="{middle}" stroke="#1a202c"/>'
            )
            parts.append(f'<text x="{LABEL + highest * scale + 6:.1f}" y="{y + 15}">{rate:,.0f}/s</text>')
            y += BAR
        y += 14
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"
