// The block that runs. Blocks run one after another, and of a block one thread at a time, until it waits for others.
#pragma once

#include <cstdint>

#include "cuda_runtime.h"

namespace emulation {

constexpr int kWarp = 32, kMostThreads = 1024;

// Where a thread waits for others.
struct Meeting {
    Collective collective = Collective::syncthreads;
    unsigned mask = 0;
    int argument = 0;
    CallSite site = {};
};

struct Thread {
    void* stack_pointer = nullptr;
    dim3 index;
    Meeting meeting;
};

// Lanes as bits.
struct Warp {
    unsigned alive = 0;    // have not ended
    unsigned ready = 0;    // wait for nobody
    unsigned waiting = 0;  // in a collective of the warp
    std::uint64_t values[kWarp], results[kWarp];
};

struct Block {
    std::uint64_t number = 0;
    int n_threads = 0, n_alive = 0;
    int n_in_barrier = 0, first_in_barrier = 0;  // threads that wait in __syncthreads
    std::uint32_t n_barriers = 0;                // __syncthreads that are over
    unsigned ready_warps = 0;
    Warp warps[kMostThreads / kWarp];
    Thread threads[kMostThreads];
};
extern Block block;

// The thread that runs on this host thread; null while none does.
extern thread_local Thread* current __attribute__((tls_model("initial-exec")));
inline int number_of(const Thread* thread) { return static_cast<int>(thread - block.threads); }

// The order of blocks, and of threads that are ready. In a random one threads also stop at accesses to memory.
enum class Order { forward, backward, random };
Order order();
void set_order(const char* text);  // forward, backward or random:SEED
std::uint32_t random_number();

// Runs all threads of block `number`; a fault is in failure().
void run_block(const Kernel& kernel, std::uint64_t number);

// Lets other threads run first: this one waits for nobody.
void stop_for_a_while();
// Leaves the kernel for good.
[[noreturn]] void leave_kernel();

// --- for collectives.cpp ---

void set_ready(int warp, unsigned lanes);
// The current thread waits; until another one sets it ready, others run.
void wait_for_others();
// Collectives that waited for a thread, which has ended, alone.
void finish_collectives_without(int thread);

}  // namespace emulation
