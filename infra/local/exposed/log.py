"""What an exposed service prints: a line with its time each, in two files of bounded length."""

import os
from datetime import UTC, datetime
from pathlib import Path

MOST = 4 << 20
"""Bytes of a file; a full one takes the place of the one before."""
TAIL = 1 << 20
LONGEST = 16 << 10
"""Bytes of a line; a longer one is several."""


class ServiceLog:
    """The log of one service, over all of its processes. Writes that fail (a full disk) are lost, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = path.with_name(f"{path.name}.1")
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Some output, as it comes."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > LONGEST:
            lines.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        self._rest = rest
        self._write(lines)

    def flush(self) -> None:
        """The output has ended: what stands in an unfinished line is a line."""
        if self._rest:
            self._write([self._rest])
        self._rest = b""

    def note(self, text: str) -> None:
        """A line of the cluster's own."""
        self.flush()
        self._write([f"[dioscar: {text}]".encode()])

    def tail(self, count: int) -> list[tuple[str, str]]:
        """The last `count` lines, each with its time (RFC 3339); no more than stand in the last megabyte."""
        text, left = b"", TAIL
        for path in (self.path, self._before):
            piece = _end_of(path, left)
            text, left = piece + text, left - len(piece)
        lines = text.split(b"\n")[:-1]
        if left <= 0:
            del lines[0]  # half of one
        split = [line.decode(errors="replace").partition(" ") for line in lines[-count:]]
        return [(stamp, message) for stamp, _, message in split]

    def last_line(self) -> str:
        """The last thing that the service printed itself; empty where it printed nothing since it was started."""
        for _, message in reversed(self.tail(50)):
            if message.startswith("[dioscar: "):
                return ""
            if message.strip():
                return message.strip()[:500]
        return ""

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
        pieces = [line[at : at + LONGEST] for line in lines for at in range(0, max(1, len(line)), LONGEST)]
        try:
            with self.path.open("ab") as file:
                file.write(b"".join(b"%s %s\n" % (stamp, piece.rstrip(b"\r")) for piece in pieces))
                size = file.tell()
            if size > MOST:
                self.path.replace(self._before)
        except OSError:
            return


def _end_of(path: Path, most: int) -> bytes:
    """The last bytes of a file; nothing where there is none."""
    if most <= 0:
        return b""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return file.read(most)
    except OSError:
        return b""
