// The memory traffic of kernels, counted while they run checked.
#pragma once

#include <cstdint>

#include "cuda_runtime.h"
#include "races.hpp"

namespace emulation {

// Whether it is counted; otherwise the functions below do nothing.
extern bool counts_traffic;

void begin_launch_of_traffic(const Kernel& kernel, std::uint64_t n_blocks, std::uint64_t n_threads);
// An access of the current thread to an array of the device or of the block.
void count_access(std::uintptr_t address, const Touch& touch);
// All lanes of a warp have met; those of all warps, or they have ended.
void end_accesses_of_warp(int warp);
void end_accesses_of_block();

}  // namespace emulation
