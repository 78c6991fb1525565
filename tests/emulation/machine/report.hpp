// What went wrong, in words.
#pragma once

#include <cstdint>
#include <string>

#include "block.hpp"

namespace emulation {

// The first fault of the launch that runs; empty without one.
std::string& failure();

// Notes a fault of the running kernel, of which cudaGetLastError will say so, and leaves the kernel.
void fail(const std::string& what);

// For what no launch can report: prints and ends the process.
[[noreturn]] void stop(const std::string& what);

std::string in_words(const Meeting& meeting);
std::string thread_in_words(std::uint64_t block, int thread);
std::string hexadecimal(std::uintptr_t x);

// The lines of source that an address of code belongs to, callers behind those that were inlined.
std::string place_of(const void* code);
std::string name_of_function(const void* function);

}  // namespace emulation
