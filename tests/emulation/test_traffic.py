"""Traffic that is known without counting is what the emulated machine counts."""

import ctypes

import pytest
from faults_built import BUILT, build_faults
from traffic import count

# accesses of the warp, lanes, bytes, sectors that were touched, the same once, bytes of them that were of use
KERNELS = {
    "side_by_side": (1, 32, 128, 4, 4, 128),
    "not_at_a_sector": (1, 32, 128, 5, 5, 128),
    "far_apart": (1, 32, 128, 32, 32, 128),
    "all_the_same": (1, 32, 128, 1, 1, 4),
    "half_of_the_lanes": (1, 16, 64, 2, 2, 64),
    "sixteen_bytes": (1, 32, 512, 16, 16, 512),
    "aligned_structs": (2, 64, 1024, 64, 32, 1024),
    "four_of_four_bytes": (1, 32, 512, 16, 16, 512),
    "three_of_four_bytes": (3, 96, 384, 36, 12, 384),
    "the_same_again": (2, 64, 256, 8, 4, 256),
    "loops_of_two_lengths": (4, 96, 384, 12, 6, 384),
}


@pytest.fixture(scope="module")
def counted():
    """The counts of a kernel of faults/traffic.cu, on 1024 numbers that are written."""
    build_faults()
    machine, kernels = ctypes.CDLL(str(BUILT / "libmachine.so")), ctypes.CDLL(str(BUILT / "checked" / "libfaults.so"))
    machine.emulation_make_array.restype = ctypes.c_void_p
    machine.emulation_drop_array.argtypes = [ctypes.c_void_p]
    machine.emulation_mark_written.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    machine.emulation_set_checked(True)

    def run(name, order):
        machine.emulation_set_order(order.encode())
        array = machine.emulation_make_array(4096)
        ctypes.memset(array, 0, 4096)
        machine.emulation_mark_written(array, 4096)
        launch = getattr(kernels, f"launch_{name}")
        launch.restype, launch.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
        errors = []
        (kernel,) = count(machine, lambda: errors.append(launch(array)))
        machine.emulation_drop_array(array)
        assert errors == [b"no error"] and name in kernel.name and kernel.launches == 1
        return kernel

    return run


@pytest.mark.parametrize("order", ["forward", "backward", "random:1"])
@pytest.mark.parametrize("name", KERNELS)
def test_reads(counted, name, order):
    kernel = counted(name, order)
    total = kernel.total
    measured = (total.accesses, total.lanes, total.bytes_read, total.sectors_read, kernel.first_read, total.useful)
    assert measured == KERNELS[name] and total.sectors_written == total.turns == 0


def test_writes(counted):
    kernel = counted("written", "forward")
    total = kernel.total
    assert (total.bytes_written, total.sectors_written, kernel.first_written, total.bytes_read) == (128, 4, 4, 0)


@pytest.mark.parametrize(("name", "turns"), [("columns_of_one_bank", 32), ("columns_of_all_banks", 1)])
def test_banks(counted, name, turns):
    """33 rows are written side by side; a column is read."""
    total = counted(name, "forward").total
    assert (total.shared_accesses, total.turns) == (34, 33 + turns) and total.bytes_read == 0
