from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from features import flight_delays
from features.flight_delays import FEATURES, RISING, make_baseline, make_features, make_model, rule_scores
from pipeline.adapters.models import load, save, sklearn_version
from pipeline.declaration import load_job
from pipeline.scoring.feature_code import FeatureType
from pipeline.scoring.featurize import contract_faults

SCHEMA = cast("dict[str, FeatureType]", FEATURES)
HISTORY_COLUMNS = {
    "departures": (["origin", "hour"], ["flights"]),
    "arrivals": (["dest"], ["flights"]),
    "planes": (["tailnum"], ["year", "seats"]),
    "network": (
        ["carrier", "origin", "dest"],
        [
            "known_1d", "cancelled_1d", "flights_1d", "late_1d", "flights_7d", "late_7d", "flights_28d",
            "late_28d",
        ],
    ),
    "flights": (["carrier", "flight", "origin"], ["flights_28d", "late_28d", "delay_28d", "air_28d"]),
    "weather_now": (["origin"], ["wind_dir", "wind_speed", "visib", "precip", "pressure", "humid"]),
    "weather_24h": (
        ["origin"], ["gust_max", "visib_min", "precip_sum", "pressure_recent", "pressure_before"],
    ),
}  # fmt: skip


def scheduled(**columns: Any) -> pd.DataFrame:
    """One flight per value of the longest column; the rest is an ordinary flight."""
    flight = {
        "day": pd.Timestamp("2013-05-01"), "carrier": "UA", "flight": 1, "origin": "EWR", "dest": "LAX",
        "tailnum": "N14228", "sched_dep_time": 905, "sched_arr_time": 1215, "distance": 2454.0,
        "sched_dep_at": pd.Timestamp("2013-05-01 13:05", tz="UTC"),
        "sched_arr_at": pd.Timestamp("2013-05-01 19:15", tz="UTC"),
        "published_at": pd.Timestamp("2013-04-24 04:00", tz="UTC"),
    }  # fmt: skip
    length = max([len(values) for values in columns.values()], default=1)
    frame = pd.DataFrame({name: [value] * length for name, value in flight.items()} | columns)
    return frame.astype({"carrier": "str", "origin": "str", "dest": "str", "tailnum": "str"})


def past(**frames: dict[tuple[Any, ...], dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """History by query, as {key: {column: value}}; what is not given is 0, and has no rows without a key."""
    return {name: _past(name, frames.get(name, {})) for name in HISTORY_COLUMNS}


def _past(name: str, values: dict[tuple[Any, ...], dict[str, Any]]) -> pd.DataFrame:
    key, columns = HISTORY_COLUMNS[name]
    rows = [dict(zip(key, k, strict=True)) | dict.fromkeys(columns, 0) | v for k, v in values.items()]
    return pd.DataFrame(rows, columns=[*key, *columns]).set_index(key if len(key) > 1 else key[0])


def many(n: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return scheduled(
        carrier=random.choice(["UA", "DL", "B6"], n),
        flight=random.integers(1, 50, n),
        origin=random.choice(["EWR", "JFK"], n),
        dest=random.choice(["LAX", "BOS", "SJU"], n),
        tailnum=random.choice(np.array(["N1", "N2", None]), n),
        sched_dep_time=random.integers(5, 24, n) * 100 + 15,
        distance=random.uniform(100, 3000, n),
    )


def busy() -> dict[str, pd.DataFrame]:
    counts = {"flights_7d": 30, "late_7d": 7, "flights_28d": 110, "late_28d": 31}
    return past(
        departures={("EWR", 9): {"flights": 4}, ("EWR", 17): {"flights": 3}, ("JFK", 9): {"flights": 2}},
        arrivals={("LAX",): {"flights": 11}},
        planes={("N1",): {"year": 1999, "seats": 150}},
        network={("UA", "EWR", "LAX"): counts, ("DL", "JFK", "BOS"): counts | {"late_28d": 13}},
        flights={("UA", 1, "EWR"): {"flights_28d": 3, "delay_28d": 50, "air_28d": 900}},
        weather_now={("EWR",): {"wind_speed": 11.5, "pressure": 1012.3}},
        weather_24h={("JFK",): {"gust_max": np.nan, "pressure_recent": 1010.1, "pressure_before": 1012.4}},
    )


def feature(name: str, rows: pd.DataFrame, history: dict[str, pd.DataFrame]) -> float:
    return float(make_features(rows, history)[name].iloc[0])


@pytest.mark.parametrize("history", [past(), busy()], ids=["no history", "history"])
def test_features_keep_their_contract(history: dict[str, pd.DataFrame]) -> None:
    rows = many(40).set_axis(np.repeat([7, 3, 9, 3], 10))

    assert list(contract_faults(SCHEMA, rows.index, make_features(rows, history))) == []


def test_features_of_two_chunks_are_bit_for_bit_those_of_the_whole() -> None:
    rows, history = many(50), busy()

    chunks = [make_features(chunk, history) for chunk in (rows[:1], rows[1:37], rows[37:])]

    pd.testing.assert_frame_equal(pd.concat(chunks), make_features(rows, history), check_exact=True)


def test_inputs_stay_untouched() -> None:
    rows, history = many(20), busy()

    make_features(rows, history)

    pd.testing.assert_frame_equal(rows, many(20))
    for name, frame in busy().items():
        pd.testing.assert_frame_equal(history[name], frame)


def test_the_history_that_features_read_is_the_one_that_is_declared(project: Path) -> None:
    declared = load_job(project, "flight_delays").declaration.history

    assert {name: list(query.key) for name, query in declared.items()} == {
        name: key for name, (key, _) in HISTORY_COLUMNS.items()
    }


def test_a_missing_tail_equals_an_unknown_one() -> None:
    history = past(planes={("N14228",): {"year": 1999, "seats": 150}})

    missing, unknown = make_features(scheduled(tailnum=[None, "N999"]), history).to_dict("records")

    assert repr(missing) == repr(unknown)


def test_a_plane_has_its_age_and_its_seats() -> None:
    history = past(planes={("N14228",): {"year": 1999, "seats": 150}})

    assert feature("plane_age", scheduled(), history) == 14
    assert feature("plane_seats", scheduled(), history) == 150


def test_the_schedule_gives_minutes_whatever_the_clocks_say() -> None:
    made = make_features(scheduled(sched_dep_time=[2359], sched_arr_time=[5]), past()).iloc[0]

    assert (made["dep_min"], made["arr_min"], made["block_min"], made["weekday"]) == (1439, 5, 370, 2)
    assert made["slack_min"] == pytest.approx(370 - 2454 / 7.5)


def test_traffic_is_counted_by_hour_and_origin() -> None:
    made = make_features(scheduled(origin=["EWR", "JFK", "LGA"]), busy())

    assert made["hour_departures"].tolist()[:2] == [4, 2]
    assert made["origin_departures"].tolist()[:2] == [7, 2]
    assert made[["hour_departures", "origin_departures"]].iloc[2].isna().all()


def test_a_lag_is_the_shrunken_difference_from_the_overall_rate() -> None:
    quiet = {"flights_28d": 100, "late_28d": 10}
    history = past(
        network={
            ("UA", "EWR", "LAX"): {"flights_28d": 60, "late_28d": 30},
            ("UA", "JFK", "BOS"): {"flights_28d": 40, "late_28d": 10},
            ("DL", "EWR", "BOS"): quiet,
        }
    )

    assert feature("carrier_late_28d", scheduled(), history) == pytest.approx((40 - 100 * 0.25) / 150)
    assert feature("route_late_28d", scheduled(), history) == pytest.approx((30 - 60 * 0.25) / 110)


def test_yesterday_is_told_by_those_that_were_known() -> None:
    last_night = {"known_1d": 10, "cancelled_1d": 4, "flights_1d": 5, "late_1d": 1}
    history = past(network={("UA", "EWR", "LAX"): last_night, ("DL", "JFK", "BOS"): last_night})

    assert feature("late_1d", scheduled(), history) == 0.2
    assert feature("cancelled_1d", scheduled(), history) == 0.4


def test_before_the_first_outcome_the_overall_rates_are_unknown() -> None:
    made = make_features(scheduled(), past())

    assert made[["late_1d", "late_7d", "cancelled_1d"]].isna().all(axis=None)


def test_a_carrier_never_seen_before_differs_from_no_rate() -> None:
    made = make_features(scheduled(carrier=["ZZ"], dest=["XXX"], flight=[9999]), busy()).iloc[0]

    assert made["carrier"] == "ZZ"
    assert not made[["carrier_late_28d", "dest_late_28d", "flight_late_28d", "flight_delay_28d"]].any()


def test_a_flight_that_used_to_need_its_whole_block_has_no_slack() -> None:
    history = past(flights={("UA", 1, "EWR"): {"flights_28d": 10, "delay_28d": 120, "air_28d": 3650}})

    assert feature("flight_slack_28d", scheduled(), history) == 370 - 365
    assert feature("flight_delay_28d", scheduled(), history) == 120 / 20


def test_a_flight_without_known_arrivals_has_unknown_slack() -> None:
    history = past(flights={("UA", 1, "EWR"): {"delay_28d": np.nan, "air_28d": np.nan}})

    assert np.isnan(feature("flight_slack_28d", scheduled(), history))
    assert feature("flight_delay_28d", scheduled(), history) == 0


@pytest.mark.parametrize(("measured", "seen"), [(11.5, 11.5), (1048.36, 100), (np.inf, np.nan)])
def test_an_impossible_wind_is_bounded(measured: float, seen: float) -> None:
    history = past(weather_now={("EWR",): {"wind_speed": measured}})

    assert feature("wind_speed", scheduled(), history) == pytest.approx(seen, nan_ok=True)


@pytest.mark.parametrize(
    ("clock", "score"),
    [(905, 0.20), (2359, 0.32), (0, 0.14), (2400, np.nan), (-5, np.nan), (1075, np.nan), (905.5, np.nan),
     (np.inf, np.nan), (-np.inf, np.nan), (np.nan, np.nan), (1e300, np.nan)],
)  # fmt: skip
def test_the_rule_answers_only_for_clock_times(clock: float, score: float) -> None:
    rows = scheduled(sched_dep_time=[clock], distance=[-np.inf], carrier=[None]).set_axis([42])

    answers = rule_scores(rows)

    assert answers.dtype == np.float64
    assert answers.to_dict() == pytest.approx({42: score}, nan_ok=True)


def test_the_rule_has_one_answer_for_every_hour() -> None:
    hours = [hour for hours in flight_delays.RULE_RATES for hour in hours]

    assert hours == list(range(24))


MAKERS = [make_model, make_baseline]


def fitted(make: Any, rows: pd.DataFrame) -> Pipeline:
    late = np.arange(len(rows)) % 4 == 0
    return cast("Pipeline", clone(make()).fit(make_features(rows, busy()), late))


@pytest.mark.parametrize("make", MAKERS)
def test_a_model_answers_for_categories_it_never_saw(make: Any) -> None:
    strange = make_features(scheduled(carrier=["ZZ"], origin=["XXX"], sched_dep_time=[106]), past())

    answers = fitted(make, many(200)).predict_proba(strange)

    assert np.isfinite(answers).all()
    assert answers.sum() == pytest.approx(1)


@pytest.mark.parametrize("make", MAKERS)
def test_a_model_file_gives_the_same_answers(make: Any, tmp_path: Path) -> None:
    rows = many(200)
    model = fitted(make, rows)

    path, sha256 = save(model, tmp_path, "model")
    loaded = load(path, sha256, sklearn_version())

    made = make_features(rows, busy())
    np.testing.assert_array_equal(cast("Pipeline", loaded).predict_proba(made), model.predict_proba(made))


def test_the_baseline_needs_no_history() -> None:
    rows = many(200)
    model = fitted(make_baseline, rows)

    np.testing.assert_array_equal(
        model.predict_proba(make_features(rows, past())), model.predict_proba(make_features(rows, busy()))
    )


def test_only_rates_of_the_past_are_held_to_raise_the_probability() -> None:
    model = fitted(make_model, many(200))

    columns = [name.partition("__")[2] for name in model["encode"].get_feature_names_out()]
    rising = [name for name, sign in zip(columns, model["classify"].monotonic_cst, strict=True) if sign == 1]
    assert columns == list(FEATURES)
    assert set(rising) == RISING
