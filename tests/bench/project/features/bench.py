"""What the benchmark's model sees: 17 columns of a parcel, three of them categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

CATEGORIES = ["carrier", "region", "product"]
NUMBERS = [
    "price",
    "weight",
    "discount",
    "distance",
    "basket",
    "humidity",
    "items",
    "visits",
    "age_days",
    "hour",
]
GAPPY = ["width", "height", "rating", "delay"]

FEATURES: dict[str, str] = (
    dict.fromkeys(CATEGORIES, "category") | dict.fromkeys(NUMBERS, "float") | dict.fromkeys(GAPPY, "float?")
)


def make_features(rows: pd.DataFrame, history: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frame of shape (n, 17), one row per parcel, in the source's units."""
    return rows[list(FEATURES)].astype(dict.fromkeys([*NUMBERS, *GAPPY], "float64"))


def make_model() -> Pipeline:
    """Histogram boosting, 100 trees."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(
        make_column_transformer((codes, CATEGORIES), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=100, early_stopping=False),
    )


def make_baseline() -> Pipeline:
    """The carrier's own rate."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    return make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["carrier"])), LogisticRegression()
    )
