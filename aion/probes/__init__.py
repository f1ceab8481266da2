"""Probes: small estimators on frozen embeddings, with the protocol of scikit-learn.

    >>> import numpy as np
    >>> from aion.probes import RidgeProbe
    >>> probe = RidgeProbe(alpha=0).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> float(probe.predict(np.array([[3.0]]))[0].round(6))
    7.0

All take arrays or tensors, refuse NaN by row, draw from a seed of their own, work in `cross_val_score` and `Pipeline`,
and are saved by `save` and read by `load` of their class: one safetensors file whose header holds the rest as JSON.
"""

__all__ = [
    "AttentiveProbe",
    "LogisticProbe",
    "MLPProbe",
    "MapProbe",
    "NeighborProbe",
    "Probe",
    "RidgeProbe",
]

from aion.probes.attentive import AttentiveProbe
from aion.probes.logistic import LogisticProbe
from aion.probes.maps import MapProbe
from aion.probes.mlp import MLPProbe
from aion.probes.neighbor import NeighborProbe
from aion.probes.probe import Probe
from aion.probes.ridge import RidgeProbe
