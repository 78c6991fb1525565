#include "block.hpp"

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "fibers.hpp"
#include "report.hpp"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

Block block;
thread_local Thread* current = nullptr;

namespace {

Kernel running;
void* host_stack = nullptr;
Order chosen_order = Order::forward;
std::uint64_t random_state = 1;

int lowest(unsigned bits) { return std::countr_zero(bits); }
int highest(unsigned bits) { return 31 - std::countl_zero(bits); }
int any_of(unsigned bits) {
    for (auto skip = random_number() % static_cast<unsigned>(std::popcount(bits)); skip > 0; --skip) bits &= bits - 1;
    return lowest(bits);
}

// The next bit in the order, of bits of which one is set, from position `from` on and around.
int next_of(unsigned bits, int from) {
    if (chosen_order == Order::random) return any_of(bits);
    if (chosen_order == Order::backward) {
        const unsigned below = bits & ((1u << from) - 1);
        return highest(below ? below : bits);
    }
    const unsigned above = bits & (~1u << from);
    return lowest(above ? above : bits);
}

// The thread that runs next; lanes of a warp follow each other. -1: none is ready.
int next_thread(int thread) {
    if (block.ready_warps == 0) return -1;
    int warp = thread / kWarp, lane = thread % kWarp;
    if (chosen_order == Order::random || block.warps[warp].ready == 0) {
        warp = next_of(block.ready_warps, warp);
        lane = chosen_order == Order::backward ? 0 : kWarp - 1;  // around, to the warp's first
    }
    return warp * kWarp + next_of(block.warps[warp].ready, lane);
}

void set_waiting(int thread) {
    Warp& warp = block.warps[thread / kWarp];
    warp.ready &= ~(1u << thread % kWarp);
    if (warp.ready == 0) block.ready_warps &= ~(1u << thread / kWarp);
}

void become(int thread) {
    current = &block.threads[thread];
    threadIdx = current->index;
}

// From `me` to the next thread that is ready, or to the host where there is none.
void switch_from(Thread* me) {
    const int next = next_thread(number_of(me));
    if (next < 0) {
        current = nullptr;
        emulation_switch_stacks(&me->stack_pointer, host_stack);
    } else if (next != number_of(me)) {
        become(next);
        emulation_switch_stacks(&me->stack_pointer, current->stack_pointer);
    }
}

void run_thread() {
    running.call(running.function, running.parameters);
    Thread* const me = current;
    const int thread = number_of(me);
    set_waiting(thread);
    block.warps[thread / kWarp].alive &= ~(1u << thread % kWarp);
    --block.n_alive;
    finish_collectives_without(thread);
    switch_from(me);
    std::abort();
}

void begin(std::uint64_t number) {
    block.number = number;
    block.n_threads = block.n_alive = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    block.n_in_barrier = 0, block.n_barriers = 0, block.ready_warps = 0;
    for (int t = 0; t < block.n_threads; ++t) {
        Thread& thread = block.threads[t];
        const auto n = static_cast<unsigned>(t);
        thread.index = dim3(n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y);
        thread.stack_pointer = empty_stack(t, run_thread);
    }
    for (int w = 0; w * kWarp < block.n_threads; ++w) {
        const int n = block.n_threads - w * kWarp;
        block.warps[w].alive = n >= kWarp ? ~0u : (1u << n) - 1;
        block.warps[w].waiting = 0;
        set_ready(w, block.warps[w].alive);
    }
}

void report_deadlock() {
    std::map<std::string, std::vector<int>> places;
    for (int t = 0; t < block.n_threads; ++t)
        if (block.warps[t / kWarp].alive >> (t % kWarp) & 1) places[in_words(block.threads[t].meeting)].push_back(t);
    std::string text = "threads of block " + std::to_string(block.number) + " wait for ever: ";
    for (const auto& [place, threads] : places)
        text +=
            std::to_string(threads.size()) + " from thread " + std::to_string(threads[0]) + " on in " + place + "; ";
    fail(text + std::to_string(block.n_threads - block.n_alive) + " have ended");
}

}  // namespace

void run_block(const Kernel& kernel, std::uint64_t number) {
    running = kernel;
    begin(number);
    become(chosen_order == Order::backward ? block.n_threads - 1 : 0);
    emulation_switch_stacks(&host_stack, current->stack_pointer);
    if (block.n_alive > 0 && failure().empty()) report_deadlock();
}

void stop_for_a_while() { switch_from(current); }

void leave_kernel() {
    Thread* const me = current;
    current = nullptr;
    emulation_switch_stacks(&me->stack_pointer, host_stack);
    std::abort();
}

void set_ready(int warp, unsigned lanes) {
    block.warps[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

void wait_for_others() {
    set_waiting(number_of(current));
    switch_from(current);
}

Order order() { return chosen_order; }

void set_order(const char* text) {
    const std::string given(text);
    if (given == "forward")
        chosen_order = Order::forward;
    else if (given == "backward")
        chosen_order = Order::backward;
    else if (given.starts_with("random:")) {
        chosen_order = Order::random;
        random_state = std::strtoull(given.c_str() + 7, nullptr, 10) * 0x9E3779B97F4A7C15u + 1;
    } else {
        stop("expected the order forward, backward or random:SEED, got " + given);
    }
}

std::uint32_t random_number() {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return static_cast<std::uint32_t>(random_state >> 16);
}

}  // namespace emulation
