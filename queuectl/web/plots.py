"""Plots as SVG that the server makes of numbers. The only place where markup is made of anything but a template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

HEIGHT = 64
_BAR, _GAP = 8, 2


def bars(numbers: Sequence[tuple[int, int]]) -> Markup:
    """Return bars of two numbers each, one above the other: completed jobs below, dead ones, hatched, above.

    They tell nothing that the sentence beside them does not, so programs that read pages aloud pass over them.
    """
    highest = max((well + dead for well, dead in numbers), default=0) or 1
    parts = []
    for place, (well, dead) in enumerate(numbers):
        left = place * (_BAR + _GAP)
        low, high = (round(int(number) * HEIGHT / highest, 1) for number in (well, dead))
        if well:
            parts.append(_rectangle("plot-done", left, HEIGHT - low, low))
        if dead:
            parts.append(_rectangle("plot-dead", left, HEIGHT - low - high, high))
    width = max(1, len(numbers)) * (_BAR + _GAP)
    hatch = (
        '<pattern id="hatch" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="4" height="4" class="hatch-below"/><rect width="2" height="4" class="hatch-above"/></pattern>'
    )
    return Markup(  # noqa: S704 (made of numbers alone)
        f'<svg class="plot" viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f"<defs>{hatch}</defs>{''.join(parts)}</svg>"
    )


def _rectangle(name: str, left: int, top: float, height: float) -> str:
    return f'<rect class="{name}" x="{left}" y="{top:.1f}" width="{_BAR}" height="{max(1.0, height):.1f}"/>'
