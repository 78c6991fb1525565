// What the first call of a search leaves for the second: for every atom, which of its bin's candidates are neighbours.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/arena.hpp"
#include "neighbors/candidates.hpp"

namespace mdgnn::cpu {

// The candidates of a bin.
struct SavedBin {
    const std::uint32_t* places = nullptr;    // in the arrays of Bins
    const std::uint32_t* shift_of = nullptr;  // by candidate, in shifts
    const Shift* shifts = nullptr;            // S for a receiver whose wrap is zero
    std::uint32_t n = 0, n_shifts = 0;        // candidates and shifts
    bool images = false;                      // shifts are those of images: the candidates' wraps are not in them
};

// The neighbours of an atom: the words of a mask of candidates that are not zero, after a bit for every word that says
// whether it is zero.
struct SavedRow {
    const std::uint64_t* words = nullptr;
    std::uint32_t bin = 0, place = 0;  // of the atom itself, in the arrays of Bins
};

struct SavedRows {
    std::vector<Arena> arenas;  // one a thread
    std::vector<SavedBin> bins;
    std::vector<SavedRow> rows;
    std::atomic<std::size_t> bytes = 0;  // that the arenas take
    std::atomic<bool> complete = true;   // false: rows were left out for want of memory
};

template <class T>
SavedBin save_candidates(Arena& arena, const Bins<T>& bins, Candidates& c);

// What is set in c.mask.
const std::uint64_t* save_neighbors(Arena& arena, const Candidates& c);

// The numbers of a row's candidates, ascending. It may write kSpare places more.
constexpr std::size_t kSpare = 16;
void list_neighbors(const SavedBin& bin, const SavedRow& row, std::uint32_t* numbers);

}  // namespace mdgnn::cpu
