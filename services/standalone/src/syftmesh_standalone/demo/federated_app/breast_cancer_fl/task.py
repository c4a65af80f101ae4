"""The model, the data and the training step: numpy alone, and the same numbers every time."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FILE = "breast_cancer.csv"
DIAGNOSIS = "diagnosis"
POSITIVE = "malignant"
PENALTY = 1e-3
"""Factor of the squared weights in the loss."""
EVERY = 5
"""One of so many rows is held out at each site: it is never trained on, and the model is evaluated on it."""

SCALES = {
    "mean_radius": (14, 3.5),
    "mean_texture": (19, 4.3),
    "mean_perimeter": (92, 24),
    "mean_area": (650, 350),
    "mean_smoothness": (0.096, 0.014),
    "mean_compactness": (0.1, 0.053),
    "mean_concavity": (0.089, 0.08),
    "mean_concave_points": (0.049, 0.039),
    "mean_symmetry": (0.18, 0.027),
    "mean_fractal_dimension": (0.063, 0.0071),
    "radius_error": (0.41, 0.28),
    "texture_error": (1.2, 0.55),
    "perimeter_error": (2.9, 2),
    "area_error": (40, 45),
    "smoothness_error": (0.007, 0.003),
    "compactness_error": (0.025, 0.018),
    "concavity_error": (0.032, 0.03),
    "concave_points_error": (0.012, 0.0062),
    "symmetry_error": (0.021, 0.0083),
    "fractal_dimension_error": (0.0038, 0.0026),
    "worst_radius": (16, 4.8),
    "worst_texture": (26, 6.1),
    "worst_perimeter": (110, 34),
    "worst_area": (880, 570),
    "worst_smoothness": (0.13, 0.023),
    "worst_compactness": (0.25, 0.16),
    "worst_concavity": (0.27, 0.21),
    "worst_concave_points": (0.11, 0.066),
    "worst_symmetry": (0.29, 0.062),
    "worst_fractal_dimension": (0.084, 0.018),
}
"""Typical value and spread of each feature, rounded, as the literature gives them.

Every site has to scale alike, or their weights mean different things and may not be averaged. With constants
no site says anything of its own mean or spread.
"""


class Table(NamedTuple):
    """Rows of one site: scaled features, one row a record, and 1 where the diagnosis is malignant."""

    features: Floats
    labels: Floats


class Model(NamedTuple):
    """Weights of the scaled features, and one bias."""

    weights: Floats
    bias: Floats


def first_model() -> Model:
    """Return the model before any training."""
    return Model(np.zeros(len(SCALES)), np.zeros(1))


def read(folder: Path) -> Table:
    """Return the table in `folder`.

    Raises:
        ValueError: It has no rows, or a diagnosis is neither malignant nor benign.
    """
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError("the table has no rows")
    if not {row[DIAGNOSIS] for row in rows} <= {POSITIVE, "benign"}:
        raise ValueError("a diagnosis is neither malignant nor benign")
    raw = np.array([[float(row[name]) for name in SCALES] for row in rows])
    centres, spreads = np.array(list(SCALES.values())).T
    return Table((raw - centres) / spreads, np.array([float(row[DIAGNOSIS] == POSITIVE) for row in rows]))


def split(table: Table) -> tuple[Table, Table]:
    """Return the rows for training and those held out: one of every five, by their place."""
    held = np.arange(len(table.labels)) % EVERY == EVERY - 1
    return Table(table.features[~held], table.labels[~held]), Table(table.features[held], table.labels[held])


def train(model: Model, table: Table, epochs: int, rate: float) -> Model:
    """Return the model after `epochs` steps of gradient descent over the whole table."""
    weights, bias = model.weights, model.bias
    for _ in range(epochs):
        errors = _probabilities(Model(weights, bias), table) - table.labels
        weights = weights - rate * (table.features.T @ errors / len(errors) + PENALTY * weights)
        bias = bias - rate * errors.mean()
    return Model(weights, bias)


def loss(model: Model, table: Table) -> float:
    """Return the mean cross-entropy, without the penalty."""
    inside = np.clip(_probabilities(model, table), 1e-12, 1 - 1e-12)
    return float(-np.mean(table.labels * np.log(inside) + (1 - table.labels) * np.log(1 - inside)))


def accuracy(model: Model, table: Table) -> float:
    """Return the share of rows with the right diagnosis."""
    return float(np.mean((_probabilities(model, table) >= 0.5) == (table.labels == 1)))


def _probabilities(model: Model, table: Table) -> Floats:
    # tanh instead of exp: it does not overflow for records far from the boundary.
    return 0.5 * (1 + np.tanh(0.5 * (table.features @ model.weights + model.bias)))
