// The gradient of a table, interval by interval. Edges are sorted by the interval that they fall into; all of an
// interval are then added up in the nearest cache, and its coefficients written once. Each interval is summed by one
// thread in edge order: no bits depend on the number of threads.
// Alternative that lost: edges in the order of receivers, in up to 16 blocks with a table each, which are added up. The
// coefficients of a random interval come from and go to the second cache for every edge, and tables of 3 MB (PaiNN, 64
// features) are cleared and added: 10 times for PaiNN and 2 to 5 times for cfconv at 561 atoms. At 6,525 atoms, where
// rows of atoms come from farther away, 1.4 to 2.7 times for PaiNN; for cfconv 0.5 to 1.3 times in runs that other work
// disturbed: not settled.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/thread_pool.hpp"
#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::cpu {

template <class T>
struct IntervalEdge {
    std::int64_t receiver = 0, sender = 0, edge = 0;
    T t = 0;
};

// Sets `out`, the gradient of the coefficients: body(g, edges, sums) adds to the coefficients of interval g what its
// edges contribute. `rows` are those of receivers.
template <class T, class Body>
void sum_by_interval(const Rows& rows, const RadialTable<T>& table, const T* r, T* out, const Context& context,
                     Body&& body) {
    const std::int64_t n_edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0, size = 4 * table.width;
    const std::size_t n_intervals = static_cast<std::size_t>(table.n_intervals);
    std::vector<std::int64_t> next(n_intervals + 1, 0);  // where the next edge of an interval goes
    T t;
    for (std::int64_t e = 0; e < n_edges; ++e)
        if (r[e] < table.cutoff) ++next[static_cast<std::size_t>(interval_of(table, r[e], t)) + 1];
    for (std::size_t g = 0; g < n_intervals; ++g) next[g + 1] += next[g];
    std::vector<IntervalEdge<T>> edges(static_cast<std::size_t>(next[n_intervals]));
    for (std::int64_t i = 0; i < rows.n_rows; ++i)
        for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
            if (!(r[k] < table.cutoff)) continue;
            const std::int64_t g = interval_of(table, r[k], t);
            edges[static_cast<std::size_t>(next[static_cast<std::size_t>(g)]++)] = {i, rows.index[k], k, t};
        }
    // Now each interval ends at its `next`.
    const std::int64_t grain = 65536 / ((n_edges / table.n_intervals + 1) * (size + 64)) + 1;
    parallel_for(table.n_intervals, grain, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        std::fill(out + begin * size, out + end * size, T(0));
        for (std::int64_t g = begin; g < end; ++g) {
            const std::int64_t first = g > 0 ? next[static_cast<std::size_t>(g) - 1] : 0;
            const std::int64_t n = next[static_cast<std::size_t>(g)] - first;
            if (n > 0)
                body(g, std::span<const IntervalEdge<T>>(edges.data() + first, static_cast<std::size_t>(n)),
                     out + g * size);
        }
    });
}

}  // namespace mdgnn::cpu
