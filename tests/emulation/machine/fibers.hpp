// Fibers: the threads of a block, each with a stack of its own, between which the machine switches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulation {

constexpr std::size_t kStackBytes = std::size_t{1} << 18;  // of each fiber, with a page below that may not be touched

// Saves the registers on this stack, whose pointer goes to *save, and goes on where `load` was saved.
extern "C" void emulation_switch_stacks(void** save, void* load);

// A GPU keeps what a thread has in registers or, slowly, in memory: more than this is a fault of the kernel.
constexpr std::size_t kMostStackBytes = 32 * 1024;
bool has_used_too_much(int fiber);

// The lowest address of a fiber's stack.
std::uintptr_t stack_of(int fiber);

// A pointer for emulation_switch_stacks, which then begins `entry` on the fiber's empty stack. It must not return.
void* empty_stack(int fiber, void (*entry)());

}  // namespace emulation
