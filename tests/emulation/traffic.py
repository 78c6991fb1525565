"""What machine/traffic.cpp has counted, for Python."""

import ctypes
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Accesses of warps to global and shared memory, and the lanes that took part in them; of global memory the bytes
    that lanes read and wrote, the sectors of 32 bytes that they touched, and how many bytes of those an access had use
    for; of shared memory its accesses and the turns that the banks took for them."""

    accesses: int = 0
    lanes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    sectors_read: int = 0
    sectors_written: int = 0
    useful: int = 0
    shared_accesses: int = 0
    turns: int = 0

    def __iadd__(self, other):
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


@dataclass
class Kernel:
    """Sums over the launches of a kernel; `first_read` and `first_written`: sectors, each once a launch."""

    name: str
    launches: int
    blocks: int
    threads: int
    first_read: int
    first_written: int
    total: Counts = field(default_factory=Counts)
    places: dict[str, Counts] = field(default_factory=dict)  # lines of the source


def count(machine: ctypes.CDLL, run, with_places=False) -> list[Kernel]:
    """The kernels that run() launches, in the checked mode."""
    machine.emulation_count_traffic.argtypes = machine.emulation_traffic.argtypes = [ctypes.c_bool]
    machine.emulation_traffic.restype = ctypes.c_char_p
    machine.emulation_count_traffic(True)
    try:
        run()
    finally:
        machine.emulation_count_traffic(False)
    kernels = []
    for line in machine.emulation_traffic(with_places).decode().splitlines():
        if not line.startswith("\t"):
            name, *numbers = line.split("\t")
            kernels.append(Kernel(name, *map(int, numbers)))
            continue
        _, place, *numbers = line.split("\t")
        counts = Counts(*map(int, numbers))
        kernels[-1].total += counts
        of_place = kernels[-1].places.setdefault(place, Counts())
        of_place += counts
    return kernels
