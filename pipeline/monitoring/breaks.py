"""Structural breaks: changes so large that no second night is awaited."""

from __future__ import annotations

import numpy as np

from pipeline.monitoring.limits import Judged
from pipeline.monitoring.watched import Flags, Floats

HALF = 0.5
_WITHHELD = 0.01
_UNSEEN = 0.02  # the next night it has been seen, so there is no second night to wait for
_SPREADS = 0.5
_RATIO = 0.25
_RECENT = 7  # nights
_FAR = 1.3  # times the limit of two nights running: what passes it on one night did so on none before


def broken(judged: Judged) -> Flags:
    """Which statistics broke on which night as on none before but the last week's: (nights, statistics).

    Half of the rows more without a value; a fiftieth with a value that no rolling night had; a mean that is a
    quarter of itself and half a standard deviation of its column beyond every earlier one; a hundredth of the
    rows more withheld; half or twice the rows; half of the input columns equal to the night before's.
    """
    watched, measured = judged.watched, judged.surprise
    raw, values = watched.raw, watched.values
    highest, lowest = _so_far(raw, np.fmax), _so_far(raw, np.fmin)
    far = np.abs(np.nan_to_num(measured.z)) > _FAR * judged.soon.limits
    beyond = np.fmax(_so_far(values, np.fmin) - values, values - _so_far(values, np.fmax))
    ratio = np.fmax(raw - highest, lowest - raw) >= _RATIO * np.fmax(np.abs(highest), np.abs(lowest))
    spread: Flags = np.array([statistic.floor > 0 for statistic in watched.statistics], dtype=bool)
    shares = watched.of("missing_share") | watched.of("copied_share")
    breaks: Flags = np.isfinite(measured.centre) & (
        shares & (raw - highest >= HALF)
        | watched.of("mean") & spread & far & ratio & (beyond >= _SPREADS)
        | watched.of("unseen_share") & far & (raw - highest >= _UNSEEN)
        | watched.of("withheld_share") & far & (raw - highest >= _WITHHELD)
        | watched.of("rows_in") & far & (beyond >= np.log(2))
    )
    return breaks


def _so_far(values: Floats, extreme: np.ufunc) -> Floats:
    """The extreme of all nights before each night, float64 (nights, statistics); NaN where there is none.

    A night of a change is no precedent for the next one of the same change: the last nights are left out.
    """
    known = np.full(values.shape, np.nan)
    known[_RECENT:] = extreme.accumulate(values, axis=0)[:-_RECENT]
    return known
