"""The curves of a training as TensorBoard reads them; they carry no clock and no host, so the same curves are the same
bytes.

TensorBoard takes every file with `tfevents` in its name, and its folder's name for the name of the run.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

NAME = "events.out.tfevents.training"
VERSION = "brain.Event:2"
"""Of the format of events; the first event of a file says it."""
Row = tuple[int, Mapping[str, float]]
"""A step, and the values that there are at it."""


class Curves:
    """A file of events below `folder`, which has the given rows from its beginning; whoever watches it sees it grow."""

    def __init__(self, folder: Path, rows: Iterable[Row] = ()) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / NAME).open("wb")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=0.0, file_version=VERSION).SerializeToString(deterministic=True))
        for row in rows:
            self.add(row)

    def __enter__(self) -> "Curves":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, row: Row) -> None:
        """Append the values of a step; the time of an event is its step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        step, values = row
        told = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._records.write(Event(wall_time=step, step=step, summary=told).SerializeToString(deterministic=True))
        self._records.flush()

    def close(self) -> None:
        """No more rows will come."""
        self._file.close()
