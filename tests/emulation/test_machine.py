"""The emulated machine finds each fault of faults/faults.cu, and nothing in its correct kernels."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from faults_built import BUILT, build_faults

ORDERS = ["forward", "backward", "random:1", "random:2"]
CORRECT = ["correct_sum", "correct_atomics", "correct_read_after_atomics", "correct_turns", "correct_halves"]
OF_MEETINGS = {  # found without the compiler's hooks, too
    "lane_outside_its_mask": "not in its own mask",
    "missing_lane": "a shuffle reads lane 3, which is not there",
    "threads_that_wait_for_ever": "wait for ever",
    "different_calls": "meet in different calls",
    "different_barriers": "meet in different calls",
    "barrier_in_a_branch": "meet in different calls|wait for ever",
}
OF_ACCESSES = {
    "race_of_a_block": "a race in shared memory values",
    "race_of_a_warp": "a race in shared memory values",
    "race_of_half_a_warp": "a race in shared memory values",
    "race_of_reads_before_a_write": "a race in shared memory value",
    "race_of_warps_by_syncwarp": "a race in shared memory values",
    "race_of_blocks": "a race in global memory",
    "race_with_an_atomic": "a race in global memory",
    "race_with_atomics_before": "a race in global memory",
    "race_with_atomics_of_another_warp": "a race in global memory",
    "race_with_atomics_of_blocks": "a race in global memory",
    "read_beyond_the_array": "out of bounds .* 0 bytes behind an array of 512",
    "write_before_the_array": "out of bounds .* 4 bytes before an array of 512",
    "write_beyond_shared_memory": "out of bounds|an index beyond an array",
    "misaligned": "misaligned",
    "shared_memory_not_written": "shared memory values is read before it is written",
    "global_memory_not_written": "global memory is read before it is written",
    "local_memory_of_another": "local memory of another thread",
    "too_much_stack": "bytes of stack",
    "pointer_of_the_host": "a pointer of the host",
    "shift_by_too_much": "a shift by too many bits",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Runs a kernel of faults.cu on 128 integers, of which the first half is written: what went wrong, or nothing."""
    build_faults()
    library = ctypes.CDLL(str(BUILT / "libmachine.so"))
    library.emulation_make_array.restype = ctypes.c_void_p
    library.emulation_drop_array.argtypes = [ctypes.c_void_p]
    library.emulation_mark_written.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    modes = {mode: ctypes.CDLL(str(BUILT / mode / "libfaults.so")) for mode in ("plain", "checked")}

    def run(kernel, mode, order):
        library.emulation_set_checked(mode == "checked")
        library.emulation_set_order(order.encode())
        launch = getattr(modes[mode], f"launch_{kernel}")
        launch.restype, launch.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]
        array = library.emulation_make_array(512)
        ctypes.memset(array, 0, 256)
        library.emulation_mark_written(array, 256)
        try:
            return launch(array, 128).decode()
        finally:
            library.emulation_drop_array(array)

    return run


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [*CORRECT, *OF_MEETINGS, *OF_ACCESSES])
def test_a_fault_is_found_in_every_order(machine, kernel, order):
    """With the name of the kernel and the line of the source."""
    message = machine(kernel, "checked", order)
    if kernel in CORRECT:
        assert message == ""
        return
    expected = {**OF_MEETINGS, **OF_ACCESSES}[kernel]
    with pytest.raises(RuntimeError, match=expected):
        raise RuntimeError(message)
    assert kernel in message and ("faults.cu:" in message or kernel == "too_much_stack")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", OF_MEETINGS)
def test_threads_that_do_not_meet_are_found_without_hooks(machine, kernel, order):
    with pytest.raises(RuntimeError, match=OF_MEETINGS[kernel]):
        raise RuntimeError(machine(kernel, "plain", order))


@pytest.mark.parametrize("kernel", CORRECT)
def test_correct_kernels_run_without_hooks(machine, kernel):
    assert all(machine(kernel, "plain", order) == "" for order in ORDERS)


def test_what_the_machine_lacks_does_not_compile(tmp_path):
    """And what it has does."""
    for line, compiles in (
        ("__syncwarp(); x[0] = __popc(3u);", True),
        ("__threadfence();", False),
        ("__reduce_add_sync(~0u, 1);", False),
        ("atomicExch(x, 1);", False),
    ):
        source = tmp_path / "kernel.cpp"
        source.write_text(f"#include <cuda_runtime.h>\n__global__ void kernel(int* x) {{ {line} }}\n")
        command = ["g++", "-std=c++20", "-fsyntax-only", f"-I{Path(__file__).parent / 'include'}", str(source)]
        assert (subprocess.run(command, capture_output=True).returncode == 0) == compiles, line


def test_launches_keep_the_numbers_of_lines(tmp_path):
    source, target = tmp_path / "csrc", tmp_path / "out"
    source.mkdir()
    text = "void f() {\n    sum<Pack<T>, 4>\n        <<<grid(n),\n           256, 0, stream>>>(x,\n    y);\n}\n"
    (source / "kernel.cu").write_text(text)
    subprocess.run([sys.executable, str(Path(__file__).parent / "translate.py"), str(source), str(target)], check=True)
    translated = (target / "kernel.cu").read_text()
    assert translated.count("\n") == text.count("\n") + 1 and translated.startswith("#line 1")
    assert "::emulation::launch(sum<Pack<T>, 4>" in translated and "0, stream)(x,\n    y);" in translated
