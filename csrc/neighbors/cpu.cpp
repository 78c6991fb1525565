// For every bin the candidates are gathered once: the atoms, and images, near the box around the bin's atoms, sorted by
// (j, S). Each of the bin's atoms then compares its distance to them in that order, so that rows come out in canonical
// order without being sorted. The first call counts, the second repeats the search and writes where the counts say.
// Parallelisation: bins over threads; every row is written by one thread.
// Cost per edge: at most 6 candidates are tested in each call (bins as wide as the cutoff, pruned), SIMD over
// candidates; sorting is shared by all atoms of a bin. What is written is written once, into exact-size arrays.
// Alternatives that lost: half-width bins (shorter loops, more sorting); a sort per row (7 times the cost of the
// tests); keeping what the first call found (more memory than the second search costs time).
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "neighbors/bins.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cpu {
namespace {

// What a bin's atoms are compared with, sorted by (j, S). One instance a thread, reused.
template <class T>
struct Candidates {
    std::vector<std::uint32_t> j;
    std::vector<std::int32_t> base[3];   // S for a receiver that lies in the cell
    std::vector<std::int32_t> shift[3];  // S for the receivers at hand
    std::vector<T> r[3], offset[3];      // r_j and S @ cell

    // Before sorting: places in Bins::order, and numbers of images.
    std::vector<std::uint32_t> place, image, key, scratch, rank;
    std::vector<std::array<std::int32_t, 3>> images;
    std::vector<std::uint32_t> receivers, matches;

    std::int64_t size() const { return static_cast<std::int64_t>(j.size()); }
    void resize(std::size_t n) {
        j.resize(n);
        for (int c = 0; c < 3; ++c) base[c].resize(n), shift[c].resize(n), r[c].resize(n), offset[c].resize(n);
    }
};

struct Box {
    double low[3], high[3], limit;  // of squared distances from it
};

inline double gap(double x, double low, double high) { return std::max(std::max(low - x, x - high), 0.0); }

// Places from `first` on whose atom, moved by t, is near the box; returns how many.
MDGNN_SIMD_CLONES std::int64_t places_near(const double* x, const double* y, const double* z, const double* t,
                                           const Box& box, std::int64_t first, std::int64_t last,
                                           std::uint32_t* found) {
    constexpr std::int64_t kTile = 64;
    double d2[kTile];
    std::int64_t n = 0;
    for (std::int64_t k = first; k < last; k += kTile) {
        const std::int64_t width = std::min(kTile, last - k);
        for (std::int64_t l = 0; l < width; ++l) {
            const double dx = gap(x[k + l] + t[0], box.low[0], box.high[0]);
            const double dy = gap(y[k + l] + t[1], box.low[1], box.high[1]);
            const double dz = gap(z[k + l] + t[2], box.low[2], box.high[2]);
            d2[l] = dx * dx + dy * dy + dz * dz;
        }
        for (std::int64_t l = 0; l < width; ++l) {
            found[n] = static_cast<std::uint32_t>(k + l);
            n += d2[l] <= box.limit;
        }
    }
    return n;
}

// How many candidates from `first` on pass.
template <class T>
inline __attribute__((always_inline)) std::int64_t count_row(const Candidates<T>& c, std::int64_t first, const T* ri,
                                                             T limit) {
    const T *x = c.r[0].data(), *y = c.r[1].data(), *z = c.r[2].data();
    const T *ox = c.offset[0].data(), *oy = c.offset[1].data(), *oz = c.offset[2].data();
    const T xi = ri[0], yi = ri[1], zi = ri[2];
    std::int32_t n = 0;
    for (std::int64_t k = first; k < c.size(); ++k)
        n += squared((x[k] - xi) + ox[k], (y[k] - yi) + oy[k], (z[k] - zi) + oz[k]) <= limit;
    return n;
}

// The numbers of the candidates that pass, but for `self`.
template <class T>
inline __attribute__((always_inline)) std::int64_t match_row(const Candidates<T>& c, std::int64_t first, const T* ri,
                                                             T limit, std::int64_t self, std::uint32_t* found) {
    constexpr std::int64_t kTile = 256;
    T d2[kTile];
    std::int64_t n = 0;
    for (std::int64_t begin = first; begin < c.size(); begin += kTile) {
        const std::int64_t width = std::min(kTile, c.size() - begin);
        const T *x = c.r[0].data() + begin, *y = c.r[1].data() + begin, *z = c.r[2].data() + begin;
        const T *ox = c.offset[0].data() + begin, *oy = c.offset[1].data() + begin, *oz = c.offset[2].data() + begin;
        const T xi = ri[0], yi = ri[1], zi = ri[2];
        for (std::int64_t l = 0; l < width; ++l)
            d2[l] = squared((x[l] - xi) + ox[l], (y[l] - yi) + oy[l], (z[l] - zi) + oz[l]);
        if (self >= begin && self < begin + width) d2[self - begin] = std::numeric_limits<T>::infinity();
        for (std::int64_t l = 0; l < width; ++l) {
            found[n] = static_cast<std::uint32_t>(begin + l);
            n += d2[l] <= limit;
        }
    }
    return n;
}

// The edges of row i, from place k on.
template <class T>
inline __attribute__((always_inline)) void write_row(const Candidates<T>& c, std::int64_t i, const T* ri,
                                                     const std::uint32_t* match, std::int64_t n, std::int64_t k,
                                                     const EdgeArrays<T>& out) {
    if (out.receivers) std::fill(out.receivers + k, out.receivers + k + n, i);
    if (out.receivers32) std::fill(out.receivers32 + k, out.receivers32 + k + n, static_cast<std::int32_t>(i));
    if (out.senders)
        for (std::int64_t m = 0; m < n; ++m) out.senders[k + m] = c.j[match[m]];
    if (out.senders32)
        for (std::int64_t m = 0; m < n; ++m) out.senders32[k + m] = static_cast<std::int32_t>(c.j[match[m]]);
    if (out.shifts)
        for (std::int64_t m = 0; m < n; ++m)
            for (int a = 0; a < 3; ++a) out.shifts[3 * (k + m) + a] = c.shift[a][match[m]];
    if (out.shifts32)
        for (std::int64_t m = 0; m < n; ++m)
            for (int a = 0; a < 3; ++a) out.shifts32[3 * (k + m) + a] = c.shift[a][match[m]];
    if (out.vectors)
        for (std::int64_t m = 0; m < n; ++m)
            for (int a = 0; a < 3; ++a)
                out.vectors[3 * (k + m) + a] = (c.r[a][match[m]] - ri[a]) + c.offset[a][match[m]];
    if (out.distances)
        for (std::int64_t m = 0; m < n; ++m) {
            T d[3];
            for (int a = 0; a < 3; ++a) d[a] = (c.r[a][match[m]] - ri[a]) + c.offset[a][match[m]];
            out.distances[k + m] = std::sqrt(squared(d[0], d[1], d[2]));
        }
}

// S and S @ cell of the candidates, for receivers `wrap` cells away from the cell.
template <class T>
inline __attribute__((always_inline)) void translate_all(Candidates<T>& c, const Cell<T>& cell,
                                                         const std::array<std::int32_t, 3>& wrap) {
    for (int a = 0; a < 3; ++a)
        for (std::int64_t k = 0; k < c.size(); ++k) c.shift[a][k] = c.base[a][k] + wrap[a];
    const std::int32_t *s0 = c.shift[0].data(), *s1 = c.shift[1].data(), *s2 = c.shift[2].data();
    for (int a = 0; a < 3; ++a) {
        T* o = c.offset[a].data();
        for (std::int64_t k = 0; k < c.size(); ++k)
            o[k] = translation(static_cast<T>(s0[k]), static_cast<T>(s1[k]), static_cast<T>(s2[k]), cell, a);
    }
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                             \
    MDGNN_SIMD_CLONES std::int64_t count_loop(const Candidates<T>& c, std::int64_t first, const T* ri, T limit) {  \
        return count_row<T>(c, first, ri, limit);                                                                  \
    }                                                                                                              \
    MDGNN_SIMD_CLONES std::int64_t match_loop(const Candidates<T>& c, std::int64_t first, const T* ri, T limit,    \
                                              std::int64_t self, std::uint32_t* found) {                           \
        return match_row<T>(c, first, ri, limit, self, found);                                                     \
    }                                                                                                              \
    MDGNN_SIMD_CLONES void write_loop(const Candidates<T>& c, std::int64_t i, const T* ri, const std::uint32_t* m, \
                                      std::int64_t n, std::int64_t k, const EdgeArrays<T>& out) {                  \
        write_row<T>(c, i, ri, m, n, k, out);                                                                      \
    }                                                                                                              \
    MDGNN_SIMD_CLONES void translate_loop(Candidates<T>& c, const Cell<T>& cell,                                   \
                                          const std::array<std::int32_t, 3>& wrap) {                               \
        translate_all<T>(c, cell, wrap);                                                                           \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

// rank: the order of the keys, equal ones as they stand.
template <class T>
void sort_by_key(Candidates<T>& c) {
    const std::size_t n = c.key.size();
    c.rank.resize(n);
    std::iota(c.rank.begin(), c.rank.end(), 0u);
    if (std::is_sorted(c.key.begin(), c.key.end())) return;
    const auto [low, high] = std::minmax_element(c.key.begin(), c.key.end());
    const std::uint32_t base = *low, spread = *high - *low;
    if (n < 64) {
        std::stable_sort(c.rank.begin(), c.rank.end(),
                         [&](std::uint32_t a, std::uint32_t b) { return c.key[a] < c.key[b]; });
        return;
    }
    c.scratch.resize(n);
    for (int bits = 0; bits < 32 && (spread >> bits) > 0; bits += 8) {
        std::uint32_t count[257] = {};
        for (std::size_t k = 0; k < n; ++k) ++count[(((c.key[k] - base) >> bits) & 255) + 1];
        for (int d = 0; d < 256; ++d) count[d + 1] += count[d];
        for (std::size_t k = 0; k < n; ++k) c.scratch[count[((c.key[c.rank[k]] - base) >> bits) & 255]++] = c.rank[k];
        std::swap(c.rank, c.scratch);
    }
}

template <class T>
void gather(const Structures<T>& structures, const Bins<T>& bins, const Bin& bin, Candidates<T>& c) {
    const Grid& grid = bins.grids[bin.structure];
    Box box;
    for (int a = 0; a < 3; ++a) box.low[a] = bin.low[a], box.high[a] = bin.high[a];
    box.limit = grid.reach * grid.reach;
    c.place.clear(), c.image.clear(), c.images.clear();
    std::int64_t at[3], wanted[3], image[3];
    for (at[0] = -grid.range[0]; at[0] <= grid.range[0]; ++at[0])
        for (at[1] = -grid.range[1]; at[1] <= grid.range[1]; ++at[1])
            for (at[2] = -grid.range[2]; at[2] <= grid.range[2]; ++at[2]) {
                double t[3] = {};
                for (int k = 0; k < 3; ++k) {
                    wanted[k] = bin.place[k] + at[k];
                    image[k] = 0;
                    if (!grid.pbc[k]) continue;
                    image[k] = wanted[k] / grid.n[k] - (wanted[k] % grid.n[k] < 0);
                    wanted[k] -= image[k] * grid.n[k];
                    for (int a = 0; a < 3; ++a) t[a] += static_cast<double>(image[k]) * grid.cell[k][a];
                }
                const std::int64_t b = bins.find(bin.structure, wanted);
                if (b < 0) continue;
                const Bin& other = bins.bins[b];
                double d2 = 0;
                for (int a = 0; a < 3; ++a) {
                    const double d =
                        std::max({other.low[a] + t[a] - box.high[a], box.low[a] - (other.high[a] + t[a]), 0.0});
                    d2 += d * d;
                }
                if (!(d2 <= box.limit)) continue;
                const std::size_t before = c.place.size();
                c.place.resize(before + static_cast<std::size_t>(other.last - other.first));
                const std::int64_t n = places_near(bins.x.data(), bins.y.data(), bins.z.data(), t, box, other.first,
                                                   other.last, c.place.data() + before);
                c.place.resize(before + static_cast<std::size_t>(n));
                c.image.resize(c.place.size(), static_cast<std::uint32_t>(c.images.size()));
                c.images.push_back({static_cast<std::int32_t>(image[0]), static_cast<std::int32_t>(image[1]),
                                    static_cast<std::int32_t>(image[2])});
            }
    // Images of one atom were found in the order of their shifts, and equal keys keep their order.
    c.key.resize(c.place.size());
    for (std::size_t k = 0; k < c.place.size(); ++k) c.key[k] = bins.order[c.place[k]];
    sort_by_key(c);
    c.resize(c.place.size());
    for (std::size_t k = 0; k < c.rank.size(); ++k) {
        const std::uint32_t from = c.rank[k], j = c.key[from];
        c.j[k] = j;
        for (int a = 0; a < 3; ++a) {
            c.r[a][k] = structures.positions.row(j)[a];
            c.base[a][k] = c.images[c.image[from]][a] - (bins.wraps.empty() ? 0 : bins.wraps[j][a]);
        }
    }
    c.matches.resize(c.place.size() + 1);
}

// The candidate (i, S = 0).
template <class T>
std::int64_t place_of_self(const Candidates<T>& c, std::int64_t i) {
    auto k = std::lower_bound(c.j.begin(), c.j.end(), static_cast<std::uint32_t>(i)) - c.j.begin();
    while (c.shift[0][k] != 0 || c.shift[1][k] != 0 || c.shift[2][k] != 0) ++k;
    return k;
}

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
    const std::int64_t grain = 256 / (structures_.positions.rows / (n_bins + 1) + 1) + 1;  // some 256 atoms
    parallel_for(n_bins, grain, options_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        thread_local Candidates<T> c;
        for (std::int64_t b = begin; b < end; ++b) {
            const Bin& bin = bins_->bins[b];
            const Cell<T> cell = structures_.cell(bin.structure);
            gather(structures_, *bins_, bin, c);
            std::array<std::int32_t, 3> wrap{};
            if (bins_->wraps.empty()) translate_loop(c, cell, wrap);
            c.receivers.assign(bins_->order.begin() + bin.first, bins_->order.begin() + bin.last);
            if (!bins_->wraps.empty())  // those of one cell together
                std::stable_sort(c.receivers.begin(), c.receivers.end(),
                                 [&](std::uint32_t p, std::uint32_t q) { return bins_->wraps[p] < bins_->wraps[q]; });
            for (std::size_t r = 0; r < c.receivers.size(); ++r) {
                const std::int64_t i = c.receivers[r];
                if (!bins_->wraps.empty() && (r == 0 || wrap != bins_->wraps[i])) {
                    wrap = bins_->wraps[i];
                    translate_loop(c, cell, wrap);
                }
                const T* ri = structures_.positions.row(i);
                const std::int64_t self = place_of_self(c, i);
                // In a half list only what follows (i, 0) counts: the order is that of (j, S).
                const std::int64_t first = options_.half ? self : 0, skip = options_.self_interaction ? -1 : self;
                if constexpr (kFill) {
                    const std::int64_t n = match_loop(c, first, ri, limit_, skip, c.matches.data());
                    write_loop(c, i, ri, c.matches.data(), n, row_ptr[i], out);
                } else {
                    counts[i] = count_loop(c, first, ri, limit_) - (skip >= 0);
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
            throw std::invalid_argument("expected finite positions, got " + std::to_string(r.data[i]) + " for atom " +
                                        std::to_string(i / 3));
    if (std::isinf(cutoff))
        for (std::int64_t k = 0; k < 3 * structures.n; ++k)
            if (structures.pbc[k])
                throw std::invalid_argument("expected a finite cutoff for a periodic system, got infinity");
}

template class NeighborSearch<float>;
template class NeighborSearch<double>;
template void check_input<float>(const Structures<float>&, float);
template void check_input<double>(const Structures<double>&, double);

}  // namespace mdgnn::cpu
