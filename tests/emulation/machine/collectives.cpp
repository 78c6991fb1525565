// Where threads wait for each other: the lanes of a mask, or the block. Those that meet must be in the same call with
// the same mask; CUDA leaves undefined what happens otherwise. Lanes that have ended are not waited for.
#include <cstring>
#include <string>

#include "block.hpp"
#include "memory.hpp"
#include "report.hpp"
#include "traffic.hpp"

namespace emulation {
namespace {

bool same_place(const Meeting& a, const Meeting& b) {
    return a.collective == b.collective && a.mask == b.mask && a.site.line == b.site.line &&
           (a.site.file == b.site.file || std::strcmp(a.site.file, b.site.file) == 0);
}

// The lane whose value a shuffle gives to `lane`; beyond the warp a lane keeps its own.
int source_of_shuffle(const Meeting& meeting, int lane) {
    const int distance = meeting.argument;
    switch (meeting.collective) {
        case Collective::shfl:
            return distance & (kWarp - 1);
        case Collective::shfl_up:
            return lane < distance ? lane : lane - distance;
        case Collective::shfl_down:
            return lane + distance >= kWarp ? lane : lane + distance;
        default:
            return (lane ^ distance) & (kWarp - 1);
    }
}

[[gnu::noinline, gnu::cold]] void refuse_shuffle(int source, const Meeting& meeting) {
    fail("a shuffle reads lane " + std::to_string(source) + ", which is not there: " + in_words(meeting));
}

// The results of lanes that have all come.
void exchange(Warp& warp, int first_thread, unsigned lanes, Collective collective) {
    unsigned votes = 0;
    if (collective == Collective::ballot)
        for (unsigned left = lanes; left; left &= left - 1)
            if (const int lane = std::countr_zero(left); warp.values[lane]) votes |= 1u << lane;
    for (unsigned left = lanes; left; left &= left - 1) {
        const int lane = std::countr_zero(left);
        if (collective == Collective::ballot) {
            warp.results[lane] = votes;
        } else if (collective == Collective::match_any) {
            unsigned same = 0;
            for (unsigned others = lanes; others; others &= others - 1)
                if (const int o = std::countr_zero(others); warp.values[o] == warp.values[lane]) same |= 1u << o;
            warp.results[lane] = same;
        } else {
            const Meeting& meeting = block.threads[first_thread + lane].meeting;
            const int source = source_of_shuffle(meeting, lane);
            if (!(lanes >> source & 1)) refuse_shuffle(source, meeting);
            warp.results[lane] = warp.values[source];
        }
    }
}

void finish_if_all_are_here(int number, unsigned mask) {
    Warp& warp = block.warps[number];
    const unsigned lanes = mask & warp.alive;
    if (lanes == 0 || (lanes & ~warp.waiting)) return;
    const int first_thread = number * kWarp;
    const Collective collective = block.threads[first_thread + std::countr_zero(lanes)].meeting.collective;
    if (collective == Collective::syncwarp) {
        if (checked()) order_lanes(first_thread, lanes);
    } else {
        exchange(warp, first_thread, lanes, collective);
    }
    if (lanes == warp.alive) end_accesses_of_warp(number);
    warp.waiting &= ~lanes;
    set_ready(number, lanes);
}

void finish_barrier_if_all_are_here() {
    if (block.n_in_barrier == 0 || block.n_in_barrier < block.n_alive) return;
    block.n_in_barrier = 0;
    ++block.n_barriers;
    end_accesses_of_block();
    for (int w = 0; w * kWarp < block.n_threads; ++w)
        if (block.warps[w].alive) set_ready(w, block.warps[w].alive);
}

// Apart, so that the words cost nothing where there is no fault.
[[gnu::noinline, gnu::cold]] void refuse(const char* what, const Meeting& meeting) {
    fail(what + (": " + in_words(meeting)));
}
[[gnu::noinline, gnu::cold]] void refuse(const char* whose, const Meeting& first, const Meeting& second) {
    fail(std::string(whose) + " meet in different calls: " + in_words(first) + " and " + in_words(second));
}

void check_arrival(int thread, const Meeting& mine) {
    const Warp& warp = block.warps[thread / kWarp];
    if (!(mine.mask >> (thread % kWarp) & 1)) refuse("a lane is not in its own mask", mine);
    const int n_lanes = block.n_threads - thread / kWarp * kWarp;
    if (n_lanes < kWarp && mine.mask >> n_lanes) refuse("a mask names lanes beyond the block", mine);
    if (const unsigned others = mine.mask & warp.waiting) {
        const Meeting& other = block.threads[thread / kWarp * kWarp + std::countr_zero(others)].meeting;
        if (!same_place(mine, other)) refuse("lanes of a warp", other, mine);
    }
}

// A barrier is compared with the one that the first thread waits in.
void check_barrier(int thread, const Meeting& mine) {
    if (block.n_in_barrier == 0) block.first_in_barrier = thread;
    const Meeting& other = block.threads[block.first_in_barrier].meeting;
    if (!same_place(mine, other)) refuse("threads of a block", other, mine);
}

}  // namespace

std::uint64_t meet(Collective collective, unsigned mask, std::uint64_t value, int argument, CallSite site) {
    Thread* const me = current;
    if (!me) stop("a collective is called outside of a kernel");
    const int thread = number_of(me);
    Warp& warp = block.warps[thread / kWarp];
    const unsigned lane = 1u << thread % kWarp;
    Meeting& mine = me->meeting;  // field by field: what is written in parts and read as a whole is slow
    mine.collective = collective, mine.mask = mask, mine.argument = argument;
    mine.site.file = site.file, mine.site.line = site.line;
    if (collective == Collective::syncthreads) {
        check_barrier(thread, mine);
        ++block.n_in_barrier;
        warp.ready &= ~lane;
        finish_barrier_if_all_are_here();
    } else {
        check_arrival(thread, mine);
        warp.values[thread % kWarp] = value;
        warp.waiting |= lane;
        warp.ready &= ~lane;
        finish_if_all_are_here(thread / kWarp, mask);
    }
    if (!(warp.ready & lane)) wait_for_others();
    return warp.results[thread % kWarp];
}

void finish_collectives_without(int thread) {
    const int number = thread / kWarp;
    for (int lane = 0; lane < kWarp; ++lane) {
        if (!(block.warps[number].waiting >> lane & 1)) continue;
        const unsigned mask = block.threads[number * kWarp + lane].meeting.mask;
        if (mask >> (thread % kWarp) & 1) finish_if_all_are_here(number, mask);
    }
    finish_barrier_if_all_are_here();
}

}  // namespace emulation
