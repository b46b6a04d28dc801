"""Charts, and the self-contained HTML pages that show them."""
from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from ..scenario import IGNORE
from ..utils.io import PathLike, atomic_write, write_text
from .comparison.cell import Cell
from .comparison.table import mean_and_deviation


def step_curves(methods: dict[str, list[Sequence[dict]]], num_steps: int, name: str) -> Markup:
    """mIoU of ``all`` and ``old`` classes (without background) after each step, one line per method.

    Args:
        methods: for each method, the results of each seed. A method that is trained once (Joint) is a horizontal line.
        num_steps: number of steps of the scenario.
        name: see ``themed_svg``.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 3.1))
        axes = figure.subplots(1, 2, sharey=True)
        for axis, group, title in zip(axes, ('all', 'old'), ('all classes so far', 'classes of step 0')):
            for i, runs in enumerate(methods.values()):
                # After eight methods, colours repeat with dotted lines.
                _draw(axis, runs, num_steps, f'mIoU_{group}', color=SERIES[i % len(SERIES)], markersize=4,
                      linestyle='-' if i < len(SERIES) else ':')
            axis.set_title(f'mIoU of {title}')
            axis.set_xlabel('step')
            axis.set_xlim(-0.15, num_steps - 0.85)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel('%')
        figure.tight_layout(w_pad=2.5)
        return themed_svg(figure, name)


_TERMS = dict(
    classification='classification loss', feature='feature statistics', tv='total variation', l2='squared norm')


def inversion_curves(curves: Sequence[dict], name: str) -> Markup:
    """Losses over the iterations of an inversion: one chart per term, with one thin line per batch.

    Args:
        curves: one per batch, see ``thin_curve``.
        name: see ``themed_svg``.
    """
    terms = list(dict.fromkeys(term for curve in curves for term in curve if term != 'iteration'))
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.05 * max(2, len(terms)), 2.3))
        for i, (axis, term) in enumerate(zip(figure.subplots(1, len(terms), squeeze=False)[0], terms)):
            for curve in curves:
                axis.plot(curve['iteration'], curve[term], color=SERIES[i % len(SERIES)], linewidth=1.1,
                          alpha=max(0.25, 1 / len(curves)**0.5))
            axis.set_title(_TERMS.get(term, term))
            axis.set_yscale('log')
            values = [value for curve in curves for value in curve[term] if value > 0]
            wide = bool(values) and max(values) > 30 * min(values)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, ) if wide else (1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
            axis.yaxis.set_minor_locator(NullLocator())
            axis.tick_params(labelsize=8)
            axis.set_xlabel('iteration', color=SOFT)
        figure.tight_layout(w_pad=1.5)
        return themed_svg(figure, name)


def plot_curves(cells: Sequence[Cell], path: PathLike) -> None:
    """Plot mIoU of ``all`` and ``old`` classes (without background) after each step, with bands over seeds.

    Args:
        cells: cells whose finished runs are plotted. A method with only the last step (Joint) is a dashed line.
        path: output file; its suffix selects the format (``.png``, ``.svg``).
    """
    done = [(cell, results) for cell in cells for results in [cell.results()] if results is not None]
    columns = list(dict.fromkeys(cell.column for cell, _ in done))
    methods = list(dict.fromkeys(cell.method for cell, _ in done))
    colours = {method: colormaps['tab20'](i % 20) for i, method in enumerate(methods)}
    colours['HRHF'] = (0., 0., 0., 1.)  # highlighted
    figure = Figure(figsize=(4.2 * max(1, len(columns)) + 2, 7))
    axes = figure.subplots(2, max(1, len(columns)), squeeze=False, sharex='col', sharey='row')
    handles: dict = {}
    for column, (top, bottom) in zip(columns, axes.T):
        top.set_title(column)
        bottom.set_xlabel('step')
        for axis, group in ((top, 'all'), (bottom, 'old')):
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            for method in methods:
                runs = [results for cell, results in done if (cell.method, cell.column) == (method, column)]
                if runs:
                    line = _draw(axis, [run['results'] for run in runs], runs[0]['num_steps'], f'mIoU_{group}',
                                 color=colours[method], markersize=3, linewidth=2.5 if method == 'HRHF' else 1.5)
                    handles.setdefault(method, line)
    for axis, group in zip(axes[:, 0], ('all', 'old')):
        axis.set_ylabel(f'mIoU of {group} classes (%)')
    figure.legend([handles[method] for method in methods], methods, loc='center left', bbox_to_anchor=(1.0, 0.5),
                  frameon=False)
    figure.tight_layout()
    save_figure(figure, path)


def save_figure(figure: Figure, path: PathLike) -> None:
    """Write a figure atomically; the suffix of ``path`` selects the format."""
    with atomic_write(path) as file:
        figure.savefig(file, format=Path(path).suffix.lstrip('.'), dpi=130, bbox_inches='tight')


def _draw(axis: Axes, runs: Sequence[Sequence[dict]], num_steps: int, key: str, **style) -> Line2D:
    """Plot the mean of a metric over seeds by step, with a band of one standard deviation.

    Args:
        axis: target axes.
        runs: for each seed, the results of its steps. A single step of several is a horizontal line.
        num_steps: number of steps of the scenario.
        key: name of the metric.
        **style: line style.
    """
    steps = [result['step'] for result in runs[0]]
    # The line has a gap if no test image contains a class of the group.
    means, spreads = mean_and_deviation([[result['metrics'][key] for result in run] for run in runs])
    if len(steps) == 1 and num_steps > 1:
        return axis.axhline(means[0], **dict(style, linestyle='--'))
    line, = axis.plot(steps, means, marker='o', **style)
    if any(spreads):
        low, high = ([m + sign * s for m, s in zip(means, spreads)] for sign in (-1, 1))
        axis.fill_between(steps, low, high, color=style['color'], alpha=0.15, linewidth=0)
    return line


# Placeholder colours for matplotlib, which themed_svg() replaces by CSS variables of the page.
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


def themed_svg(figure: Figure, name: str) -> Markup:
    """Render a figure as an ``<svg>`` element.

    Args:
        figure: drawn within ``rc_context(_STYLE)`` and with the colours of this module.
        name: prefix of the SVG's ids, unique in the page.
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


_TEMPLATES = Path(__file__).parent / 'templates'


def write_page(path: PathLike, template: str, **values: Any) -> None:
    """Render a template of this package and write it atomically. Values are escaped unless they are Markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters['score'] = score
    write_text(path, environment.get_template(template).render(**values))


def score(value) -> str:
    """Percentage with one decimal; a dash if there is no value."""
    return '-' if value is None or value != value else f'{value:.1f}'


def css_colour(colour: Sequence[int]) -> str:
    """CSS colour from RGB values of 0 to 255."""
    return 'rgb({} {} {})'.format(*colour)


def photo_uri(image: np.ndarray) -> str:
    """Data URI of an (H, W, 3) uint8 RGB image, with lossy compression."""
    return _uri(Image.fromarray(image), 'webp', quality=85)


def mask_uri(mask: np.ndarray, palette: Sequence[Sequence[int]], size: tuple[int, int]) -> str:
    """Data URI of (H, W) class indices, resized to (height, width): transparent background, white ignored pixels."""
    picture = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST).convert('P')
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[:len(palette)] = palette
    picture.putpalette(colours.tobytes())
    alpha = bytearray([255] * 256)
    alpha[0], alpha[IGNORE] = 0, 200
    return _uri(picture, 'png', optimize=True, transparency=bytes(alpha))


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f'data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}'
