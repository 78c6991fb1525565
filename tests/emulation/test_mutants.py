"""Faults are planted at every place of their concept; a switch that is off changes nothing."""

import re
import subprocess
from pathlib import Path

from mutants import ATOMIC, BARRIER_GONE, FURTHER, INDEX, MASK, Fault, Planter, code_only, in_order_of_judgement

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KERNEL = """
#define LEAST(a, b) (a < b ? a : b)  // a macro stays as it is
__global__ void kernel(const int* x, int* sums, int n) {
    __shared__ int shared[32];
    const int lane = threadIdx.x % 32;  // lane < 32
    int value = lane < n ? x[lane] : 0;
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    if (lane == 0) shared[n / 32] = value;
    __syncwarp();
    if constexpr (sizeof(int) < 8) value = shared[0];
    (atomicAdd(&sums[0], value), __syncthreads());
}
int of_the_host(int* x, int n) { return n < 3 ? x[n] : 0; }
"""


def planted(text):
    faults = []
    return Planter("kernel.cu", text, faults).plant(), [(fault.line, fault.kind) for fault in faults]


def test_faults_of_a_kernel():
    text, faults = planted(KERNEL)
    assert [line for line, kind in faults if kind == BARRIER_GONE] == [9, 11]
    assert [line for line, kind in faults if kind == MASK] == [7]
    assert [line for line, kind in faults if kind == FURTHER] == [6, 7]
    assert [line for line, kind in faults if kind == INDEX] == [6, 8]
    assert [line for line, kind in faults if kind == ATOMIC] == [11]
    assert text.count("\n") == KERNEL.count("\n")
    for before, after in zip(KERNEL.splitlines(), text.splitlines(), strict=True):
        if "#define" in before or "lane < 32" in before or "of_the_host" in before:
            assert after == before  # macros, comments, and what runs on the host
        assert "sizeof(int) < 8)" in after or "constexpr" not in before  # the compiler works it out


def test_a_study_that_is_cut_short_has_all_but_bounds_and_a_sample_of_those():
    faults = [Fault(k, BARRIER_GONE if k % 100 == 0 else FURTHER, "kernel.cu", k, "") for k in range(1000)]
    numbers = [fault.number for fault in in_order_of_judgement(faults)]
    assert numbers == [fault.number for fault in in_order_of_judgement(faults)] and sorted(numbers) == [*range(1000)]
    assert numbers[:10] == [*range(0, 1000, 100)]
    of_each_fifth = [sum(n // 200 == k for n in numbers[10:110]) for k in range(5)]
    assert all(8 < n < 32 for n in of_each_fifth), of_each_fifth


def test_a_kernel_with_switches_compiles(tmp_path):
    source = tmp_path / "kernel.cpp"
    source.write_text(planted(KERNEL)[0])
    include = ["-I", str(HERE / "include"), "-include", "planted_faults.h"]
    subprocess.run(["g++", "-std=c++20", "-fsyntax-only", *include, str(source)], check=True)


def test_every_barrier_collective_and_atomic_of_the_kernels_has_a_fault():
    for path in [*ROOT.glob("csrc/**/*.cu"), *ROOT.glob("csrc/**/cuda*.hpp")]:
        code, (_, faults) = code_only(path.read_text()), planted(path.read_text())
        for kind, words in (
            (BARRIER_GONE, r"__sync(threads|warp)\("),
            (MASK, r"__\w+_sync\("),
            (ATOMIC, r"\batomic\w+\("),
        ):
            lines = sorted(code.count("\n", 0, match.start()) + 1 for match in re.finditer(words, code))
            assert sorted(line for line, of in faults if of == kind) == lines, f"{kind} in {path}"
