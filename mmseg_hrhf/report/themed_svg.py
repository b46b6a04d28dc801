"""Matplotlib figures as inline SVG that follows the page's light or dark colours."""
from __future__ import annotations

import io
import re
from contextlib import contextmanager
from typing import Iterator

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

# Placeholders that matplotlib draws with; the SVG has the page's CSS variables in their place.
INK, SOFT, LINE, CLEAR = '#010101', '#010102', '#010103', '#010104'
SERIES = tuple(f'#0102{i:02x}' for i in range(1, 9))
_VARIABLES = {INK: '--ink', SOFT: '--soft', LINE: '--line', CLEAR: '--surface'}
_VARIABLES.update({colour: f'--s{i}' for i, colour in enumerate(SERIES, start=1)})

_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'mmseg_hrhf',
    'font.family': 'sans-serif',
    'font.size': 9,
    'text.color': INK,
    'axes.labelcolor': SOFT,
    'axes.edgecolor': LINE,
    'axes.titlecolor': INK,
    'axes.titlesize': 10,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': LINE,
    'grid.linewidth': 0.7,
    'xtick.color': LINE,
    'ytick.color': LINE,
    'xtick.labelcolor': SOFT,
    'ytick.labelcolor': SOFT,
    'lines.linewidth': 1.8,
    'figure.facecolor': 'none',
    'axes.facecolor': 'none',
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw figures for :func:`themed_svg` within this context."""
    with matplotlib.rc_context(_STYLE):
        yield


def themed_svg(figure: Figure, name: str) -> Markup:
    """The figure as an ``<svg>`` element.

    Args:
        figure: drawn within :func:`chart_style`, with this module's colours.
        name: unique in the page; the SVG's ids begin with it.
    """
    stream = io.StringIO()
    figure.savefig(stream, format='svg', bbox_inches='tight', metadata=dict(Date=None, Creator=None))
    text = stream.getvalue()
    text = text[text.index('<svg'):]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f'var({variable})')
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf'\g<1>{name}-', text)
    return Markup(text)
