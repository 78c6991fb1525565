"""The number of CPU threads that the compiled kernels use, and that torch's operators use."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORKED_WITHOUT_EXEC = 0x40  # among the flags of a process of Linux


def _has_come_late() -> bool:
    """Whether this is a child of a process that had torch, perhaps with threads, and not this package."""
    if "torch" not in sys.modules:
        return False
    try:
        flags = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[6]
        return bool(int(flags) & FORKED_WITHOUT_EXEC)
    except (OSError, ValueError, IndexError):  # not Linux
        process = sys.modules.get("multiprocessing.process")
        return process is not None and type(process.current_process()).__name__ == "ForkProcess"


class ForkSafeLock:
    """A lock, for a thread any number of times, that is free in a child by fork, whoever held it in the parent."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


_chosen: int | None = None
_forked = _has_come_late()
_of_parent: int | None = None  # torch's number before a forked child took one
_lock = ForkSafeLock()
_n_within = 0  # threads within `one_torch_thread`
_before: int | None = None  # torch's number before the first; None: torch had not been imported
_here = threading.local()


def _in_child() -> None:
    global _forked, _of_parent
    _forked, _of_parent = True, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def get_num_threads() -> int:
    """Threads a kernel may use: the number set here, else torch's, else what torch would take, were it imported:
    OMP_NUM_THREADS, or the processors this process may run on."""
    if _chosen is not None:
        return _chosen
    try:
        n_threads: int = sys.modules["torch"].get_num_threads()
    except (KeyError, AttributeError):  # not imported, or not yet whole
        if hasattr(_here, "within"):
            return 1
        wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list has a number for each level
        if wanted.isdecimal() and int(wanted) > 0:
            return int(wanted)
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Kernels that know of the fork start threads of their own in a child.
    return _of_parent if n_threads == 1 and _of_parent is not None and not hasattr(_here, "within") else n_threads


def set_num_threads(n_threads: int | None) -> None:
    """Set the number of threads of the kernels; None follows torch again. Results do not depend on it."""
    global _chosen
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"expected at least one thread, got {n_threads}")
    _chosen = n_threads


def mend_fork() -> None:
    """In a child by fork, let torch's operators take one thread from now on.

    Torch's threads have not survived the fork, and it would wait for them for ever.
    """
    global _of_parent
    if not _forked or getattr(_here, "mended", None) == os.getpid():
        return
    import torch

    with _lock:
        _of_parent = _of_parent or torch.get_num_threads()
        torch.set_num_threads(1)  # of this thread, and of those to come
    _here.mended = os.getpid()


def is_forked() -> bool:
    """Whether this process is a child, by fork, of one that may have used torch."""
    return _forked


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch's operators, and kernels that follow it, on one thread; several callers may be within at once.

    Torch keeps one number for threads to come and one for each that there is: whichever thread leaves gives back that
    of before the first one came. Where torch has not been imported, it is not imported for that.
    """
    global _n_within, _before
    if hasattr(_here, "within"):
        yield
        return
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        mend_fork()
    with _lock:
        if _n_within == 0:
            _before = None if torch is None else torch.get_num_threads()
        _n_within += 1
        if _before is not None:
            torch.set_num_threads(1)
    _here.within = True
    try:
        yield
    finally:
        del _here.within
        with _lock:
            _n_within -= 1
            if _before is not None:
                torch.set_num_threads(_before)
