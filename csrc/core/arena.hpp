// Memory for many arrays, in blocks that stay where they are and go together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/block.hpp"

namespace mdgnn {

// Contents are not set. On cache lines of its own: its neighbours may be other threads'.
class alignas(64) Arena {
  public:
    Arena() = default;
    Arena(Arena&& other) noexcept { swap(other); }
    Arena& operator=(Arena&& other) noexcept {
        Arena(std::move(other)).swap(*this);
        return *this;
    }
    ~Arena() {
        for (void* block : blocks_) free_block(block);
    }

    // Makes room in one block.
    void reserve(std::size_t bytes) {
        if (!blocks_.empty() && bytes <= size_ - used_) return;
        const std::size_t size = std::max({bytes, kFirst, total_});  // as much again, so that there are few blocks
        blocks_.reserve(blocks_.size() + 1);
        blocks_.push_back(allocate_block(size));
        size_ = size, used_ = 0, total_ += size;
    }

    // Where n numbers may be written, of which `take` keeps some; or an array of n.
    template <class V>
    V* room(std::size_t n) {
        reserve(n * sizeof(V));
        return reinterpret_cast<V*>(static_cast<char*>(blocks_.back()) + used_);
    }
    template <class V>
    void take(std::size_t n) {
        used_ = std::min(size_, (used_ + n * sizeof(V) + kAlign - 1) / kAlign * kAlign);
    }
    template <class V>
    V* array(std::size_t n) {
        V* const begin = room<V>(n);
        take<V>(n);
        return begin;
    }

    std::size_t bytes() const { return total_; }

    static constexpr std::size_t kAlign = 16;

  private:
    void swap(Arena& other) noexcept {
        std::swap(blocks_, other.blocks_), std::swap(size_, other.size_);
        std::swap(used_, other.used_), std::swap(total_, other.total_);
    }

    static constexpr std::size_t kFirst = std::size_t{1} << 12;
    std::vector<void*> blocks_;
    std::size_t size_ = 0, used_ = 0, total_ = 0;  // of the last block; of all
};

}  // namespace mdgnn
