"""How much the distribution of a number differs between the known rows and new ones."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

DECILES = np.linspace(0, 1, 11)[1:-1]

SMOOTHING = 0.5
"""Rows added to each bin, so that an empty one does not make the index infinite."""


def compute_psi(known: NDArray[np.floating], new: NDArray[np.floating]) -> float:
    """Compute the population stability index over the deciles of the known values.

    By a common rule, 0.1 is a small and 0.25 a large shift. Of n new rows from the same distribution it is
    about 9 / n. Equal values fall into one bin, so that fewer than ten bins remain.
    """
    edges = np.unique(np.quantile(known, DECILES))
    fractions = []
    for values in (known, new):
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        fractions.append((counts + SMOOTHING) / (counts + SMOOTHING).sum())
    return float(np.sum((fractions[1] - fractions[0]) * np.log(fractions[1] / fractions[0])))


def compute_ks(known: NDArray[np.floating], new: NDArray[np.floating]) -> float:
    """Compute the two-sample Kolmogorov-Smirnov statistic, the largest difference of the distributions."""
    return float(ks_2samp(known, new, method="asymp").statistic)
