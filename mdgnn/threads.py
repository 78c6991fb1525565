"""The number of CPU threads that the compiled kernels use."""

import os
import sys

_chosen: int | None = None


def get_num_threads() -> int:
    """Threads a kernel may use: the number set here, else torch's, else the processors this process may run on."""
    if _chosen is not None:
        return _chosen
    try:
        return sys.modules["torch"].get_num_threads()  # type: ignore[no-any-return]
    except (KeyError, AttributeError):  # not imported, or not yet whole
        pass
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(n_threads: int | None) -> None:
    """Set the number of threads of the kernels; None follows torch again. Results do not depend on it."""
    global _chosen
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"expected at least one thread, got {n_threads}")
    _chosen = n_threads
