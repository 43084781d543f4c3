"""Three tokens, their weights as a textbook writes them, and an array of another library."""

from __future__ import annotations

import numpy as np

from tests.helpers import softmax

X = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 2.0], [2.0, 1.0, 0.0, 1.0]])  # sample_inputs/tokens.csv
TOKENS = ("the", "cat", "sat")
CSV = "token,d0,d1,d2,d3\nthe,1,0,1,0\ncat,0,1,1,2\nsat,2,1,0,1\n"
NAMES = ["d0", "d1", "d2", "d3"]
LATER = np.triu(np.ones((3, 3), bool), 1)
Q, K, V = X[:2], X, X[:, :2]


def weigh(q, k, hidden=False, scale=0.5):
    """The weights of the textbook."""
    return softmax(np.where(hidden, -np.inf, q @ k.T * scale))


W, CAUSAL = weigh(X, X), weigh(X, X, LATER)
CROSS = weigh(Q, K)


class Handed:
    """An array of a library that hands it over by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()
