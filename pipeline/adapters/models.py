"""Model files: written and read with skops, never unpickled; the only module that imports skops."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

SUFFIX = ".skops"

ALLOWED_TYPES = frozenset({
    "functools.partial",  # categorical_features of histogram boosting binds check_array below
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
})  # fmt: skip
"""What a model file may hold beyond what skops itself trusts: read, and found to do nothing on loading."""


def warm_up() -> None:
    """Import what loading needs, seconds of work that may overlap the stages before it in a thread."""
    import skops.io  # noqa: F401


def sklearn_version() -> str:
    """The running scikit-learn's version: what is saved now can be loaded only by the same."""
    import sklearn

    return str(sklearn.__version__)


def save(estimator: BaseEstimator, folder: Path, name: str) -> tuple[Path, str]:
    """Write `<folder>/<name>.skops`; gives its path and sha256.

    skops does not write the same bytes twice, so the sha256 is of this file. Raises ModelError when the
    estimator holds a type that `load` would refuse.
    """
    import skops.io

    path = folder / f"{name}{SUFFIX}"
    data = skops.io.dumps(estimator)
    _refuse_foreign_types(data, name)
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def load(path: Path, sha256: str, sklearn_version: str, *, anew: bool = False) -> BaseEstimator:
    """The estimator of a model file; nothing of it is parsed before its sha256 is the approved one.

    With `anew` it shares nothing with what this process has loaded of the same file before. Raises
    ModelError: no such file, other bytes, saved by another scikit-learn, a type not on the list.
    """
    data = _approved_bytes(path, sha256)
    _refuse_other_sklearn(path.name, sklearn_version)
    return _parsed(data, path.name) if anew else _parsed_once(data, path.name)


@lru_cache(maxsize=2)
def _parsed_once(data: bytes, name: str) -> BaseEstimator:
    """The same estimator as long as the approved bytes are the same: a backfill asks for it every night."""
    return _parsed(data, name)


def _parsed(data: bytes, name: str) -> BaseEstimator:
    _refuse_foreign_types(data, name)
    import skops.io

    try:
        return skops.io.loads(data, trusted=sorted(ALLOWED_TYPES))
    except Exception as error:
        raise ModelError(f"{name} must be a whole model file; got {_shown(error)}") from error


def _approved_bytes(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model file {path} must be readable; got {_shown(error)}") from error
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise ModelError(
            f"{path.name} must be the approved file, sha256 {sha256[:12]}…; got {got[:12]}…. "
            "Restore that file, or train and promote a new version"
        )
    return data


def _refuse_other_sklearn(name: str, saved_by: str) -> None:
    running = sklearn_version()
    if saved_by != running:
        raise ModelError(
            f"{name} was saved by scikit-learn {saved_by} and must be loaded by the same; got {running}. "
            f"Install scikit-learn=={saved_by}, or train and promote a new version"
        )


def _refuse_foreign_types(data: bytes, name: str) -> None:
    import skops.io

    try:
        foreign = set(skops.io.get_untrusted_types(data=data)) - ALLOWED_TYPES
    except Exception as error:
        raise ModelError(f"{name} must be a skops file; got {_shown(error)}") from error
    if foreign:
        raise ModelError(
            f"{name} must hold known types only; got {', '.join(sorted(foreign))}. Use scikit-learn's own, "
            "or read their code and add them to ALLOWED_TYPES in pipeline/adapters/models.py"
        )


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
