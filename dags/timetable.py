"""When a job's nights are due: each midnight of its time zone, up to the schedule's last day."""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow.timetables.base import DagRunInfo, TimeRestriction
from airflow.timetables.trigger import CronPartitionTimetable

KEY_FORMAT = "%Y-%m-%d"


class BusinessDays(CronPartitionTimetable):
    """Midnights as ticks, the day as partition key: a later tick would drop a backfill's last day.

    The schedule's end stands here and not on the DAG: there it would also stop manual runs of earlier days,
    which would end as successes without a task.
    """

    def __init__(self, timezone: str, last: date | None) -> None:
        super().__init__("0 0 * * *", timezone=timezone, key_format=KEY_FORMAT)
        self._zone, self._last = timezone, last

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next night; None after the last one."""
        found = super().next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)
        over = found and self._last and str(found.partition_key) > self._last.isoformat()
        return None if over else found

    def serialize(self) -> dict[str, Any]:
        """What the metadata database keeps of it."""
        return {"timezone": self._zone, "last": self._last.isoformat() if self._last else None}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> BusinessDays:
        """The timetable of what was kept."""
        last = data["last"]
        return cls(data["timezone"], date.fromisoformat(last) if last else None)
