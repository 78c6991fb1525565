// For every bin the candidates are gathered once, sorted by (j, S). Each of the bin's atoms then compares its distance
// to them in that order, so that rows come out in canonical order without being sorted. The first call counts, the
// second repeats the search and writes where the counts say. Distances are compared in float32, relative to the bin;
// only what lies within rounding of the cutoff is decided by the exact edge vector.
//
// Parallelisation: bins over threads; every row is written by one thread.
//
// Cost per edge of a liquid: 3.5 to 5 candidates are tested in each call, SIMD over candidates. What is written is
// written once, into exact-size arrays.
//
// Alternatives that lost (ns per edge, float64 ijSD, one thread). Liquid of 2,048 atoms, this one 15: exact distances
// for all candidates and a loop for each array, 24. Icosahedron of 147 atoms, this one 8: bins half as wide, a sort of
// every row, results in pieces that are joined, 40.
#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "neighbors/candidates.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cpu {
namespace {

// Squares of the distances of candidates begin .. begin + n from a place, roughly.
template <class T>
inline __attribute__((always_inline)) void rough_squares(const Candidates<T>& c, const float* at, std::int64_t begin,
                                                         std::int64_t n, float* d2) {
    const float *x = c.x.data() + begin, *y = c.y.data() + begin, *z = c.z.data() + begin;
    const float x0 = at[0], y0 = at[1], z0 = at[2];
    for (std::int64_t l = 0; l < n; ++l) d2[l] = squared(x[l] - x0, y[l] - y0, z[l] - z0);
}

template <class T>
inline void vector_to(const Candidate<T>& c, const T* ri, T* d) {
    for (int a = 0; a < 3; ++a) d[a] = (c.r[a] - ri[a]) + c.offset[a];
}

template <class T>
inline bool is_edge(const Candidate<T>& c, const T* ri, T limit) {
    T d[3];
    vector_to(c, ri, d);
    return squared(d[0], d[1], d[2]) <= limit;
}

constexpr std::int64_t kTile = 256;

// Writes the numbers base + l of the flags that are 1. Without a branch, which would often be guessed wrong.
inline std::int64_t compact(const std::uint8_t* flags, std::int64_t width, std::uint32_t base,
                            std::uint32_t* __restrict out) {
    std::uint32_t* end = out;
    for (std::int64_t l = 0; l < width; ++l) {
        *end = base + static_cast<std::uint32_t>(l);
        end += flags[l];
    }
    return end - out;
}

// How many candidates from `first` on are edges. The rough squares decide, but for the few near the cutoff.
template <class T>
inline __attribute__((always_inline)) std::int64_t count_row(const Candidates<T>& c, std::int64_t first,
                                                             const float* at, const T* ri, T limit) {
    float d2[kTile];
    std::int64_t n = 0;
    for (std::int64_t begin = first; begin < c.size(); begin += kTile) {
        const std::int64_t width = std::min(kTile, c.size() - begin);
        rough_squares(c, at, begin, width, d2);
        std::int32_t sure = 0, possible = 0;
        for (std::int64_t l = 0; l < width; ++l) sure += d2[l] < c.inside, possible += d2[l] <= c.outside;
        n += sure;
        if (possible == sure) continue;
        for (std::int64_t l = 0; l < width; ++l)
            if (d2[l] >= c.inside && d2[l] <= c.outside) n += is_edge(c.sorted[begin + l], ri, limit);
    }
    return n;
}

// The numbers of the candidates that are edges, but for `self`.
template <class T>
inline __attribute__((always_inline)) std::int64_t match_row(const Candidates<T>& c, std::int64_t first,
                                                             const float* at, const T* ri, T limit, std::int64_t self,
                                                             std::uint32_t* found) {
    float d2[kTile];
    std::int64_t n = 0;
    for (std::int64_t begin = first; begin < c.size(); begin += kTile) {
        const std::int64_t width = std::min(kTile, c.size() - begin), before = n;
        rough_squares(c, at, begin, width, d2);
        if (self >= begin && self < begin + width) d2[self - begin] = std::numeric_limits<float>::quiet_NaN();
        std::int32_t sure = 0;
        std::uint8_t possible[kTile];
        for (std::int64_t l = 0; l < width; ++l) sure += d2[l] < c.inside;
        for (std::int64_t l = 0; l < width; ++l) possible[l] = d2[l] <= c.outside;
        n += compact(possible, width, static_cast<std::uint32_t>(begin), found + n);
        if (n - before == sure) continue;
        n = std::remove_if(
                found + before, found + n,
                [&](std::uint32_t k) { return !(d2[k - begin] < c.inside) && !is_edge(c.sorted[k], ri, limit); }) -
            found;
    }
    return n;
}

// Writes the edges of row i from place k on. J and S are the integer types of senders and shifts, void for none: one
// loop without branches for every choice, so that each candidate is read once.
template <class T, class J, class S, bool kVectors, bool kDistances>
void write_row(const Candidates<T>& c, std::int64_t i, const T* ri, const std::uint32_t* match, std::int64_t n,
               std::int64_t k, const EdgeArrays<T>& out) {
    if (out.receivers) std::fill(out.receivers + k, out.receivers + k + n, i);
    if (out.receivers32) std::fill(out.receivers32 + k, out.receivers32 + k + n, static_cast<std::int32_t>(i));
    const Candidate<T>* const candidates = c.sorted.data();
    const T origin[3] = {ri[0], ri[1], ri[2]};
    for (std::int64_t m = 0; m < n; ++m) {
        const Candidate<T>& e = candidates[match[m]];
        if constexpr (std::is_same_v<J, std::int64_t>) out.senders[k + m] = e.j;
        if constexpr (std::is_same_v<J, std::int32_t>) out.senders32[k + m] = static_cast<std::int32_t>(e.j);
        if constexpr (std::is_same_v<S, std::int64_t>)
            for (int a = 0; a < 3; ++a) out.shifts[3 * (k + m) + a] = e.shift[a];
        if constexpr (std::is_same_v<S, std::int32_t>)
            for (int a = 0; a < 3; ++a) out.shifts32[3 * (k + m) + a] = e.shift[a];
        if constexpr (kVectors || kDistances) {
            T d[3];
            vector_to(e, origin, d);
            if constexpr (kVectors)
                for (int a = 0; a < 3; ++a) out.vectors[3 * (k + m) + a] = d[a];
            if constexpr (kDistances) out.distances[k + m] = std::sqrt(squared(d[0], d[1], d[2]));
        }
    }
}

template <class T>
using Writer = decltype(&write_row<T, void, void, false, false>);

template <class T, class J, class S>
Writer<T> writer_of(const EdgeArrays<T>& out) {
    if (out.vectors) return out.distances ? &write_row<T, J, S, true, true> : &write_row<T, J, S, true, false>;
    return out.distances ? &write_row<T, J, S, false, true> : &write_row<T, J, S, false, false>;
}

template <class T, class J>
Writer<T> writer_with(const EdgeArrays<T>& out) {
    if (out.shifts) return writer_of<T, J, std::int64_t>(out);
    return out.shifts32 ? writer_of<T, J, std::int32_t>(out) : writer_of<T, J, void>(out);
}

template <class T>
Writer<T> choose_writer(const EdgeArrays<T>& out) {
    if (out.senders) return writer_with<T, std::int64_t>(out);
    return out.senders32 ? writer_with<T, std::int32_t>(out) : writer_with<T, void>(out);
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                         \
    MDGNN_SIMD_CLONES std::int64_t count_loop(const Candidates<T>& c, std::int64_t first, const float* at,     \
                                              const T* ri, T limit) {                                          \
        return count_row<T>(c, first, at, ri, limit);                                                          \
    }                                                                                                          \
    MDGNN_SIMD_CLONES std::int64_t match_loop(const Candidates<T>& c, std::int64_t first, const float* at,     \
                                              const T* ri, T limit, std::int64_t self, std::uint32_t* found) { \
        return match_row<T>(c, first, at, ri, limit, self, found);                                             \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

}  // namespace

template <class T>
NeighborSearch<T>::NeighborSearch(const Structures<T>& structures, const NeighborOptions<T>& options)
    : structures_(structures), options_(options), limit_(largest_square_below(options.cutoff)) {
    check_input(structures, options.cutoff);
    bins_ = std::make_unique<Bins<T>>(structures, options.cutoff);
}

template <class T>
NeighborSearch<T>::~NeighborSearch() = default;

template <class T>
template <bool kFill>
void NeighborSearch<T>::run(std::int64_t* counts, const std::int64_t* row_ptr, const EdgeArrays<T>& out) const {
    const auto n_bins = static_cast<std::int64_t>(bins_->bins.size());
    [[maybe_unused]] const Writer<T> write = choose_writer(out);
    const std::int64_t grain = 256 / (structures_.positions.rows / (n_bins + 1) + 1) + 1;  // some 256 atoms
    parallel_for(n_bins, grain, options_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        thread_local Candidates<T> c;
        for (std::int64_t b = begin; b < end; ++b) {
            const Bin& bin = bins_->bins[b];
            const Cell<T> cell = structures_.cell(bin.structure);
            gather(structures_, *bins_, bin, c);
            std::array<std::int32_t, 3> wrap{};
            if (bins_->wraps.empty()) translate(c, cell, wrap);
            c.receivers.assign(bins_->order.begin() + bin.first, bins_->order.begin() + bin.last);
            if (!bins_->wraps.empty())  // those of one cell together
                std::stable_sort(c.receivers.begin(), c.receivers.end(),
                                 [&](std::uint32_t p, std::uint32_t q) { return bins_->wraps[p] < bins_->wraps[q]; });
            for (std::size_t r = 0; r < c.receivers.size(); ++r) {
                const std::int64_t i = c.receivers[r];
                if (!bins_->wraps.empty() && (r == 0 || wrap != bins_->wraps[i])) {
                    wrap = bins_->wraps[i];
                    translate(c, cell, wrap);
                }
                const T* ri = structures_.positions.row(i);
                const std::int64_t self = place_of_self(c, i);
                // In a half list only what follows (i, 0) counts: the order is that of (j, S).
                const std::int64_t first = options_.half ? self : 0, skip = options_.self_interaction ? -1 : self;
                const float at[3] = {c.x[self], c.y[self], c.z[self]};
                if constexpr (kFill) {
                    const std::int64_t n = match_loop(c, first, at, ri, limit_, skip, c.matches.data());
                    if (n != row_ptr[i + 1] - row_ptr[i])
                        throw std::runtime_error("positions or cell changed while their neighbours were searched");
                    write(c, i, ri, c.matches.data(), n, row_ptr[i], out);
                } else {
                    counts[i] = count_loop(c, first, at, ri, limit_) - (skip >= 0);
                }
            }
        }
    });
}

template <class T>
void NeighborSearch<T>::count(std::int64_t* row_ptr) const {
    row_ptr[0] = 0;
    run<false>(row_ptr + 1, nullptr, {});
    for (std::int64_t i = 0; i < structures_.positions.rows; ++i) row_ptr[i + 1] += row_ptr[i];
}

template <class T>
void NeighborSearch<T>::fill(const std::int64_t* row_ptr, const EdgeArrays<T>& out) const {
    run<true>(nullptr, row_ptr, out);
}

template <class T>
void check_input(const Structures<T>& structures, T cutoff) {
    if (!(cutoff > 0)) throw std::invalid_argument("expected a positive cutoff, got " + std::to_string(cutoff));
    const Matrix<const T>& r = structures.positions;
    if (r.rows >= (std::int64_t{1} << 31)) throw std::invalid_argument("expected less than 2^31 atoms");
    for (std::int64_t i = 0; i < 3 * r.rows; ++i)
        if (!std::isfinite(r.data[i]))
            throw std::invalid_argument(
                neighbor_error(NeighborCode::position, i / 3, static_cast<double>(cutoff), std::to_string(r.data[i])));
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
