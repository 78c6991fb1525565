// Threads for the loops of kernels: those of OpenMP where torch has brought its runtime, else a small persistent pool
// whose workers sleep between calls. Callers pass the number of threads (torch's by default).
#pragma once

#include <cstdint>
#include <functional>

namespace mdgnn {

// Calls body(begin, end) over [0, n) in chunks of at most `grain`, on up to n_threads threads including the caller's.
// Chunks are handed out dynamically: a body must write only to places owned by its own indices, which also makes every
// result independent of n_threads. The first exception of a body is rethrown here. When the pool is busy (a second
// Python thread, a nested call) the caller does all the work itself.
void parallel_for(std::int64_t n, std::int64_t grain, int n_threads,
                  const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace mdgnn
