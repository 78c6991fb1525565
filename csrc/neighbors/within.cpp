// Filtering a list that was made with a skin: one pass that counts, one that writes.
// Parallelisation: rows over threads. Memory traffic: the list twice, the result once.
#include <stdexcept>

#include "core/thread_pool.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kGrain = 128;  // rows

// Calls f(k, d) for the edges k of row i that are short enough, and returns how many there are.
template <class T, class F>
inline std::int64_t each_edge(const Structures<T>& structure, const Cell<T>& cell, const ListView& list, T limit,
                              std::int64_t i, F&& f) {
    const T* ri = structure.positions.row(i);
    std::int64_t n = 0;
    for (std::int64_t k = list.row_ptr[i]; k < list.row_ptr[i + 1]; ++k) {
        T d[3];
        edge_vector(ri, structure.positions.row(list.senders[k]), list.shifts + 3 * k, cell, d);
        if (squared(d[0], d[1], d[2]) <= limit) f(k, d), ++n;
    }
    return n;
}

}  // namespace

template <class T>
void count_within(const Structures<T>& structure, const NeighborOptions<T>& options, const ListView& list,
                  std::int64_t* row_ptr) {
    check_input(structure, options.cutoff);
    const Cell<T> cell = structure.cell(0);
    const T limit = largest_square_below(options.cutoff);
    const std::int64_t n = structure.positions.rows;
    row_ptr[0] = 0;
    parallel_for(n, kGrain, options.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            row_ptr[i + 1] = each_edge(structure, cell, list, limit, i, [](std::int64_t, const T*) {});
    });
    for (std::int64_t i = 0; i < n; ++i) row_ptr[i + 1] += row_ptr[i];
}

template <class T>
void fill_within(const Structures<T>& structure, const NeighborOptions<T>& options, const ListView& list,
                 const std::int64_t* row_ptr, const EdgeArrays<T>& out) {
    const Cell<T> cell = structure.cell(0);
    const T limit = largest_square_below(options.cutoff);
    parallel_for(structure.positions.rows, kGrain, options.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            std::int64_t to = row_ptr[i];
            const auto changed = [] {
                throw std::runtime_error("positions or cell changed while their neighbours were searched");
            };
            const std::int64_t n = each_edge(structure, cell, list, limit, i, [&](std::int64_t k, const T* d) {
                if (to == row_ptr[i + 1]) changed();
                if (out.receivers) out.receivers[to] = i;
                if (out.senders) out.senders[to] = list.senders[k];
                for (int a = 0; a < 3; ++a) {
                    if (out.shifts32) out.shifts32[3 * to + a] = list.shifts[3 * k + a];
                    if (out.vectors) out.vectors[3 * to + a] = d[a];
                }
                if (out.distances) out.distances[to] = std::sqrt(squared(d[0], d[1], d[2]));
                ++to;
            });
            if (n != row_ptr[i + 1] - row_ptr[i]) changed();
        }
    });
}

#define MDGNN_INSTANTIATE(T)                                                                                        \
    template void count_within<T>(const Structures<T>&, const NeighborOptions<T>&, const ListView&, std::int64_t*); \
    template void fill_within<T>(const Structures<T>&, const NeighborOptions<T>&, const ListView&,                  \
                                 const std::int64_t*, const EdgeArrays<T>&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
