// Two accesses of which one writes race unless they are both atomic, or one comes before the other: by __syncthreads of
// their block, by __syncwarp of their lanes, in the same thread, or in another launch. Other collectives order nothing.
// What a lane knows of the others is a vector clock: numbers of __syncwarp, a number for each lane of the warp.
#include "races.hpp"

#include <algorithm>
#include <array>

#include "block.hpp"
#include "report.hpp"

namespace emulation {
namespace {

std::uint32_t launch_number = 1;

// By thread and lane of its warp: how many __syncwarp of that lane come before what the thread does now.
using Clock = std::array<std::uint32_t, kWarp>;
Clock clocks[kMostThreads];

bool comes_before(const Visit& visit, int thread) {
    if (visit.block != block.number || visit.others == Others::blocks) return false;
    if (visit.barriers < block.n_barriers) return true;
    if (visit.thread / kWarp != thread / kWarp || visit.others == Others::warps) return false;
    if (visit.syncs < clocks[thread][static_cast<std::size_t>(visit.thread % kWarp)]) return true;
    return visit.thread == thread && visit.others == Others::none;
}

bool same_warp(const Visit& visit, int thread) {
    return visit.block == block.number && visit.thread / kWarp == thread / kWarp;
}

std::string memory_in_words(const Touch& touch) {
    return touch.shared_name ? std::string("shared memory ") + touch.shared_name : "global memory";
}

[[gnu::noinline]] void report_race(const Touch& touch, const Visit& visit, bool visit_writes) {
    const auto kind = [](bool writes, Access access) {
        return std::string(access == Access::atomic ? "an atomic " : "a ") + (writes ? "write" : "read");
    };
    fail("a race in " + memory_in_words(touch) + ", byte " + std::to_string(touch.offset) + ": " +
         kind(touch.writes, touch.access) + " at " + place_of(touch.code) + " by " +
         thread_in_words(block.number, number_of(current)) + " and " + kind(visit_writes, visit.access) + " at " +
         place_of(visit.code) + " by " + thread_in_words(visit.block, visit.thread));
}

[[gnu::noinline]] void report_not_written(const Touch& touch) {
    fail(memory_in_words(touch) + " is read before it is written, byte " + std::to_string(touch.offset) + ", at " +
         place_of(touch.code) + " by " + thread_in_words(block.number, number_of(current)));
}

// The bytes of a cell that an access touches.
std::uint8_t bytes_touched(std::size_t cell, std::size_t offset, std::size_t n_bytes) {
    const std::size_t begin = cell * kCell, from = std::max(offset, begin) - begin;
    const std::size_t to = std::min(offset + n_bytes, begin + kCell) - begin;
    return static_cast<std::uint8_t>((1u << to) - (1u << from));
}

void note_read(Cell& cell, const Visit& visit) {
    Visit* free = nullptr;
    for (Visit& read : cell.reads) {
        if (read.access == visit.access && same_warp(read, visit.thread)) {
            const bool several = !comes_before(read, visit.thread);
            read = visit, read.others = several ? Others::lanes : Others::none;
            return;
        }
        if (read.access == Access::none || comes_before(read, visit.thread)) free = &read;
    }
    if (free)
        *free = visit;  // otherwise two that are not ordered stay, of which one is of another warp than the writer
}

// Atomics do not race with each other: whose were there before, which a later plain access may race with.
Others others_of(const Visit& before, int thread) {
    if (before.access == Access::none || comes_before(before, thread)) return Others::none;
    if (before.block != block.number) return Others::blocks;
    return std::max(before.others, before.thread / kWarp == thread / kWarp ? Others::lanes : Others::warps);
}

}  // namespace

void begin_launch_of_visits() { ++launch_number; }

void begin_block_of_visits(int n_threads) { std::fill_n(clocks, n_threads, Clock{}); }

void order_lanes(int first_thread, unsigned lanes) {
    Clock joint = {};
    for (unsigned left = lanes; left; left &= left - 1) {
        const int lane = std::countr_zero(left);
        Clock& clock = clocks[first_thread + lane];
        ++clock[static_cast<std::size_t>(lane)];
        for (std::size_t k = 0; k < kWarp; ++k) joint[k] = std::max(joint[k], clock[k]);
    }
    for (unsigned left = lanes; left; left &= left - 1) clocks[first_thread + std::countr_zero(left)] = joint;
}

void mark_bytes_written(Cell* cells, std::size_t offset, std::size_t n_bytes) {
    for (std::size_t c = offset / kCell; c * kCell < offset + n_bytes; ++c)
        cells[c].written |= bytes_touched(c, offset, n_bytes);
}

void check_visit(const Touch& touch) {
    const int thread = number_of(current);
    const Visit visit = {touch.code,
                         static_cast<std::uint32_t>(block.number),
                         block.n_barriers,
                         clocks[thread][static_cast<std::size_t>(thread % kWarp)],
                         static_cast<std::uint16_t>(thread),
                         touch.access,
                         Others::none};
    for (std::size_t c = touch.offset / kCell; c * kCell < touch.offset + touch.n_bytes; ++c) {
        Cell& cell = touch.cells[c];
        if (cell.launch != launch_number) {
            cell.write = cell.reads[0] = cell.reads[1] = {};
            cell.launch = launch_number;
        }
        const auto races = [&](const Visit& other) {
            return other.access != Access::none && !comes_before(other, thread) &&
                   !(other.access == Access::atomic && touch.access == Access::atomic);
        };
        const std::uint8_t bytes = bytes_touched(c, touch.offset, touch.n_bytes);
        if (races(cell.write)) report_race(touch, cell.write, true);
        if (touch.reads && (cell.written & bytes) != bytes) report_not_written(touch);
        if (touch.writes) {
            for (const Visit& read : cell.reads)
                if (races(read)) report_race(touch, read, false);
            const Others others = others_of(cell.write, thread);
            cell.write = visit, cell.write.others = others;
            cell.written |= bytes;
            if (touch.access == Access::plain) cell.reads[0] = cell.reads[1] = {};
        } else {
            note_read(cell, visit);
        }
    }
}

}  // namespace emulation
