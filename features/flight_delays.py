"""What the model of late arrivals sees of a scheduled flight; every function is pure.

Minutes are minutes; rates are shares of flights that arrived more than 15 minutes late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Numbers: TypeAlias = npt.NDArray[np.float64]

CATEGORIES = ("carrier", "origin")

# Lag rates by name: the key they are counted over, and their windows in days.
LAGS: dict[str, tuple[list[str], tuple[int, ...]]] = {
    "carrier": (["carrier"], (7, 28)),
    "origin": (["origin"], (7, 28)),
    "dest": (["dest"], (1, 7, 28)),
    "carrier_origin": (["carrier", "origin"], (7, 28)),
    "route": (["origin", "dest"], (28,)),
    "carrier_dest": (["carrier", "dest"], (28,)),
}
LAG_NAMES = [f"{name}_late_{days}d" for name, (_, windows) in LAGS.items() for days in windows]

FEATURES: dict[str, str] = {
    **dict.fromkeys(CATEGORIES, "category"),
    "dep_min": "float",
    "arr_min": "float",
    "block_min": "float",
    "distance": "float",
    "slack_min": "float",
    "weekday": "float",
    "hour_departures": "float?",
    "origin_departures": "float?",
    "dest_arrivals": "float?",
    "plane_age": "float?",
    "plane_seats": "float?",
    "late_1d": "float?",
    "late_7d": "float?",
    "cancelled_1d": "float?",
    **dict.fromkeys(LAG_NAMES, "float"),
    "flight_late_28d": "float",
    "flight_delay_28d": "float",
    "flight_slack_28d": "float?",
    "wind_dir": "float?",
    "wind_speed": "float?",
    "visibility": "float?",
    "precipitation": "float?",
    "pressure": "float?",
    "humidity": "float?",
    "gust_24h": "float?",
    "precipitation_24h": "float?",
    "visibility_24h": "float?",
    "pressure_change_12h": "float?",
}

RISING = {"late_1d", "late_7d", "cancelled_1d", *LAG_NAMES, "flight_late_28d", "flight_delay_28d"}
"""Features that may only raise the probability: 16 weeks of days are too few to learn more from."""

CRUISE_MILES_PER_MINUTE = 7.5
MAX_WIND_MPH = 100.0
UNKNOWN = -10_000.0  # below every value of a feature: to a tree it is as good as missing
FLIGHTS_TO_TRUST_A_LAG = 50
FLIGHTS_TO_TRUST_ONE_FLIGHT = 10

RULE_RATES = {range(0, 8): 0.14, range(8, 13): 0.20, range(13, 17): 0.27, range(17, 24): 0.32}
"""Late share by scheduled hour of departure, January to April 2013."""


def make_features(rows: pd.DataFrame, history: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The columns of FEATURES, one row per row of `rows`, same index and order.

    `rows` holds the extract's columns. `history` holds each history query's frame, indexed by its key; one
    without rows gives NaN, or 0 where a feature is a difference from the overall rate.
    """
    keys = rows[["carrier", "flight", "origin", "dest"]].assign(hour=rows["sched_dep_time"] // 100)
    total = history["network"].sum()
    overall = {days: _ratio(total[f"late_{days}d"], total[f"flights_{days}d"]) for days in (1, 7, 28)}
    schedule = _schedule(rows)
    columns = {
        **schedule,
        **_traffic(keys, history["departures"], history["arrivals"]),
        **_plane(rows, history["planes"]),
        "late_1d": np.full(len(rows), overall[1]),
        "late_7d": np.full(len(rows), overall[7]),
        "cancelled_1d": np.full(len(rows), _ratio(total["cancelled_1d"], total["known_1d"])),
        **_lags(keys, history["network"], overall),
        **_flight(keys, history["flights"], schedule["block_min"].to_numpy(), overall[28]),
        **_weather(keys, history["weather_now"], history["weather_24h"]),
    }
    return pd.DataFrame(columns, index=rows.index, columns=list(FEATURES))


def _schedule(rows: pd.DataFrame) -> dict[str, pd.Series]:
    block = (rows["sched_arr_at"] - rows["sched_dep_at"]).dt.total_seconds() / 60
    return {
        **{name: rows[name] for name in CATEGORIES},
        "dep_min": _minute_of_day(rows["sched_dep_time"]),
        "arr_min": _minute_of_day(rows["sched_arr_time"]),
        "block_min": block,
        "distance": rows["distance"],
        "slack_min": block - rows["distance"] / CRUISE_MILES_PER_MINUTE,
        "weekday": rows["day"].dt.day_of_week.astype("float64"),
    }


def _minute_of_day(clock: pd.Series) -> pd.Series:
    return (clock // 100 * 60 + clock % 100).astype("float64")


def _traffic(keys: pd.DataFrame, departures: pd.DataFrame, arrivals: pd.DataFrame) -> dict[str, Numbers]:
    by_origin = departures.groupby(level="origin").sum()
    return {
        "hour_departures": _found(departures, keys[["origin", "hour"]])["flights"],
        "origin_departures": _found(by_origin, keys[["origin"]])["flights"],
        "dest_arrivals": _found(arrivals, keys[["dest"]])["flights"],
    }


def _plane(rows: pd.DataFrame, planes: pd.DataFrame) -> dict[str, Numbers]:
    # A missing tail number foretells a cancellation: it must look like any tail that we do not know.
    found = _found(planes, rows[["tailnum"]])
    return {
        "plane_age": rows["day"].dt.year.to_numpy("float64") - found["year"],
        "plane_seats": found["seats"],
    }


def _lags(keys: pd.DataFrame, network: pd.DataFrame, overall: Mapping[int, float]) -> dict[str, Numbers]:
    columns: dict[str, Numbers] = {}
    for name, (key, windows) in LAGS.items():
        counts = network.groupby(level=key).sum()
        excess = {
            f"{name}_late_{days}d": _excess(
                counts[f"late_{days}d"], counts[f"flights_{days}d"], overall[days], FLIGHTS_TO_TRUST_A_LAG
            )
            for days in windows
        }
        found = _found(pd.DataFrame(excess, index=counts.index), keys[key])
        columns |= {column: np.nan_to_num(values) for column, values in found.items()}
    return columns


def _flight(keys: pd.DataFrame, flights: pd.DataFrame, block: Numbers, overall: float) -> dict[str, Numbers]:
    found = _found(flights, keys[["carrier", "flight", "origin"]])
    count = np.nan_to_num(found["flights_28d"])
    late = np.nan_to_num(found["late_28d"])
    return {
        "flight_late_28d": _excess(late, count, overall, FLIGHTS_TO_TRUST_ONE_FLIGHT),
        "flight_delay_28d": np.nan_to_num(found["delay_28d"]) / (count + FLIGHTS_TO_TRUST_ONE_FLIGHT),
        "flight_slack_28d": block - _ratio(found["air_28d"], count),
    }


def _weather(keys: pd.DataFrame, now: pd.DataFrame, day: pd.DataFrame) -> dict[str, Numbers]:
    last, past = _found(now, keys[["origin"]]), _found(day, keys[["origin"]])
    return {
        "wind_dir": last["wind_dir"],
        "wind_speed": np.minimum(last["wind_speed"], MAX_WIND_MPH),
        "visibility": last["visib"],
        "precipitation": last["precip"],
        "pressure": last["pressure"],
        "humidity": last["humid"],
        "gust_24h": past["gust_max"],
        "precipitation_24h": past["precip_sum"],
        "visibility_24h": past["visib_min"],
        "pressure_change_12h": past["pressure_recent"] - past["pressure_before"],
    }


def _found(frame: pd.DataFrame, keys: pd.DataFrame) -> dict[str, Numbers]:
    """The columns of `frame` as float64, one value per row of `keys`; NaN: unknown key, null or infinite."""
    wanted = pd.MultiIndex.from_frame(keys) if keys.shape[1] > 1 else pd.Index(keys.iloc[:, 0])
    values = frame.reindex(wanted).to_numpy("float64", na_value=np.nan)
    return dict(zip(frame.columns, np.where(np.isfinite(values), values, np.nan).T, strict=True))


def _ratio(part: Any, whole: Any) -> Any:
    """Part / whole, of numbers or arrays; NaN where whole is 0."""
    return part / np.where(whole > 0, whole, np.nan)


def _excess(late: Any, flights: Any, overall: float, trust: int) -> Any:
    """The late rate minus the overall one, shrunken to 0 as if `trust` average flights were added."""
    return (late - flights * np.nan_to_num(overall)) / (flights + trust)


def make_model() -> Pipeline:
    """Gradient boosting over all of FEATURES; an unseen category counts as missing."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    numbers = [name for name in FEATURES if name not in CATEGORIES]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    # Gradient boosting takes single missing values, but fails on a column in which no value is known.
    imputer = SimpleImputer(strategy="constant", fill_value=UNKNOWN, keep_empty_features=True)
    boosting = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=600,
        l2_regularization=20,
        max_features=0.4,
        monotonic_cst=[0] * len(CATEGORIES) + [int(name in RISING) for name in numbers],
        early_stopping=False,
        random_state=0,
    )
    columns = [("categories", encoder, list(CATEGORIES)), ("numbers", imputer, numbers)]
    return Pipeline([("encode", ColumnTransformer(columns)), ("classify", boosting)])


def make_baseline() -> Pipeline:
    """Carrier x hour of departure, shrunken to their sum by the penalty; needs no history."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PolynomialFeatures

    hours = KBinsDiscretizer(n_bins=18, encode="onehot", strategy="uniform")
    carriers = OneHotEncoder(handle_unknown="ignore")
    columns = [("carrier", carriers, ["carrier"]), ("hour", hours, ["dep_min"])]
    pairs = PolynomialFeatures(degree=2, interaction_only=True, include_bias=False)
    return Pipeline(
        [
            ("encode", ColumnTransformer(columns)),
            ("cross", pairs),
            ("classify", LogisticRegression(C=0.03, max_iter=200)),
        ]
    )


def rule_scores(rows: pd.DataFrame) -> pd.Series:
    """A probability by scheduled hour for rows that failed validation; NaN where that is no clock time."""
    clock = pd.to_numeric(rows["sched_dep_time"], errors="coerce").astype("float64")
    is_clock = clock.between(0, 2359) & (clock % 100 < 60) & (clock % 1 == 0)
    rates = {hour: rate for hours, rate in RULE_RATES.items() for hour in hours}
    return (clock.where(is_clock) // 100).map(rates).astype("float64")
