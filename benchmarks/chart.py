"""The chart of `docs/reference/cost.md`: bars in an SVG that is read on light and on dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.figures import Spread

WIDTH: Final = 860
LABELS: Final = 300
"""Width of the column of names, in pixels."""

FIGURES: Final = 60
"""Width left for the figure behind the longest bar."""

ROW: Final = 28
BAR: Final = 16
TOP: Final = 16
AXIS: Final = 48
MOST_TICKS: Final = 8
STEPS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)

STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.bar { fill: #8c959f } .ours { fill: #0969da } .range { stroke: #24292f; stroke-width: 1.5 }
.grid { stroke: #d0d7de } .one { stroke: #24292f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #4493f8 } .range { stroke: #e6edf3 }
  .grid { stroke: #30363d } .one { stroke: #e6edf3 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One variant.

    Attributes:
        label: Its name.
        ratio: Its CPU per request, bare = 1.
        is_ours: Whether it stands out.
    """

    label: str
    ratio: Spread
    is_ours: bool = False


def chart(bars: Sequence[Bar], title: str) -> str:
    """Returns the SVG: medians as bars, ranges as lines over their ends, an axis from 0.

    Args:
        bars: From top to bottom; a bar without a number is left out.
        title: For readers that do not see it.
    """
    drawn = [bar for bar in bars if not math.isnan(bar.ratio.median)]
    step = _step(max((bar.ratio.high for bar in drawn), default=1.0))
    most = step * math.ceil(max((bar.ratio.high for bar in drawn), default=1.0) / step)
    scale = (WIDTH - LABELS - FIGURES) / most
    bottom = TOP + ROW * len(drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + AXIS}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        *_axis(step, most, scale, bottom),
        *(part for number, bar in enumerate(drawn) for part in _row(bar, TOP + ROW * number, scale)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _step(high: float) -> float:
    """Returns the smallest round distance of ticks that needs no more than `MOST_TICKS`."""
    return next((step for step in STEPS if high / step <= MOST_TICKS), STEPS[-1])


def _axis(step: float, most: float, scale: float, bottom: int) -> list[str]:
    parts = []
    for number in range(round(most / step) + 1):
        at = LABELS + number * step * scale
        parts += [
            f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}"/>',
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{number * step:g}</text>',
        ]
    one = LABELS + scale
    middle = LABELS + most * scale / 2
    return [
        *parts,
        f'<line class="one" x1="{one:.1f}" y1="{TOP}" x2="{one:.1f}" y2="{bottom}"/>',
        f'<text x="{middle:.1f}" y="{bottom + 40}" text-anchor="middle">CPU per request, bare = 1</text>',
    ]


def _row(bar: Bar, top: int, scale: float) -> list[str]:
    middle = top + ROW / 2
    left, right = (LABELS + value * scale for value in (bar.ratio.low, bar.ratio.high))
    kind = "bar ours" if bar.is_ours else "bar"
    width = bar.ratio.median * scale
    return [
        f'<text x="{LABELS - 10}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{middle - BAR / 2}" width="{width:.1f}" height="{BAR}"/>',
        f'<line class="range" x1="{left:.1f}" y1="{middle}" x2="{right:.1f}" y2="{middle}"/>',
        f'<text x="{max(right, LABELS + width) + 8:.1f}" y="{middle + 4}">{bar.ratio.median:.2f}</text>',
    ]
