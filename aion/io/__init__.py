"""Reads what surveys publish into observations, and writes embeddings: the one place that knows files and units.

    >>> import aion.io
    >>> spectrum = aion.io.read(aion.io.samples()["desi-galaxy"])["desi_spectrum"]
    >>> spectrum.flux.shape
    torch.Size([1, 7958])

Files go through `read`, tables through `from_table`, quantities and specutils objects through the bridges named after
them. Astropy and pyarrow are loaded when they are first needed.
"""

__all__ = [
    "Embeddings",
    "FORMATS",
    "Objects",
    "Series",
    "Shards",
    "SolarVideo",
    "Stream",
    "air_to_vacuum",
    "crossmatch",
    "from_quantity",
    "from_specutils",
    "from_table",
    "identify",
    "neighbours",
    "object_ids",
    "read",
    "read_embeddings",
    "read_objects",
    "read_redshift",
    "read_series",
    "read_solar",
    "samples",
    "to_quantity",
    "to_specutils",
    "vacuum_to_air",
    "write_embeddings",
    "write_forecast",
    "write_shards",
]

from aion.io.catalogs import neighbours
from aion.io.crossmatch import crossmatch
from aion.io.embeddings import Embeddings, read_embeddings, write_embeddings
from aion.io.quantities import from_quantity, to_quantity
from aion.io.series import Series, read_series, write_forecast
from aion.io.shards import Shards, Stream
from aion.io.solar import SolarVideo, read_solar
from aion.io.specutils import from_specutils, to_specutils
from aion.io.surveys import FORMATS, Objects, identify, object_ids, read, read_objects, read_redshift, samples
from aion.io.tables import from_table
from aion.io.units import air_to_vacuum, vacuum_to_air
from aion.io.universe import write_shards
