#include "fibers.hpp"

#include <sys/mman.h>

#include <new>

#include "block.hpp"

// What a call must preserve. A convergent warp returns from each switch to the same place, which the processor
// foresees.
#if defined(__x86_64__)
constexpr int kSavedWords = 6;
asm(R"(
.text
.globl emulation_switch_stacks
.type emulation_switch_stacks, @function
emulation_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulation_switch_stacks, .-emulation_switch_stacks
)");
#else
#error "emulated CUDA switches stacks on x86-64 only: add what a call must preserve on this processor"
#endif

namespace emulation {
namespace {

constexpr std::size_t kPage = 4096;

// Of the page below the most that a thread may use: words that none should change.
constexpr std::uint64_t kUntouched = 0x5ca1ab1e5ca1ab1e;
constexpr std::size_t kStep = 8, kSteps = kPage / sizeof kUntouched / kStep;
std::uint64_t* words_below_limit(char* stack) {
    return reinterpret_cast<std::uint64_t*>(stack + kStackBytes - kMostStackBytes - kPage);
}

char* stacks() {
    static char* const all = [] {
        void* p = mmap(nullptr, kStackBytes * kMostThreads, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        for (std::size_t t = 0; t < kMostThreads; ++t) {
            char* const stack = static_cast<char*>(p) + t * kStackBytes;
            mprotect(stack, kPage, PROT_NONE);
            for (std::size_t k = 0; k < kSteps; ++k) words_below_limit(stack)[k * kStep] = kUntouched;
        }
        return static_cast<char*>(p);
    }();
    return all;
}

// Stacks that begin at the same place of a page would share a few sets of the cache.
constexpr std::size_t spread(int fiber) { return static_cast<std::size_t>(fiber) * 10 * 64 % (4 * kPage); }

}  // namespace

std::uintptr_t stack_of(int fiber) {
    return reinterpret_cast<std::uintptr_t>(stacks() + static_cast<std::size_t>(fiber) * kStackBytes);
}

bool has_used_too_much(int fiber) {
    std::uint64_t* const words = words_below_limit(reinterpret_cast<char*>(stack_of(fiber)));
    bool changed = false;
    for (std::size_t k = 0; k < kSteps; ++k)
        if (std::uint64_t& word = words[k * kStep]; word != kUntouched) changed = true, word = kUntouched;
    return changed;
}

void* empty_stack(int fiber, void (*entry)()) {
    // A function begins 8 bytes below a multiple of 16.
    void** p = reinterpret_cast<void**>(stack_of(fiber) + kStackBytes - spread(fiber)) - 1;
    *--p = reinterpret_cast<void*>(entry);
    for (int k = 0; k < kSavedWords; ++k) *--p = nullptr;
    return p;
}

}  // namespace emulation
