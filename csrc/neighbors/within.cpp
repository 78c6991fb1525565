// Filtering a list that was made with a skin: one pass that counts, one that writes, both without a branch for each
// edge, which would often be guessed wrong.
//
// Parallelisation: rows over threads. Memory traffic: the list twice, the result once.
#include <stdexcept>
#include <vector>

#include "core/thread_pool.hpp"
#include "neighbors/neighbors.hpp"
#include "neighbors/write.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kGrain = 128;  // rows

// The vectors of a list's edges. Triples are kept in fours, as in Bins.
template <class T>
class Vectors {
  public:
    using V = typename Four<T>::type;

    Vectors(const Structures<T>& structure, const ListView& list) : list_(list), places_(structure.positions.rows) {
        const Cell<T> cell = structure.cell(0);
        for (int k = 0; k < 3; ++k) cell_[k] = V{cell.rows[k][0], cell.rows[k][1], cell.rows[k][2], T(0)};
        for (std::int64_t i = 0; i < structure.positions.rows; ++i)
            for (int c = 0; c < 3; ++c) places_[i].r[c] = structure.positions.row(i)[c];
    }

    // Of edge k, in row i; returns the square of its length. The order of operations is that of edge_vector.
    inline __attribute__((always_inline)) T operator()(std::int64_t i, std::int64_t k, V& d) const {
        const std::int32_t* s = list_.shifts + 3 * k;
        const T a = static_cast<T>(s[0]), b = static_cast<T>(s[1]), c = static_cast<T>(s[2]);
        V ri, rj;
        load_four<T>(places_[i].r, ri), load_four<T>(places_[list_.senders[k]].r, rj);
        d = (rj - ri) + ((a * cell_[0] + b * cell_[1]) + c * cell_[2]);
        return squared<T>(d[0], d[1], d[2]);
    }

  private:
    ListView list_;
    V cell_[3];
    std::vector<Place<T>> places_;
};

}  // namespace

template <class T>
void count_within(const Structures<T>& structure, const NeighborOptions<T>& options, const ListView& list,
                  std::int64_t* row_ptr) {
    check_input(structure, options.cutoff);
    const Vectors<T> vector_of(structure, list);
    const T limit = largest_square_below(options.cutoff);
    const std::int64_t n = structure.positions.rows;
    row_ptr[0] = 0;
    parallel_for(n, kGrain, options.n_threads, [&](std::int64_t begin, std::int64_t end) {
        typename Four<T>::type d;
        for (std::int64_t i = begin; i < end; ++i) {
            std::int64_t count = 0;
            for (std::int64_t k = list.row_ptr[i]; k < list.row_ptr[i + 1]; ++k) count += vector_of(i, k, d) <= limit;
            row_ptr[i + 1] = count;
        }
    });
    for (std::int64_t i = 0; i < n; ++i) row_ptr[i + 1] += row_ptr[i];
}

template <class T>
void fill_within(const Structures<T>& structure, const NeighborOptions<T>& options, const ListView& list,
                 const std::int64_t* row_ptr, const EdgeArrays<T>& out) {
    const Vectors<T> vector_of(structure, list);
    const T limit = largest_square_below(options.cutoff);
    parallel_for(structure.positions.rows, kGrain, options.n_threads, [&](std::int64_t begin, std::int64_t end) {
        typename Four<T>::type d;
        for (std::int64_t i = begin; i < end; ++i) {
            std::int64_t to = row_ptr[i], k = list.row_ptr[i];
            const std::int64_t last = row_ptr[i + 1] - 1;
            std::fill(out.receivers + to, out.receivers + last + 1, i);
            // Every edge is written; the next one takes its place if it is too long.
            for (; k < list.row_ptr[i + 1] && to <= last; ++k) {
                const T square = vector_of(i, k, d);
                out.senders[to] = list.senders[k];
                for (int c = 0; c < 3; ++c) out.shifts32[3 * to + c] = list.shifts[3 * k + c];
                store_triple(out.vectors, to, d, to == last);
                out.distances[to] = std::sqrt(square);
                to += square <= limit;
            }
            std::int64_t missing = last + 1 - to;
            for (; k < list.row_ptr[i + 1]; ++k) missing += vector_of(i, k, d) <= limit;
            if (missing != 0)
                throw std::runtime_error("positions or cell changed while their neighbours were searched");
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
