// Per bin, and shared by its atoms: one pass over the bins within reach, a test against the bin's box (SIMD), and a
// stable radix sort by j. Images of one atom are found in the order of their shifts, so that (j, S) is sorted too.
#include "neighbors/candidates.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/simd.hpp"

namespace mdgnn::cpu {
namespace {

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

// rank: the order of the keys, equal ones as they stand.
void sort_by_key(Candidates& c) {
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
void set_rough_limits(Candidates& c, const Grid& grid, double farthest) {
    constexpr double kUnit = std::numeric_limits<float>::epsilon();
    c.inside = 0, c.outside = std::numeric_limits<float>::infinity();
    if (!(farthest < 1e15)) {  // squares may overflow: everything is checked
        std::fill_n(c.x.begin(), c.size(), 0.0f);
        std::fill_n(c.y.begin(), c.size(), 0.0f);
        std::fill_n(c.z.begin(), c.size(), 0.0f);
        return;
    }
    if (std::isinf(grid.cutoff)) {
        c.inside = std::numeric_limits<float>::infinity();
        return;
    }
    const double wrong = 16 * kUnit * farthest, low = grid.cutoff - (grid.reach - grid.cutoff) - wrong;
    const double high = grid.reach + wrong, largest = std::numeric_limits<float>::max();
    constexpr double kUnderflow = 1e-30;  // squares below lose digits
    if (low > 0 && low * low > kUnderflow)
        c.inside = static_cast<float>(std::min(low * low * (1 - 4 * kUnit), largest));
    if (high * high < 0.5 * largest) c.outside = static_cast<float>(high * high * (1 + 4 * kUnit) + kUnderflow);
}

}  // namespace

template <class T>
void gather(const Bins<T>& bins, const Bin& bin, Candidates& c) {
    const Grid& grid = bins.grids[bin.structure];
    Box box;
    for (int a = 0; a < 3; ++a) box.low[a] = bin.low[a], box.high[a] = bin.high[a];
    box.limit = grid.reach * grid.reach;
    double middle[3];
    for (int a = 0; a < 3; ++a) middle[a] = 0.5 * (bin.low[a] + bin.high[a]);
    c.place.clear(), c.image.clear(), c.images.clear(), c.translations.clear();
    std::int64_t at[3], target[3];
    std::int32_t image[3];
    for (at[0] = -grid.range[0]; at[0] <= grid.range[0]; ++at[0])
        for (at[1] = -grid.range[1]; at[1] <= grid.range[1]; ++at[1])
            for (at[2] = -grid.range[2]; at[2] <= grid.range[2]; ++at[2]) {
                double t[3] = {};
                neighbor_place(grid, bin.place, at, target, image);
                for (int k = 0; k < 3; ++k)
                    for (int a = 0; a < 3; ++a) t[a] += static_cast<double>(image[k]) * grid.cell[k][a];
                const std::int64_t b = bins.find(bin.structure, target);
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
                const std::int64_t n =
                    places_near(bins.x, bins.y, bins.z, t, box, other.first, other.last, c.place.data() + before);
                c.place.resize(before + static_cast<std::size_t>(n));
                if (n == 0) continue;
                if (c.images.empty() || !std::equal(image, image + 3, c.images.back().begin())) {
                    c.images.push_back({image[0], image[1], image[2]});
                    c.translations.push_back({t[0] - middle[0], t[1] - middle[1], t[2] - middle[2]});
                }
                c.image.resize(c.place.size(), static_cast<std::uint32_t>(c.images.size() - 1));
            }
    // Images of one atom were found in the order of their shifts, and equal keys keep their order.
    c.key.resize(c.place.size());
    for (std::size_t k = 0; k < c.place.size(); ++k) c.key[k] = bins.order[c.place[k]];
    sort_by_key(c);
    const std::size_t n = c.place.size();
    c.at.resize(n), c.image_of.resize(n), c.mask.resize(c.words());
    for (auto* a : {&c.x, &c.y, &c.z}) {
        a->resize(c.words() * kWord);
        std::fill(a->begin() + static_cast<std::ptrdiff_t>(n), a->end(), std::numeric_limits<float>::quiet_NaN());
    }
    c.self.assign(static_cast<std::size_t>(bin.last - bin.first), static_cast<std::uint32_t>(n));
    double farthest = 0;
    for (std::size_t k = 0; k < n; ++k) {
        const std::uint32_t from = c.rank[k], p = c.place[from], image = c.image[from];
        const auto& moved = c.translations[image];
        const double t[3] = {bins.x[p] + moved[0], bins.y[p] + moved[1], bins.z[p] + moved[2]};
        c.at[k] = p, c.image_of[k] = image;
        if (p >= bin.first && p < bin.last && same(c.images[image], {}))
            c.self[p - bin.first] = static_cast<std::uint32_t>(k);
        for (int a = 0; a < 3; ++a) farthest = std::max(farthest, std::abs(t[a]));
        c.x[k] = static_cast<float>(t[0]), c.y[k] = static_cast<float>(t[1]), c.z[k] = static_cast<float>(t[2]);
    }
    set_rough_limits(c, grid, farthest);
}

template void gather<float>(const Bins<float>&, const Bin&, Candidates&);
template void gather<double>(const Bins<double>&, const Bin&, Candidates&);

}  // namespace mdgnn::cpu
