from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from pipeline.adapters.models import load, save, sklearn_version
from pipeline.errors import ModelError

N = 60
FRAME = pd.DataFrame({"shop": pd.Series(list("abc") * (N // 3), dtype="str"), "size": np.arange(N) % 7.0})
LABEL = (np.arange(N) % 2).astype(bool)

_ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
_ONE_HOT = OneHotEncoder(handle_unknown="ignore", sparse_output=False)


def pipe(encoder: Any, model: Any) -> Pipeline:
    scaled = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    return make_pipeline(make_column_transformer((encoder, ["shop"]), (scaled, ["size"])), model)


def calibrated(model: Any, method: str) -> CalibratedClassifierCV:
    return CalibratedClassifierCV(pipe(_ONE_HOT, model), cv=2, method=method)


def boosted_by_name() -> Pipeline:
    named = make_column_transformer(
        (_ORDINAL, ["shop"]), remainder="passthrough", verbose_feature_names_out=False
    )
    boost = HistGradientBoostingClassifier(
        max_iter=3, categorical_features=["shop"], monotonic_cst={"size": 1}
    )
    return make_pipeline(named.set_output(transform="pandas"), boost)


MODELS: dict[str, Callable[[], Any]] = {
    "boosting": lambda: pipe(_ORDINAL, HistGradientBoostingClassifier(max_iter=3)),
    "boosting by name": boosted_by_name,
    "boosted values": lambda: pipe(_ORDINAL, HistGradientBoostingRegressor(max_iter=3)),
    "forest": lambda: pipe(_ONE_HOT, RandomForestClassifier(3)),
    "forest of values": lambda: pipe(_ONE_HOT, RandomForestRegressor(3)),
    "logistic": lambda: pipe(_ONE_HOT, LogisticRegression()),
    "target encoder": lambda: pipe(TargetEncoder(cv=2), LogisticRegression()),
    "bins": lambda: make_pipeline(
        make_column_transformer((KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), ["size"])),
        LogisticRegression(),
    ),
    "sigmoid": lambda: calibrated(LogisticRegression(), "sigmoid"),
    "isotonic": lambda: calibrated(RandomForestClassifier(3), "isotonic"),
    "temperature": lambda: calibrated(LogisticRegression(), "temperature"),
}


class Foreign(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that is not scikit-learn's own."""


@pytest.mark.parametrize("name", MODELS)
def test_the_usual_models_come_back_with_equal_predictions(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().fit(FRAME, LABEL)
    path, sha256 = save(model, tmp_path, "model")
    loaded = load(path, sha256, sklearn_version())
    np.testing.assert_array_equal(loaded.predict(FRAME), model.predict(FRAME))


def saved(folder: Path) -> tuple[Path, str]:
    return save(LogisticRegression().fit(FRAME[["size"]], LABEL), folder, "model")


def as_file(folder: Path, data: bytes) -> tuple[Path, str]:
    path = folder / "model.skops"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def test_the_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    path, sha256 = saved(tmp_path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_tampered_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    _, sha256 = saved(tmp_path)
    path, _ = as_file(tmp_path, b"no model at all")
    with pytest.raises(ModelError, match="must be the approved file"):
        load(path, sha256, sklearn_version())


def test_an_approved_file_is_parsed_once_and_its_bytes_are_compared_every_time(tmp_path: Path) -> None:
    path, sha256 = save(LogisticRegression().fit(FRAME[["size"]], LABEL), tmp_path, "model")
    loaded = load(path, sha256, sklearn_version())
    assert load(path, sha256, sklearn_version()) is loaded
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match="approved"):
        load(path, sha256, sklearn_version())


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must be readable; got FileNotFoundError"):
        load(tmp_path / "gone.skops", "0", sklearn_version())


def test_another_scikit_learn_is_refused(tmp_path: Path) -> None:
    path, sha256 = saved(tmp_path)
    with pytest.raises(ModelError, match=r"saved by scikit-learn 0\.1 .* Install scikit-learn==0\.1"):
        load(path, sha256, "0.1")


def test_a_foreign_type_is_refused_by_name_when_saving(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"known types only; got .*Foreign"):
        save(Foreign(), tmp_path, "model")
    assert not list(tmp_path.iterdir())


def forged(folder: Path, change: Callable[[str, bytes], bytes]) -> tuple[Path, str]:
    """A model file with changed entries, under its own, right sha256."""
    path, _ = saved(folder)
    forgery = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(forgery, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, change(entry, old.read(entry)))
    return as_file(folder, forgery.getvalue())


def test_a_foreign_type_is_refused_by_name_when_loading(tmp_path: Path) -> None:
    def renamed(_: str, data: bytes) -> bytes:
        data = data.replace(b'"LogisticRegression"', b'"system"')
        return data.replace(b"sklearn.linear_model._logistic", b"os")

    path, sha256 = forged(tmp_path, renamed)
    with pytest.raises(ModelError, match=r"known types only; got os\.system"):
        load(path, sha256, sklearn_version())


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


def test_a_pickle_in_disguise_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    path, sha256 = as_file(tmp_path, pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(ModelError, match="must be a skops file"):
        load(path, sha256, sklearn_version())
    assert not (tmp_path / "mark").exists()


def test_a_pickle_inside_the_archive_is_never_unpickled(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "mark"))
    path, sha256 = forged(tmp_path, lambda entry, data: bomb if entry.endswith(".npy") else data)
    with pytest.raises(ModelError, match="must be a whole model file"):
        load(path, sha256, sklearn_version())
    assert not (tmp_path / "mark").exists()
