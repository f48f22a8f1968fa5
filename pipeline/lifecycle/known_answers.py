"""What a version answered to a few made-up rows when it was trained: the same file must answer the same.

A night's scores move with its data, by half in log-odds from one night to the next on the flights, so that
nobody can tell from them alone that all of them moved. These rows never change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ModelError
from pipeline.scoring.feature_code import FeatureType
from pipeline.scoring.score import Output, predict

ROWS = 16
TOLERANCE = 1e-6
"""Of the scores' size: other processors and libraries round otherwise, by much less."""


@dataclass(frozen=True)
class KnownAnswers:
    """Made-up feature rows by column, (ROWS, n_features), and the model's scores of them, (ROWS,)."""

    rows: Mapping[str, list[Any]]
    scores: tuple[float, ...]

    @classmethod
    def of(cls, model: Any, rows: pd.DataFrame, output: Output) -> Self:
        """Ask a model that has just been fitted."""
        scores = predict(model, rows, output)
        return cls({str(name): rows[name].tolist() for name in rows}, tuple(scores.tolist()))

    @classmethod
    def read(cls, held: Mapping[str, Any]) -> Self:
        """From the JSON of `written`."""
        return cls(held["rows"], tuple(held["scores"]))

    def written(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"rows": dict(self.rows), "scores": list(self.scores)}

    def check(self, model: Any, schema: Mapping[str, FeatureType], output: Output) -> None:
        """Raise ModelError where the model answers otherwise than it did."""
        columns = {
            name: pd.Series(self.rows[name], dtype="str" if kind.startswith("category") else "float64")
            for name, kind in schema.items()
        }
        moved = difference(predict(model, pd.DataFrame(columns), output), np.array(self.scores))
        if moved > TOLERANCE:
            raise ModelError(
                f"the model must answer {len(self.scores)} known rows as when it was trained; got scores "
                f"that differ by up to {moved:.2g} of their size"
            )


def difference(scores: npt.NDArray[np.float64], known: npt.NDArray[np.float64]) -> float:
    """The largest difference, by the size of the largest known score."""
    return float(np.abs(scores - known).max() / max(np.abs(known).max(), np.finfo(np.float64).tiny))


def made_up(
    features: pd.DataFrame, schema: Mapping[str, FeatureType], unread: Collection[str]
) -> pd.DataFrame | None:
    """Rows whose every column takes ROWS of its own quantiles, in an order of its own (McKay et al., 1979).

    So they cover what the model has learned from, and no row is one that was there. None where a feature may
    not be kept, as personal data, or has no value at all.
    """
    if any(name in unread or features[name].isna().all() for name in schema):
        return None
    draw = np.random.default_rng(0)
    rows = {}
    for name, kind in schema.items():
        values = np.sort(features[name].dropna().to_numpy(dtype=object if kind[0] == "c" else np.float64))
        places = ((draw.permutation(ROWS) + 0.5) / ROWS * len(values)).astype(np.int64)
        rows[name] = values[places]
    return pd.DataFrame(rows).astype(
        {name: "str" if kind.startswith("category") else "float64" for name, kind in schema.items()}
    )
