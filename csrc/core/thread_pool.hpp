// Threads for the loops of kernels. Callers pass the number of threads (torch's by default).
#pragma once

#include <cstdint>
#include <functional>

namespace mdgnn {

// own: a small persistent pool, whose workers sleep between calls, 50 us after the last one, and yield before. Where
// other programs want the cores, it costs nothing. openmp: the threads that torch's operators run on, where torch has
// brought its runtime; else own. They spin for milliseconds after each operator, and own threads would have to compete
// with them: kernels between operators took 1.3 to 2 times as long. Where another program has one of their cores, a
// loop waits milliseconds for a helper that has nothing left to do (0.3 ms of the engine's work took 48): seen in
// three loops, the next ones go to the own pool for a second.
enum class Team { own, openmp };

void run_in_parallel(std::int64_t n, std::int64_t grain, int n_threads,
                     const std::function<void(std::int64_t, std::int64_t)>& body, Team team);

// Calls body(begin, end) over [0, n) in chunks of at most `grain`, on up to n_threads threads including the caller's.
// Chunks are handed out dynamically: a body must write only to places owned by its own indices, which also makes every
// result independent of n_threads. The first exception of a body is rethrown here. When the pool is busy (a second
// Python thread, a nested call) the caller does all the work itself.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, int n_threads, const Body& body, Team team = Team::openmp) {
    if (n <= 0) return;
    if (n_threads < 2 || n <= grain) return body(std::int64_t{0}, n);
    run_in_parallel(n, grain, n_threads, std::ref(body), team);
}

}  // namespace mdgnn
