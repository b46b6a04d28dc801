"""One self-contained HTML file: styles, scripts, charts and pictures inside, nothing fetched."""
from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ..scenario import IGNORE
from ..utils.io import PathLike, write_text

_TEMPLATES = Path(__file__).parent / 'templates'


def write_page(path: PathLike, template: str, **values: Any) -> None:
    """Fill a template of this package and write it whole or not at all. Values are escaped unless they are Markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters['score'] = score
    write_text(path, environment.get_template(template).render(**values))


def score(value) -> str:
    """A percentage with one decimal; a dash for what has no value."""
    return '-' if value is None or value != value else f'{value:.1f}'


def css_colour(colour: Sequence[int]) -> str:
    """RGB of 0 to 255 as CSS has it."""
    return 'rgb({} {} {})'.format(*colour)


def photo_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as a data URI, compressed for the eye."""
    return _uri(Image.fromarray(image), 'webp', quality=85)


def mask_uri(mask: np.ndarray, palette: Sequence[Sequence[int]], size: tuple[int, int]) -> str:
    """(H, W) class indices as a data URI of (height, width): background clear, ignored pixels white."""
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
