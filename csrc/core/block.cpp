// A handful of slots, taken and given by atomic exchange: no lock that a fork could leave held.
#include "core/block.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace mdgnn {

#if defined(__linux__) && defined(MADV_FREE)
namespace {

constexpr std::size_t kHugePage = std::size_t{1} << 21, kHeader = 64;

// At the start of a block; the caller's memory follows. Its page is never given away.
struct Block {
    std::size_t bytes;  // of the whole mapping; zero: malloc's
};

// An array of results takes one, a search some more, and a few for each thread.
std::array<std::atomic<Block*>, 64> free_blocks{};
std::atomic<std::size_t> kept_bytes{0}, kept_small{0};  // small: of those that are not offered to the system
constexpr std::size_t kMostSmall = std::size_t{1} << 26;

bool is_small(const Block* block) { return block->bytes < 2 * kHugePage; }

void count(const Block* block, bool comes) {
    const std::size_t change = comes ? block->bytes : -block->bytes;
    kept_bytes += change;
    if (is_small(block)) kept_small += change;
}

std::size_t page_size() {
    static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

std::size_t most_kept() {
    static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page_size() / 8;
    return bytes;
}

Block* take(std::atomic<Block*>& slot) {
    if (!slot.load(std::memory_order_relaxed)) return nullptr;
    Block* block = slot.exchange(nullptr, std::memory_order_acq_rel);
    if (block) count(block, false);
    return block;
}

void unmap(Block* block) { munmap(block, block->bytes); }

// Gives a block to a free slot, or to the next one in turn, whose block goes: sizes that are no longer asked for do not
// stay for ever.
void keep(Block* block) {
    static std::atomic<unsigned> turn{0};
    count(block, true);
    for (auto& slot : free_blocks) {
        Block* none = nullptr;
        if (slot.load(std::memory_order_relaxed)) continue;
        if (slot.compare_exchange_strong(none, block, std::memory_order_acq_rel)) return;
    }
    Block* old = free_blocks[turn++ % free_blocks.size()].exchange(block, std::memory_order_acq_rel);
    if (!old) return;
    count(old, false);
    unmap(old);
}

// A free block of at least so many bytes, and a quarter more at most: a larger one is for another result.
Block* reuse(std::size_t bytes) {
    for (auto& slot : free_blocks) {
        Block* block = take(slot);
        if (!block) continue;
        if (block->bytes >= bytes && block->bytes - bytes <= bytes / 4) return block;
        keep(block);
    }
    return nullptr;
}

// Sizes of consecutive results differ a little: the next one should fit. What is not touched takes no memory.
std::size_t rounded(std::size_t bytes) {
    std::size_t unit = page_size();
    while (unit < bytes / 16) unit *= 2;
    return (bytes + unit - 1) / unit * unit;
}

Block* map(std::size_t bytes) {
    const std::size_t spare = bytes >= kHugePage ? kHugePage : 0;  // to align the start
    void* p = mmap(nullptr, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    if (spare) {
        auto* first = static_cast<char*>(p);
        const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(first) % kHugePage) % kHugePage;
        if (before) munmap(first, before);
        if (spare > before) munmap(first + before + bytes, spare - before);
        p = first + before;
        madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    }
    return new (p) Block{bytes};
}

}  // namespace

void* allocate_block(std::size_t bytes) {
    if (bytes < kSmallestBlock) {
        void* p = std::malloc(bytes + kHeader);
        if (!p) throw std::bad_alloc();
        return reinterpret_cast<char*>(new (p) Block{0}) + kHeader;
    }
    const std::size_t whole = rounded(bytes + kHeader);
    if (whole < bytes) throw std::bad_alloc();
    Block* block = reuse(whole);
    if (!block) block = map(whole);
    return reinterpret_cast<char*>(block) + kHeader;
}

void free_block(void* memory) noexcept {
    if (!memory) return;
    auto* block = reinterpret_cast<Block*>(static_cast<char*>(memory) - kHeader);
    if (block->bytes == 0) return std::free(block);
    if (kept_bytes + block->bytes > most_kept() || (is_small(block) && kept_small + block->bytes > kMostSmall))
        return unmap(block);
    // Whole huge pages alone, which would be split otherwise; the first one holds the header. Page by page it would
    // cost smaller blocks a tenth of what their list does.
    if (!is_small(block))
        madvise(reinterpret_cast<char*>(block) + kHugePage, block->bytes / kHugePage * kHugePage - kHugePage,
                MADV_FREE);
    keep(block);
}
#else
void* allocate_block(std::size_t bytes) {
    void* memory = std::malloc(bytes);
    if (!memory) throw std::bad_alloc();
    return memory;
}

void free_block(void* memory) noexcept { std::free(memory); }
#endif

}  // namespace mdgnn
