// Threads for the loops of kernels. Callers pass the number of threads (torch's by default).
#pragma once

#include <cstdint>
#include <functional>

namespace mdgnn {

// own: a small persistent pool, whose workers sleep between calls. Where other programs want the cores, it costs
// nothing. openmp: the threads that torch's operators run on, where torch has brought its runtime; else own. They spin
// for milliseconds after each operator, and own threads would have to compete with them: kernels between operators
// took 1.3 to 2 times as long. On a busy machine they are slow, as torch is.
enum class Team { own, openmp };

// Calls body(begin, end) over [0, n) in chunks of at most `grain`, on up to n_threads threads including the caller's.
// Chunks are handed out dynamically: a body must write only to places owned by its own indices, which also makes every
// result independent of n_threads. The first exception of a body is rethrown here. When the pool is busy (a second
// Python thread, a nested call) the caller does all the work itself.
void parallel_for(std::int64_t n, std::int64_t grain, int n_threads,
                  const std::function<void(std::int64_t, std::int64_t)>& body, Team team = Team::openmp);

}  // namespace mdgnn
