"""Put events into a store until killed, telling what was acknowledged: `python ingest.py FILE SEED AT`.

Each acknowledged event goes to standard output, one line in one write, after the store said so. AT: the process
kills itself at so many operations on files, in the middle of a commit; 0: never. Only the number of the run and of the
event make an id, so that the same ids can be sent again.
"""

import os
import signal
import sys
import threading

import apsw

from rediffuse.serving.store import Event
from rediffuse.serving.store.sqlite import SQLiteStore

THREADS, BATCHED = 6, 40


class Deadly(apsw.VFS):
    """SQLite's file layer, in which the n-th operation is the last."""

    def __init__(self, at: int) -> None:
        self.left = at
        super().__init__("deadly", "")

    def xOpen(self, name: str, flags: list[int]) -> apsw.VFSFile:
        layer = self

        class File(apsw.VFSFile):
            def __init__(self) -> None:
                super().__init__("", name, flags)

            def xWrite(self, data: bytes, offset: int) -> None:
                layer.count()
                super().xWrite(data, offset)

            def xSync(self, how: int) -> None:
                layer.count()
                super().xSync(how)

        return File()

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def event(name: str) -> Event:
    return Event(event_id=name, item="i", kind="view", time_us=1, user=f"u{name[-1]}")


def ingest(store: SQLiteStore, prefix: str, batched: bool) -> None:
    """Single events, or batches."""
    n = 0
    while True:
        names = [f"{prefix}-{n + more}" for more in range(BATCHED if batched else 1)]
        answer = store.append([event(name) for name in names])
        assert all(answer.accepted)
        os.write(1, "".join(f"{name}\n" for name in names).encode())
        n += len(names)


if __name__ == "__main__":
    file, seed, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    layer = Deadly(at)
    store = SQLiteStore(file, vfs="deadly" if at else None, checkpoint_pages=60)
    os.write(1, b"open\n")
    for worker in range(THREADS):
        threading.Thread(target=ingest, args=(store, f"{seed}-{worker}", worker == 0)).start()
