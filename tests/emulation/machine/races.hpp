// Races, and memory that is read before it is written, from what is remembered of every 4 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulation {

constexpr std::size_t kCell = 4;

enum class Access : std::uint8_t { none, plain, atomic };  // volatile ones count as atomic

// Whose an access is, besides the thread that a visit names: of others between the same barriers, of the same warp, of
// the block, or of other blocks.
enum class Others : std::uint8_t { none, lanes, warps, blocks };

// Who was there, and when: before which barriers of its block and its warp.
struct Visit {
    const void* code;
    std::uint32_t block, barriers, syncs;
    std::uint16_t thread;
    Access access;
    Others others;
};

// Zeros are a cell that nobody has used. Two reads are enough: one by the warp that writes next, and one by another.
struct Cell {
    Visit write, reads[2];
    std::uint32_t launch;  // to which the visits belong
    std::uint8_t written;  // bytes, as bits
};

// What was done before a launch comes first; threads of a block begin without knowing of each other.
void begin_launch_of_visits();
void begin_block_of_visits(int n_threads);
// Of what the lanes did until now, all comes before what each of them does next.
void order_lanes(int first_thread, unsigned lanes);

void mark_bytes_written(Cell* cells, std::size_t offset, std::size_t n_bytes);

// An access of the current thread to n bytes at an offset of an array with these cells. Fails, and does not return, if
// it races or reads what is not written.
struct Touch {
    Cell* cells;
    std::size_t offset, n_bytes;
    bool reads, writes;
    Access access;
    const void* code;
    const char* shared_name;
};
void check_visit(const Touch& touch);

}  // namespace emulation
