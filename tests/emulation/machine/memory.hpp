// The memory that a kernel may use: arrays of the device, and shared arrays of the block that runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "races.hpp"

namespace emulation {

struct Array {
    std::uintptr_t begin = 1, end = 0;
    std::uint64_t number = 0;           // arrays are counted as they are made
    const char* shared_name = nullptr;  // of a shared array
    Cell* cells = nullptr;              // of every 4 bytes, in the checked mode

    bool contains(std::uintptr_t address) const { return address >= begin && address < end; }
};

// Whether accesses are checked; from the start, as only arrays that are made then have cells.
bool checked();

// Memory of the device, which holds bytes of 0xff (NaN, -1) and counts as not written.
void* allocate(std::size_t n_bytes);
void release(void* array);

// The array that an address lies in, or null; for the thread that runs a kernel.
const Array* array_of(std::uintptr_t address);
// For messages: how far the address lies from the arrays of the device before and behind it.
std::string nearest_arrays(std::uintptr_t address);

// Whether all of these bytes are in one array of the device; for the host.
bool is_of_device(const void* begin, std::size_t n_bytes);

// The host, or an operator of torch, has written there.
void mark_written(const void* begin, std::size_t n_bytes);

// Shared arrays belong to a block: those of the block before are gone.
void forget_shared_arrays();

// Copies of all arrays of the device, and the way back. Arrays that were made meanwhile become as new.
struct Contents;
Contents* save_contents();
void restore_contents(Contents* contents);

}  // namespace emulation
