"""Finds objects of a survey by their ids and draws them: a montage of some, or a small picture of each of many."""

__all__ = ["montage", "pictures", "thumbnail"]

import io

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.observations import Image, Observation, Spectrum
from aion.plotting import colours, plot_image, plot_spectrum
from aion.survey.source import Reader, find, units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What can be drawn of an object; the first that it has is drawn.
_DRAWN = {
    **dict.fromkeys(("legacysurvey_image", "hsc_image"), Image),
    **dict.fromkeys(("desi_spectrum", "sdss_spectrum"), Spectrum),
}
_SIZE = 48  # pixels of the side of a small picture
_WIDE = 96  # pixels of the width of that of a spectrum
_INK, _PAPER = 40, 255


def pictures(sources: Sequence[str | Path], ids: Collection[str]) -> Iterator[tuple[str, Observation]]:
    """Yields id and image, or spectrum if there is no image, of some objects of a survey, in its order.

    Reading ends when all are found; an object without either is left out.

    Arguments:
        sources: see `aion.survey.source.find`.
        ids: of the objects.

    Raises:
        FileNotFoundError: if a source does not exist.
    """
    reader, wanted = Reader(_DRAWN, {}), set(ids)
    for unit in units(find(sources), 1024):
        for rows in reader.read(unit):
            for row, name in enumerate(rows.ids):
                if name not in wanted:
                    continue
                given = (rows.observations[key] for key in _DRAWN if key in rows.observations)
                if drawn := next((o[[row]] for o in given if o.measured[row].any()), None):
                    wanted.discard(name)
                    yield name, drawn
        if not wanted:
            return


def montage(panels: Iterable[tuple[str, Observation]], columns: int = 5) -> "Figure":
    """Draws objects beside each other.

    Arguments:
        panels: title of each object, and its image or spectrum.
        columns: number of panels in a row.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    drawn = list(panels)
    if not drawn:
        msg = "none of the objects has an image or a spectrum to draw"
        raise ValueError(msg)
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(3.2 * min(columns, len(drawn)), 3 * lines), layout="constrained")
    places = figure.subfigures(lines, min(columns, len(drawn)), squeeze=False).flatten()
    for place, (title, observation) in zip(places, drawn, strict=False):
        draw = plot_image if isinstance(observation, Image) else plot_spectrum
        draw(observation, title=title, figure=place)
    return figure


def thumbnail(observation: Observation) -> bytes:
    """Draws one image or spectrum as a picture of a kilobyte: a JPEG 48 pixels wide, or a PNG 96 pixels wide."""
    from PIL import Image as Picture

    stream = io.BytesIO()
    if isinstance(observation, Image):
        rgb = (255 * colours(observation)[::-1]).astype(np.uint8)  # row 0 is at the bottom
        Picture.fromarray(rgb).resize((_SIZE, _SIZE), Picture.Resampling.BOX).save(stream, "JPEG", quality=70)
    else:
        Picture.fromarray(_trace(observation)).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _trace(spectrum: Spectrum) -> np.ndarray:
    """Draws means of the flux along the wavelength as a line of columns; where nothing is measured there is none."""
    seen = spectrum.measured[0].numpy()
    flux, wavelength = spectrum.flux[0].numpy()[seen], spectrum.wavelength[0].numpy()[seen]
    low, high = wavelength.min(), wavelength.max()
    place = np.minimum((_WIDE * (wavelength - low) / max(high - low, 1e-6)).astype(int), _WIDE - 1)
    number = np.bincount(place, minlength=_WIDE)
    mean = np.bincount(place, flux, _WIDE)[number > 0] / number[number > 0]
    bottom, top = np.quantile(mean, [0.01, 0.99])
    level = np.clip((mean - bottom) / max(top - bottom, 1e-12), 0, 1)
    height = np.full(_WIDE, -1)
    height[number > 0] = np.round((_SIZE - 1) * (1 - level))
    picture = np.full((_SIZE, _WIDE), _PAPER, dtype=np.uint8)
    for column in np.flatnonzero(height >= 0):
        left = height[column - 1] if column and height[column - 1] >= 0 else height[column]
        picture[min(left, height[column]) : max(left, height[column]) + 1, column] = _INK
    return picture
