"""What the toy model sees of a toy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FEATURES: dict[str, str] = {"kind": "category", "amount": "float", "sold_share_7d": "float"}

RULE_SCORE = 0.75


def make_features(rows: pd.DataFrame, history: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The columns of FEATURES, one row per row of `rows`, same index and order."""
    kinds = history["kinds"]
    share = (kinds["sold"] / kinds["toys"]).astype("float64")
    made = {
        "kind": rows["kind"],
        "amount": rows["amount"],
        "sold_share_7d": rows["kind"].map(share).astype("float64").fillna(0.5),
    }
    return pd.DataFrame(made, index=rows.index)


def make_model() -> Pipeline:
    """Logistic regression on all features; an unseen kind counts as no kind."""
    return _logistic(["kind"], ["amount", "sold_share_7d"])


def make_baseline() -> Pipeline:
    """The rate of each kind."""
    return _logistic(["kind"], [])


def _logistic(categories: list[str], numbers: list[str]) -> Pipeline:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = [
        ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ("numbers", StandardScaler(), numbers),
    ]
    return Pipeline([("encode", ColumnTransformer(columns)), ("classify", LogisticRegression(C=1.0))])


def rule_scores(rows: pd.DataFrame) -> pd.Series:
    """Toys of kind `ball` sell, whatever else is wrong with the row; of others nothing is known."""
    return (rows["kind"] == "ball").map({True: RULE_SCORE, False: float("nan")}).astype("float64")
