"""Rows become features: the job's code is called, and what it gives is held to its contract."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_object_dtype

from pipeline.errors import FeatureError
from pipeline.frames import rows_frame
from pipeline.job import ColumnType
from pipeline.scoring.feature_code import FeatureCode, FeatureType

Rows: TypeAlias = pa.RecordBatch | pa.Table


def features(
    code: FeatureCode,
    rows: Rows,
    columns: Mapping[str, ColumnType],
    history: Mapping[str, pd.DataFrame],
    index_start: int = 0,
) -> pd.DataFrame:
    """Frame of shape (n, n_features), one row per row of `rows` and in their order, index from `index_start`.

    Columns are exactly those of `code.schema`: category as str, float as float64. `columns` are the declared
    types of `rows`. Raises FeatureError naming every broken column with counts, never with values.
    """
    _refuse_nulls(code, rows, columns)
    frame = rows_frame(rows, columns, index_start)
    made: pd.DataFrame = _called(code, "make_features", frame, history)
    if faults := list(contract_faults(code.schema, frame.index, made)):
        raise FeatureError(f"make_features of {code.job} must keep its contract; got " + "; ".join(faults))
    objects = [name for name in made.columns if is_object_dtype(made[name])]
    return made.astype(dict.fromkeys(objects, "str")) if objects else made


def rule_scores(
    code: FeatureCode,
    rows: Rows,
    columns: Mapping[str, ColumnType],
    output: Literal["probability", "value"],
) -> npt.NDArray[np.float64]:
    """What the job's rule says of rows that failed validation: float64 (n,), NaN where it has no answer.

    Raises FeatureError when there is no rule, or when it breaks its contract.
    """
    if not code.has_rule:
        raise FeatureError(
            f"features/{code.job}.py must define rule_scores(rows), as a fallback chain names the step rule; "
            "got none. Define it, declare fallback.rule_sql, or take the step out of the declaration"
        )
    frame = rows_frame(rows, columns)
    made = _called(code, "rule_scores", frame)
    if not isinstance(made, pd.Series) or made.dtype != np.float64 or not made.index.equals(frame.index):
        got = f"{made.dtype} of {len(made)}" if isinstance(made, pd.Series) else type(made).__name__
        raise FeatureError(
            f"rule_scores of {code.job} must give a float64 Series with the index of its rows; got {got} "
            f"for {len(frame)} rows"
        )
    scores: npt.NDArray[np.float64] = made.to_numpy()
    refuse_scores(f"rule_scores of {code.job}", scores, output, len(frame))
    return scores


def refuse_scores(
    name: str, scores: npt.NDArray[np.float64], output: Literal["probability", "value"], rows: int
) -> None:
    """Raise FeatureError unless a rule gave NaN or a usable score for each of so many rows."""
    if scores.shape != (rows,):
        raise FeatureError(f"{name} must give one score per row; got {len(scores)} for {rows} rows")
    wrong = (scores < 0) | (scores > 1) if output == "probability" else np.isinf(scores)
    if wrong.any():
        raise FeatureError(
            f"{name} must give NaN or a {'finite ' * (output == 'value')}{output}; "
            f"got {wrong.sum()} others of {rows} rows"
        )


def contract_faults(schema: Mapping[str, FeatureType], index: pd.Index[Any], made: object) -> Iterator[str]:
    """How features break the contract of their schema, for rows of this index; counts, never values."""
    if not isinstance(made, pd.DataFrame):
        yield f"{type(made).__name__} instead of a DataFrame"
        return
    if not made.index.equals(index):
        yield f"another index or order ({len(made)} rows for {len(index)})"
    if list(made.columns) != list(schema):
        yield _names_fault(list(schema), list(made.columns))
    for position, name in enumerate(made.columns):
        fault = _column_fault(schema[name], made.iloc[:, position]) if name in schema else None
        if fault:
            yield f"column {name!r} ({schema[name]}): {fault}"


def _names_fault(declared: list[str], got: list[str]) -> str:
    missing = [name for name in declared if name not in got]
    extra = [name for name in got if name not in declared]
    if missing or extra:
        return f"columns missing: {missing}, columns not declared: {extra}"
    return "its columns in another order than FEATURES, or one of them twice"


def _column_fault(kind: FeatureType, column: pd.Series[Any]) -> str | None:
    if kind.startswith("category"):
        if not _holds_text(column):
            return f"must be str; got {column.dtype}" + " with other values" * is_object_dtype(column)
        infinite, missing = 0, int(column.isna().sum())
    else:
        if column.dtype != np.float64:
            return f"must be float64; got {column.dtype}"
        values = column.to_numpy()
        infinite, missing = int(np.isinf(values).sum()), int(np.isnan(values).sum())
    faults = [f"{infinite} infinite"] if infinite else []
    if missing and not kind.endswith("?"):
        faults.append(f"{missing} missing")
    return f"{' and '.join(faults)} of {len(column)} rows" if faults else None


def _holds_text(column: pd.Series[Any]) -> bool:
    if not is_object_dtype(column):
        return bool(column.dtype == "str")
    try:
        pa.array(column.to_numpy(), type=pa.string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _refuse_nulls(code: FeatureCode, rows: Rows, columns: Mapping[str, ColumnType]) -> None:
    nulls = {name: rows.column(name).null_count for name, kind in columns.items() if kind[-1] != "?"}
    if counts := [f"{count} in {name}" for name, count in nulls.items() if count]:
        raise FeatureError(
            f"rows for the features of {code.job} must be validated, without nulls where none are declared; "
            f"got {', '.join(counts)} of {rows.num_rows} rows"
        )


def _called(code: FeatureCode, function: str, *arguments: object) -> Any:
    try:
        return getattr(code.module, function)(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the contract is broken
        place = _place(error, code.module)
        message = f"{function} of {code.job} must not raise; got {type(error).__name__} at {place}"
    # Raised outside the handler, without its cause: messages of pandas and numpy quote values of rows.
    raise FeatureError(message)


def _place(error: Exception, module: ModuleType) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == module.__file__]
    return f"line {frames[-1].lineno}: {frames[-1].line}" if frames else "its call"
