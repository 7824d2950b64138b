"""A lineage as an SVG picture: boxes in columns from raw frames to products, by the steps of Sugiyama et al. 1981.

Columns by the longest way to the end; the order within a column by barycentres,
edges that pass through columns taking places of their own; heights by least
squares under the distances that boxes need (pool adjacent violators).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .lineagegraph import Box, Graph, boxes_of, colour_of, plain, role_says_more, texts_of

# Pixels of the picture.
FONT_PX, LINE_PX, PAD_PX, MARGIN_PX = 11, 15, 8, 16
GAP_PX, EDGE_GAP_PX, COLUMN_GAP_PX = 12, 8, 64
NARROW, WIDE = 0.6, 1.0
LONGEST_TEXT = 34
SWEEPS = 12
INK, NOTE, LINE, WARN = "#262626", "#666666", "#8c8c8c", "#D55E00"

# A box, or the place of an edge in a column that it passes through.
Place = int
Link = tuple[Place, Place]


@dataclass
class _Layout:
    """Places in columns, the first of which is at the left; heights are of their middles."""

    heights: list[float]
    columns: list[list[Place]]
    links: list[Link]
    middles: dict[Place, float] = field(default_factory=dict)


def to_svg(graph: Graph) -> str:
    """The graph as an SVG document that needs nothing else; what is alike is drawn as one box."""
    boxes, edges = boxes_of(graph)
    texts = [[_shortened(plain(text)) for text in texts_of(box)] for box in boxes]
    ranks = _ranks(len(boxes), [(product, source) for product, _, source in edges])
    paths, layout = _placed(ranks, edges, [len(one) * LINE_PX + 2 * PAD_PX - 4.0 for one in texts])
    widths = [_width(one) for one in texts]
    lefts, column_widths, total = _lefts(layout, widths)
    rank_of = {place: number for number, column in enumerate(layout.columns) for place in column}
    height = max((layout.middles[one] + layout.heights[one] / 2 for one in layout.middles), default=0.0)
    parts = [_head(total, height + MARGIN_PX)]
    for (product, role, source), path in zip(edges, paths, strict=True):
        points = []
        for place in path:
            left, middle = lefts[rank_of[place]], layout.middles[place]
            width = widths[place] if place < len(boxes) else column_widths[rank_of[place]]
            points.append((left, left + width, middle))
        parts.append(_edge(points, role, boxes[source], boxes[product]))
    for number, box in enumerate(boxes):
        corner = lefts[rank_of[number]], layout.middles[number] - layout.heights[number] / 2
        parts.append(_box(box, texts[number], corner, widths[number], layout.heights[number]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """How many steps each box stands before the end, by the longest way; what closes a circle is left out."""
    inputs: list[list[int]] = [[] for _ in range(count)]
    for product, source in edges:
        inputs[product].append(source)
    ordered = _products_first(inputs)
    place = {one: number for number, one in enumerate(ordered)}
    ranks = [0] * count
    for one in ordered:
        for source in inputs[one]:
            if place[source] > place[one]:
                ranks[source] = max(ranks[source], ranks[one] + 1)
    return ranks


def _products_first(inputs: Sequence[Sequence[int]]) -> list[int]:
    """The boxes so that each stands before its inputs, as far as there is no circle."""
    done: list[int] = []
    seen: set[int] = set()
    for start in range(len(inputs)):
        waiting = [(start, iter(inputs[start]))] if start not in seen else []
        seen.add(start)
        while waiting:
            below = next((one for one in waiting[-1][1] if one not in seen), None)
            if below is None:
                done.append(waiting.pop()[0])
            else:
                seen.add(below)
                waiting.append((below, iter(inputs[below])))
    return done[::-1]


def _placed(
    ranks: Sequence[int], edges: Sequence[tuple[int, str, int]], heights: Sequence[float]
) -> tuple[list[list[Place]], _Layout]:
    """The way of each edge, from the input to the product, and where everything stands."""
    most = max(ranks, default=0)
    columns: list[list[Place]] = [[] for _ in range(most + 1)]
    for number, rank in enumerate(ranks):
        columns[most - rank].append(number)
    layout = _Layout(list(heights), columns, [])
    paths = []
    for product, _, source in edges:
        start, end = most - ranks[source], most - ranks[product]
        path = [source]
        for column in range(start + 1, end):
            layout.heights.append(0.0)
            layout.columns[column].append(len(layout.heights) - 1)
            path.append(len(layout.heights) - 1)
        path.append(product)
        layout.links += pairwise(path) if start < end else []
        paths.append(path)
    _order_columns(layout)
    _set_middles(layout)
    return paths, layout


def _neighbours(links: Sequence[Link]) -> tuple[dict[Place, list[Place]], dict[Place, list[Place]]]:
    left: dict[Place, list[Place]] = {}
    right: dict[Place, list[Place]] = {}
    for source, product in links:
        left.setdefault(product, []).append(source)
        right.setdefault(source, []).append(product)
    return left, right


def _order_columns(layout: _Layout) -> None:
    """Bring each place near its neighbours in the columns beside it, from both sides in turn."""
    left, right = _neighbours(layout.links)
    order = {place: float(number) for column in layout.columns for number, place in enumerate(column)}
    for sweep in range(SWEEPS):
        beside, columns = (right, layout.columns[::-1]) if sweep % 2 == 0 else (left, layout.columns)
        for column in columns:
            column.sort(key=lambda one: _mean([order[n] for n in beside.get(one, ())], order[one]))
            order.update((place, float(number)) for number, place in enumerate(column))


def _set_middles(layout: _Layout) -> None:
    left, right = _neighbours(layout.links)
    for column in layout.columns:
        _settle(column, [0.0] * len(column), layout)
    for sweep in range(SWEEPS):
        beside, columns = (right, layout.columns[::-1]) if sweep % 2 == 0 else (left, layout.columns)
        for column in columns:
            wanted = [
                _mean([layout.middles[n] for n in beside.get(one, ())], layout.middles[one]) for one in column
            ]
            _settle(column, wanted, layout)
    top = min((layout.middles[one] - layout.heights[one] / 2 for one in layout.middles), default=0.0)
    layout.middles = {one: middle - top + MARGIN_PX for one, middle in layout.middles.items()}


def _settle(column: Sequence[Place], wanted: Sequence[float], layout: _Layout) -> None:
    """Put a column as near to the wanted middles as the distances allow, in its order."""
    offsets = [0.0]
    for above, below in pairwise(column):
        gap = GAP_PX if layout.heights[above] and layout.heights[below] else EDGE_GAP_PX
        offsets.append(offsets[-1] + (layout.heights[above] + layout.heights[below]) / 2 + gap)
    pools: list[list[float]] = []
    for want, offset in zip(wanted, offsets, strict=False):
        pools.append([want - offset, 1.0])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            mean, weight = pools.pop()
            total = pools[-1][1] + weight
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * weight) / total, total]
    settled = [mean for mean, weight in pools for _ in range(int(weight))]
    for place, mean, offset in zip(column, settled, offsets, strict=False):
        layout.middles[place] = mean + offset


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _lefts(layout: _Layout, widths: Sequence[float]) -> tuple[list[float], list[float], float]:
    """Where each column begins, how wide it is, and how wide all is."""
    column_widths = [
        max((widths[n] for n in column if n < len(widths)), default=0.0) for column in layout.columns
    ]
    lefts, at = [], float(MARGIN_PX)
    for width in column_widths:
        lefts.append(at)
        at += width + COLUMN_GAP_PX
    return lefts, column_widths, at - COLUMN_GAP_PX + MARGIN_PX


def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="{FONT_PX}">\n<rect width="100%" height="100%" fill="white"/>\n'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>'
    )


def _edge(points: Sequence[tuple[float, float, float]], role: str, source: Box, product: Box) -> str:
    """A smooth line from the right side of the input to the left side of the product."""
    _, x, y = points[0]
    path = [f"M{x:.1f} {y:.1f}"]
    for left, right, middle in points[1:]:
        bend = (x + left) / 2
        path.append(f"C{bend:.1f} {y:.1f} {bend:.1f} {middle:.1f} {left:.1f} {middle:.1f}")
        x, y = right, middle
        if (left, right, middle) != points[-1]:
            path.append(f"L{x:.1f} {y:.1f}")
    title = f"{_name(source)} as {plain(role)} of {_name(product)}"
    drawn = (
        f'<path d="{"".join(path)}" fill="none" stroke="{LINE}" marker-end="url(#arrow)">'
        f"<title>{_escaped(title)}</title></path>"
    )
    if not role_says_more(role, source.nodes[0]):
        return drawn
    left, _, middle = points[-1]
    return (
        f'{drawn}\n<text x="{left - 9:.1f}" y="{middle - 4:.1f}" text-anchor="end" font-size="9" '
        f'fill="{NOTE}">{_escaped(_shortened(plain(role)))}</text>'
    )


def _box(box: Box, texts: Sequence[str], corner: tuple[float, float], width: float, height: float) -> str:
    node = box.nodes[0]
    x, y = corner
    whole = node.state in ("present", "moved")
    stroke = f'stroke="{INK if whole else WARN}"' + ("" if whole else ' stroke-dasharray="4 3"')
    rect = f'width="{width:.1f}" height="{height:.1f}" rx="4" fill="{colour_of(node.kind)}" {stroke}'
    parts = [f"<g><title>{_escaped(chr(10).join(plain(one.path) for one in box.nodes))}</title>"]
    if len(box.nodes) > 1:
        # A stack of sheets.
        parts.append(f'<rect x="{x + 4:.1f}" y="{y + 4:.1f}" {rect}/>')
    parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {rect}/>')
    for number, text in enumerate(texts):
        look = ' font-weight="bold"' if number == 0 else f' fill="{NOTE}"' if number > 1 else ""
        base = y + PAD_PX + (number + 0.7) * LINE_PX - 2
        parts.append(f'<text x="{x + PAD_PX:.1f}" y="{base:.1f}"{look}>{_escaped(text)}</text>')
    return "\n".join([*parts, "</g>"])


def _name(box: Box) -> str:
    return " ".join(plain(text) for text in texts_of(box)[:2])


def _width(texts: Sequence[str]) -> float:
    return (
        max(sum(WIDE if _is_wide(char) else NARROW for char in text) for text in texts) * FONT_PX + 2 * PAD_PX
    )


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def _shortened(text: str) -> str:
    """A long text without its middle."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\u2026{text[-half + 1 :]}"


_ENTITIES: Mapping[int, str] = {ord(char): f"&#{ord(char)};" for char in "&<>\"'"}


def _escaped(text: str) -> str:
    """A text as XML has it; line ends stay."""
    return text.translate(_ENTITIES)
