// For every bin the candidates are gathered once, sorted by (j, S). Each of the bin's atoms then compares its distance
// to them in that order, so that rows come out in canonical order without being sorted. The first call counts, the
// second repeats the search and writes where the counts say.
//
// Parallelisation: bins over threads; every row is written by one thread.
//
// Cost per edge of a liquid, float64 ijSD, one thread: 2 ns to gather and select in each of the two calls, and 4 ns to
// write 64 bytes into the cache, 7 (rows in the order of space) to 12 (in random order) into memory.
//
// Alternatives that lost (ns per edge). Liquid of 2,048 atoms, this one 11: a loop for each array, 24; numbers of edges
// packed without AVX-512, and triples stored one by one, 15. 500 atoms, writing alone, this one 4: the shift in every
// candidate instead of a table, 5. Icosahedron of 147 atoms, this one 5: bins half as wide, a sort of every row,
// results in pieces that are joined, 40. 32,000 atoms, writing alone, this one 7: rows put together in the cache and
// streamed past it, 8; the lines of the next row fetched ahead, the same. 97,556 atoms in random order: bins in the
// order of their first atoms took twice as long.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "core/thread_pool.hpp"
#include "neighbors/candidates.hpp"
#include "neighbors/neighbors.hpp"
#include "neighbors/select.hpp"
#include "neighbors/write.hpp"

namespace mdgnn::cpu {

namespace {

constexpr std::size_t kKept = 1 << 16;  // candidates; memory for more, which a long cutoff needs, is given back

// Of a thread. A search that has one bin alone gathers once for its two calls.
template <class T>
struct Gathered {
    Candidates<T> candidates;
    std::uint64_t search = 0;  // whose only bin it is
};
template <class T>
Gathered<T>& gathered() {
    thread_local Gathered<T> kept;
    return kept;
}

}  // namespace

template <class T>
NeighborSearch<T>::NeighborSearch(const Structures<T>& structures, const NeighborOptions<T>& options)
    : structures_(structures), options_(options), limit_(largest_square_below(options.cutoff)) {
    static std::atomic<std::uint64_t> n_searches{0};
    id_ = ++n_searches;
    check_input(structures, options.cutoff);
    bins_ = std::make_unique<Bins<T>>(structures, options.cutoff);
}

template <class T>
NeighborSearch<T>::~NeighborSearch() = default;

template <class T>
template <class Row>
void NeighborSearch<T>::each_row(Row&& row) const {
    const auto n_bins = static_cast<std::int64_t>(bins_->bins.size());
    const auto& wraps = bins_->wraps;
    const std::int64_t grain = 256 / (structures_.positions.rows / (n_bins + 1) + 1) + 1;  // some 256 atoms
    const auto body = [&](std::int64_t begin, std::int64_t end) {
        auto& [c, gathered_for] = gathered<T>();
        for (std::int64_t b = begin; b < end; ++b) {
            const Bin& bin = bins_->bins[b];
            const Cell<T> cell = structures_.cell(bin.structure);
            std::array<std::int32_t, 3> wrap{};
            if (gathered_for != id_) {
                gather(*bins_, bin, c);
                if (wraps.empty()) translate(c, cell, wrap);
                gathered_for = n_bins == 1 ? id_ : 0;
            }
            c.receivers.resize(c.self.size());
            std::iota(c.receivers.begin(), c.receivers.end(), 0u);
            if (!wraps.empty())  // those of one cell together
                std::stable_sort(c.receivers.begin(), c.receivers.end(), [&](std::uint32_t p, std::uint32_t q) {
                    return wraps[bin.first + p] < wraps[bin.first + q];
                });
            for (const std::uint32_t place : c.receivers) {
                const std::int64_t i = bins_->order[bin.first + place];
                if (!wraps.empty() && (place == c.receivers.front() || wrap != wraps[bin.first + place])) {
                    wrap = wraps[bin.first + place];
                    translate(c, cell, wrap);
                }
                row(c, i, c.self[place]);
            }
        }
        if (c.j.capacity() > kKept) gathered<T>() = {};
    };
    parallel_for(n_bins, grain, options_.n_threads, body, Team::own);
}

// In a half list only what follows (i, 0) counts: the order is that of (j, S).
template <class T>
std::int64_t NeighborSearch<T>::select_edges(Candidates<T>& c, std::int64_t i, std::int64_t self, bool wanted) const {
    const bool by_pair(options_.pairs);
    std::uint32_t* const found = wanted || by_pair ? c.matches.data() : nullptr;
    const std::int64_t n =
        select(c, self, limit_, options_.half ? self : 0, options_.self_interaction ? -1 : self, found);
    return by_pair ? keep_pairs(c, i, self, n) : n;
}

// Of the first n matches those below the cutoffs of their pairs.
template <class T>
std::int64_t NeighborSearch<T>::keep_pairs(Candidates<T>& c, std::int64_t i, std::int64_t self, std::int64_t n) const {
    std::int64_t kept = 0;
    for (std::int64_t m = 0; m < n; ++m) {
        const std::uint32_t k = c.matches[m];
        const T distance = std::sqrt(square_to(c, k, c.places[self].r));
        c.matches[kept] = k;
        kept += distance < static_cast<T>(options_.pairs.of(i, c.j[k]));
    }
    return kept;
}

template <class T>
void NeighborSearch<T>::count(std::int64_t* row_ptr) const {
    row_ptr[0] = 0;
    each_row(
        [&](Candidates<T>& c, std::int64_t i, std::int64_t self) { row_ptr[i + 1] = select_edges(c, i, self, false); });
    for (std::int64_t i = 0; i < structures_.positions.rows; ++i) row_ptr[i + 1] += row_ptr[i];
}

template <class T>
void NeighborSearch<T>::fill(const std::int64_t* row_ptr, const EdgeArrays<T>& out) const {
    const Writer<T> write = choose_writer(out);
    each_row([&](Candidates<T>& c, std::int64_t i, std::int64_t self) {
        const std::int64_t n = select_edges(c, i, self, true);
        if (n != row_ptr[i + 1] - row_ptr[i])
            throw std::runtime_error("positions or cell changed while their neighbours were searched");
        write(c, i, c.places[self].r, n, from_edge(out, row_ptr[i]));
    });
    const std::int64_t n_atoms = structures_.positions.rows;
    if (out.reverse) reverse_edges(n_atoms, row_ptr, out.senders, out.reverse);
    if (out.reverse32) reverse_edges(n_atoms, row_ptr, out.senders32, out.reverse32);
}

template <class T>
void check_input(const Structures<T>& structures, T cutoff) {
    if (!(cutoff > 0)) throw std::invalid_argument("expected a positive cutoff, got " + in_words(cutoff));
    const Matrix<const T>& r = structures.positions;
    if (r.rows >= (std::int64_t{1} << 31)) throw std::invalid_argument("expected less than 2^31 atoms");
    for (std::int64_t i = 0; i < 3 * r.rows; ++i)
        if (!std::isfinite(r.data[i]))
            throw std::invalid_argument(
                neighbor_error(NeighborCode::position, i / 3, static_cast<double>(cutoff), in_words(r.data[i])));
    if (std::isinf(cutoff))
        for (std::int64_t k = 0; k < 3 * structures.n; ++k)
            if (structures.pbc[k])
                throw std::invalid_argument(
                    neighbor_error(NeighborCode::infinite_cutoff, -1, static_cast<double>(cutoff), ""));
}

template class NeighborSearch<float>;
template class NeighborSearch<double>;
template void check_input<float>(const Structures<float>&, float);
template void check_input<double>(const Structures<double>&, double);

}  // namespace mdgnn::cpu
