// What the first call of a search leaves for the second: for every atom, which of its bin's candidates are neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/block.hpp"
#include "neighbors/candidates.hpp"
#include "neighbors/math.hpp"

namespace mdgnn::cpu {

// Memory for arrays whose size nobody knows before they are written, in blocks that stay where they are.
class Arena {
  public:
    Arena() = default;
    Arena(Arena&& other) noexcept : blocks_(std::move(other.blocks_)) { other.blocks_.clear(); }
    Arena& operator=(Arena&&) = delete;
    ~Arena() {
        for (void* block : blocks_) free_block(block);
    }

    // Room for n numbers, which stays the caller's as far as `take` says.
    template <class V>
    V* room(std::size_t n) {
        const std::size_t bytes = n * sizeof(V);
        if (blocks_.empty() || bytes > size_ - used_) {  // as much again, so that there are few blocks
            const std::size_t size = std::max(bytes, std::max(kFirst, total_));
            blocks_.reserve(blocks_.size() + 1);
            blocks_.push_back(allocate_block(size));
            size_ = size, used_ = 0, total_ += size;
        }
        return reinterpret_cast<V*>(static_cast<char*>(blocks_.back()) + used_);
    }
    template <class V>
    void take(std::size_t n) {
        constexpr std::size_t kAlign = 16;
        used_ = std::min(size_, (used_ + n * sizeof(V) + kAlign - 1) / kAlign * kAlign);
    }

    std::size_t bytes() const { return total_; }

  private:
    static constexpr std::size_t kFirst = std::size_t{1} << 15;
    std::vector<void*> blocks_;
    std::size_t size_ = 0, used_ = 0, total_ = 0;  // of the last block; of all
};

// By what a neighbour is moved.
template <class T>
struct Move {
    T offset[4] = {};            // S @ cell
    std::int32_t shift[4] = {};  // S

    Move() = default;
    Move(const Shift& s, const Cell<T>& cell) : shift{s[0], s[1], s[2], 0} {
        const T s0 = static_cast<T>(s[0]), s1 = static_cast<T>(s[1]), s2 = static_cast<T>(s[2]);
        for (int a = 0; a < 3; ++a) offset[a] = translation(s0, s1, s2, cell, a);
    }
};

// The candidates of a bin. Numbers of candidates, and of moves, are of 16 bits where all fit, else (`wide`) of 32.
template <class T>
struct FoundBin {
    const std::uint32_t* places = nullptr;  // in the arrays of Bins
    const void* move_of = nullptr;          // by candidate, in moves
    const Move<T>* moves = nullptr;         // for a receiver whose wrap is zero
    bool wide = false;
};

// The neighbours of an atom, by the numbers of candidates.
struct FoundRow {
    const void* matches = nullptr;
    std::uint32_t bin = 0, place = 0;  // of the atom itself, in the arrays of Bins
};

template <class T>
struct Found {
    std::vector<Arena> arenas;  // one a thread
    std::vector<FoundBin<T>> bins;
    std::vector<FoundRow> rows;
};

// Numbers as 16 or 32 bits, in the arena.
const void* keep(Arena& arena, const std::uint32_t* numbers, std::size_t n, bool wide);

template <class T>
FoundBin<T> keep_candidates(Arena& arena, const Bins<T>& bins, const Cell<T>& cell, Candidates& c);

}  // namespace mdgnn::cpu
