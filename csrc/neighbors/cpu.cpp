// For every bin the candidates are gathered once: the atoms, and images, near the box around the bin's atoms, sorted by
// (j, S). Each of the bin's atoms then compares its distance to them in that order, so that rows come out in canonical
// order without being sorted. The first call counts, the second repeats the search and writes where the counts say.
// Distances are compared in float32, relative to the bin; only what lies within rounding of the cutoff, one candidate
// in a hundred thousand, is decided by the exact edge vector. Parallelisation: bins over threads; every row is written
// by one thread. Cost per edge: at most 6 candidates are tested in each call (bins as wide as the cutoff, pruned), SIMD
// over candidates; sorting is shared by all atoms of a bin. What is written is written once, into exact-size arrays.
// Alternatives that lost: half-width bins (shorter loops, more sorting); a sort per row (7 times the cost of the
// tests); keeping what the first call found (more memory than the second search costs time).
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "neighbors/bins.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cpu {
namespace {

template <class T>
struct Candidate {
    T r[3], offset[3];      // r_j and S @ cell
    std::int32_t shift[3];  // S for the receivers at hand
    std::uint32_t j;
};

// What a bin's atoms are compared with, sorted by (j, S). One instance a thread, reused.
template <class T>
struct Candidates {
    std::vector<Candidate<T>> sorted;
    std::vector<std::array<std::int32_t, 3>> base;  // S for a receiver that lies in the cell
    std::vector<float> x, y, z;                     // places relative to the middle of the bin
    double middle[3] = {};
    float inside = 0, outside = 0;  // squares of distances between such places, beyond which nothing need be checked

    // Before sorting: places in Bins::order, and numbers of images.
    std::vector<std::uint32_t> place, image, key, scratch, rank;
    std::vector<std::array<std::int32_t, 3>> images;
    std::vector<std::array<double, 3>> translations;  // of images
    std::vector<std::uint32_t> receivers, matches;

    std::int64_t size() const { return static_cast<std::int64_t>(sorted.size()); }
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

// S and S @ cell of the candidates, for receivers `wrap` cells away from the cell.
template <class T>
void translate(Candidates<T>& c, const Cell<T>& cell, const std::array<std::int32_t, 3>& wrap) {
    for (std::int64_t k = 0; k < c.size(); ++k) {
        Candidate<T>& e = c.sorted[k];
        for (int a = 0; a < 3; ++a) e.shift[a] = c.base[k][a] + wrap[a];
        const T s0 = static_cast<T>(e.shift[0]), s1 = static_cast<T>(e.shift[1]), s2 = static_cast<T>(e.shift[2]);
        for (int a = 0; a < 3; ++a) e.offset[a] = translation(s0, s1, s2, cell, a);
    }
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

// Between which rough squares only the exact distance can tell. Places are wrong by half a unit in the last digit of
// the farthest; 16 units cover their differences and the squares.
template <class T>
void set_rough_limits(Candidates<T>& c, const Grid& grid, double farthest) {
    constexpr double kUnit = std::numeric_limits<float>::epsilon();
    c.inside = 0, c.outside = std::numeric_limits<float>::infinity();
    if (!(farthest < 1e15)) {  // squares may overflow: everything is checked
        std::fill(c.x.begin(), c.x.end(), 0.0f);
        std::fill(c.y.begin(), c.y.end(), 0.0f);
        std::fill(c.z.begin(), c.z.end(), 0.0f);
        return;
    }
    if (!(grid.reach < 1e15)) {  // beyond all candidates
        c.inside = std::numeric_limits<float>::infinity();
        return;
    }
    const double wrong = 16 * kUnit * farthest, low = grid.cutoff - (grid.reach - grid.cutoff) - wrong;
    const double high = grid.reach + wrong;
    if (low > 0) c.inside = static_cast<float>(low * low * (1 - 4 * kUnit));
    c.outside = static_cast<float>(high * high * (1 + 4 * kUnit)) + std::numeric_limits<float>::min();
}

template <class T>
void gather(const Structures<T>& structures, const Bins<T>& bins, const Bin& bin, Candidates<T>& c) {
    const Grid& grid = bins.grids[bin.structure];
    Box box;
    for (int a = 0; a < 3; ++a) box.low[a] = bin.low[a], box.high[a] = bin.high[a];
    box.limit = grid.reach * grid.reach;
    for (int a = 0; a < 3; ++a) c.middle[a] = 0.5 * (bin.low[a] + bin.high[a]);
    c.place.clear(), c.image.clear(), c.images.clear(), c.translations.clear();
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
                c.translations.push_back({t[0] - c.middle[0], t[1] - c.middle[1], t[2] - c.middle[2]});
            }
    // Images of one atom were found in the order of their shifts, and equal keys keep their order.
    c.key.resize(c.place.size());
    for (std::size_t k = 0; k < c.place.size(); ++k) c.key[k] = bins.order[c.place[k]];
    sort_by_key(c);
    const std::size_t n = c.place.size();
    c.sorted.resize(n), c.base.resize(n), c.x.resize(n), c.y.resize(n), c.z.resize(n), c.matches.resize(n + 1);
    double farthest = 0;
    for (std::size_t k = 0; k < n; ++k) {
        const std::uint32_t from = c.rank[k], j = c.key[from], p = c.place[from];
        const auto& image_of = c.images[c.image[from]];
        const auto& moved = c.translations[c.image[from]];
        const double t[3] = {bins.x[p] + moved[0], bins.y[p] + moved[1], bins.z[p] + moved[2]};
        c.sorted[k].j = j;
        for (int a = 0; a < 3; ++a) {
            c.sorted[k].r[a] = structures.positions.row(j)[a];
            c.base[k][a] = image_of[a] - (bins.wraps.empty() ? 0 : bins.wraps[j][a]);
            farthest = std::max(farthest, std::abs(t[a]));
        }
        c.x[k] = static_cast<float>(t[0]), c.y[k] = static_cast<float>(t[1]), c.z[k] = static_cast<float>(t[2]);
    }
    set_rough_limits(c, grid, farthest);
}

// The candidate (i, S = 0).
template <class T>
std::int64_t place_of_self(const Candidates<T>& c, std::int64_t i) {
    auto e = std::lower_bound(c.sorted.begin(), c.sorted.end(), static_cast<std::uint32_t>(i),
                              [](const Candidate<T>& a, std::uint32_t j) { return a.j < j; });
    while (e->shift[0] != 0 || e->shift[1] != 0 || e->shift[2] != 0) ++e;
    return e - c.sorted.begin();
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
