// Serial: it costs some 50 ns an atom, a hundredth of what an atom's edges cost.
// Only bins that hold atoms exist (a hash table finds them), so that neither vacuum nor the shape of a structure costs
// memory or time.
#include "neighbors/bins.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>

namespace mdgnn::cpu {
namespace {

// More atoms than this in a bin as wide as the cutoff, and it is halved: fewer candidates then outweigh shorter loops.
constexpr double kCrowded = 100;

// So few atoms of an open structure share one bin: to try all pairs costs less than to sort candidates for each bin.
constexpr std::int64_t kFew = 192;

// Bins and images that are visited around one bin: above this a search would seem to hang.
constexpr double kMostVisits = 1e8;

Vec cross(const Vec& a, const Vec& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
double dot(const Vec& a, const Vec& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
double norm(const Vec& a) { return std::sqrt(dot(a, a)); }
Vec scaled(const Vec& a, double s) { return {s * a[0], s * a[1], s * a[2]}; }

// A unit vector orthogonal to a (and to b, unless b is zero).
Vec orthogonal_to(const Vec& a, const Vec& b) {
    if (norm(b) > 0) {
        const Vec c = cross(a, b);
        return scaled(c, 1 / norm(c));
    }
    int smallest = 0;
    for (int c = 1; c < 3; ++c)
        if (std::abs(a[c]) < std::abs(a[smallest])) smallest = c;
    Vec axis{};
    axis[smallest] = 1;
    const Vec c = cross(a, axis);
    return scaled(c, 1 / norm(c));
}

// Three independent directions: the periodic cell vectors, and orthogonal unit vectors for the other axes.
std::array<Vec, 3> complete_cell(const std::array<Vec, 3>& cell, const bool* pbc) {
    std::array<Vec, 3> basis{};
    if (!pbc[0] && !pbc[1] && !pbc[2]) return {Vec{1, 0, 0}, Vec{0, 1, 0}, Vec{0, 0, 1}};
    for (int k = 0; k < 3; ++k)
        if (pbc[k]) basis[k] = cell[k];
    for (int k = 0; k < 3; ++k) {
        if (pbc[k]) continue;
        Vec a = basis[(k + 1) % 3], b = basis[(k + 2) % 3];
        if (norm(a) == 0) std::swap(a, b);
        basis[k] = orthogonal_to(a, b);
    }
    return basis;
}

// The grid of one structure; `coordinates` receives r . dual of its atoms.
template <class T>
Grid make_grid(const Structures<T>& structures, std::int64_t s, double cutoff, Vec* coordinates) {
    Grid grid;
    const Cell<T> cell = structures.cell(s);
    for (int k = 0; k < 3; ++k) {
        grid.pbc[k] = structures.pbc[3 * s + k];
        for (int c = 0; c < 3; ++c) grid.cell[k][c] = static_cast<double>(cell.rows[k][c]);
    }
    const auto basis = complete_cell(grid.cell, grid.pbc);
    const double volume = dot(basis[0], cross(basis[1], basis[2]));
    const double size = norm(basis[0]) * norm(basis[1]) * norm(basis[2]);
    if (!(std::abs(volume) > 1e-12 * size) || !std::isfinite(volume))
        throw std::invalid_argument(
            "expected linearly independent, finite cell vectors on the periodic axes, got a singular cell" +
            (structures.n > 1 ? " for structure " + std::to_string(s) : std::string()));
    for (int k = 0; k < 3; ++k) grid.dual[k] = scaled(cross(basis[(k + 1) % 3], basis[(k + 2) % 3]), 1 / volume);

    const std::int64_t begin = structures.first[s], end = structures.first[s + 1];
    double low[3], high[3], farthest = 0;
    for (int k = 0; k < 3; ++k) low[k] = std::numeric_limits<double>::infinity(), high[k] = -low[k];
    for (std::int64_t i = begin; i < end; ++i) {
        const T* p = structures.positions.row(i);
        const Vec r{static_cast<double>(p[0]), static_cast<double>(p[1]), static_cast<double>(p[2])};
        for (int k = 0; k < 3; ++k) {
            const double x = coordinates[i - begin][k] = dot(r, grid.dual[k]);
            low[k] = std::min(low[k], x);
            high[k] = std::max(high[k], x);
        }
        for (int k = 0; k < 3; ++k) farthest = std::max(farthest, 1.8 * std::abs(r[k]));
    }
    // The test of a pair is exact in T; the search must not lose one to rounding, so it reaches further by what
    // positions, coordinates and S @ cell can be wrong. In a skewed cell the parts of S @ cell are longer than the
    // whole.
    const bool periodic = grid.pbc[0] || grid.pbc[1] || grid.pbc[2];
    double scale = 2 * farthest + (periodic ? cutoff : std::min(cutoff, farthest));
    for (int k = 0; k < 3; ++k) scale += norm(grid.cell[k]);
    const double condition = size / std::abs(volume);
    grid.cutoff = cutoff;
    grid.reach = cutoff + 16 * scale * condition * static_cast<double>(std::numeric_limits<T>::epsilon());
    if (!std::isfinite(grid.reach) && std::isfinite(cutoff))
        throw std::invalid_argument("expected positions and cells whose squares are finite numbers");

    double extent[3], box = 1;  // lengths along the normals of the lattice planes
    for (int k = 0; k < 3; ++k) {
        const double thickness = 1 / norm(grid.dual[k]);
        extent[k] = (grid.pbc[k] ? 1 : std::max(0.0, high[k] - low[k])) * thickness;
        grid.low[k] = grid.pbc[k] ? 0 : low[k];
        box *= std::max(extent[k], std::min(grid.reach, 1e150));
    }
    const double crowd = static_cast<double>(end - begin) * std::pow(std::min(grid.reach, 1e100), 3) / box;
    const bool few = !periodic && end - begin <= kFew;
    const double parts = crowd > kCrowded ? 2 : 1;
    double visits = 1;
    for (int k = 0; k < 3; ++k) {
        double width = grid.reach / parts;
        if (grid.pbc[k]) {
            grid.n[k] = static_cast<std::int64_t>(std::clamp(std::floor(extent[k] / width), 1.0, 1e6));
            width = extent[k] / static_cast<double>(grid.n[k]);
            grid.per_unit[k] = static_cast<double>(grid.n[k]);
        } else {
            width = std::max(width, extent[k] * 1e-12);  // so that numbers of bins stay exact integers
            if (few) width = std::numeric_limits<double>::infinity();
            const double thickness = 1 / norm(grid.dual[k]);
            grid.per_unit[k] = thickness / width;  // zero for an infinite width: one bin
        }
        const double bins = std::isfinite(grid.reach)
                                ? std::ceil(grid.reach / width * (1 - 4 * std::numeric_limits<double>::epsilon()))
                                : 0;
        if (!(bins < 1e6))
            throw std::invalid_argument("expected a cutoff of less than a million cells, got " +
                                        std::to_string(cutoff));
        grid.range[k] = static_cast<std::int64_t>(bins);
        visits *= 2 * bins + 1;
    }
    if (visits > kMostVisits)
        throw std::invalid_argument(
            "expected a cell less skewed, a shorter cutoff or atoms nearer to the cell: within the cutoff and its "
            "rounding lie " +
            std::to_string(static_cast<std::int64_t>(std::min(visits, 1e18))) + " images");
    return grid;
}

}  // namespace

template <class T>
std::uint64_t Bins<T>::slot(std::int64_t structure, const std::int64_t* place) const {
    std::uint64_t h = static_cast<std::uint64_t>(structure) * 0x9E3779B97F4A7C15u;
    for (int k = 0; k < 3; ++k) {
        h ^= static_cast<std::uint64_t>(place[k]);
        h *= 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    return h & (table_.size() - 1);
}

template <class T>
std::int64_t Bins<T>::find(std::int64_t structure, const std::int64_t* place) const {
    for (std::uint64_t h = slot(structure, place);; h = (h + 1) & (table_.size() - 1)) {
        const std::int64_t b = table_[h];
        if (b < 0) return -1;
        const Bin& bin = bins[b];
        if (bin.structure == structure && std::equal(place, place + 3, bin.place)) return b;
    }
}

// Bins near each other in space share candidates: searched one after the other, they find them in the cache. Returns
// the new number of every bin.
template <class T>
std::vector<std::uint32_t> Bins<T>::sort_by_place() {
    std::vector<std::uint32_t> sorted(bins.size()), number(bins.size());
    std::iota(sorted.begin(), sorted.end(), 0u);
    const auto before = [&](std::uint32_t a, std::uint32_t b) {
        const Bin &p = bins[a], &q = bins[b];
        return std::tie(p.structure, p.place[0], p.place[1], p.place[2]) <
               std::tie(q.structure, q.place[0], q.place[1], q.place[2]);
    };
    if (std::is_sorted(sorted.begin(), sorted.end(), before)) return sorted;
    std::sort(sorted.begin(), sorted.end(), before);
    std::vector<Bin> moved;
    moved.reserve(bins.size());
    for (const std::uint32_t b : sorted) {
        number[b] = static_cast<std::uint32_t>(moved.size());
        moved.push_back(bins[b]);
    }
    bins = std::move(moved);
    for (std::int64_t& b : table_)
        if (b >= 0) b = number[b];
    return number;
}

template <class T>
Bins<T>::Bins(const Structures<T>& structures, T cutoff) {
    const std::int64_t n = structures.positions.rows;
    std::size_t slots = 16;
    while (slots < 2 * static_cast<std::size_t>(n)) slots *= 2;
    table_.assign(slots, -1);
    grids.reserve(structures.n);
    std::vector<Vec> coordinates(n);
    std::vector<std::uint32_t> bin_of(n);
    std::vector<std::array<std::int32_t, 3>> cells(n);
    bool wrapped = false;
    for (std::int64_t s = 0; s < structures.n; ++s) {
        const std::int64_t begin = structures.first[s], end = structures.first[s + 1];
        grids.push_back(make_grid(structures, s, static_cast<double>(cutoff), coordinates.data() + begin));
        const Grid& grid = grids.back();
        for (std::int64_t i = begin; i < end; ++i) {
            std::int64_t place[3];
            for (int k = 0; k < 3; ++k) {
                double u = coordinates[i][k] - grid.low[k];
                cells[i][k] = 0;
                if (grid.pbc[k]) {
                    const double whole = std::floor(u);
                    if (!(std::abs(whole) < 1e9))
                        throw std::invalid_argument("atom " + std::to_string(i) +
                                                    " lies more than a billion cells away from the cell");
                    cells[i][k] = static_cast<std::int32_t>(whole);
                    wrapped |= whole != 0;
                    u -= whole;
                }
                place[k] = static_cast<std::int64_t>(std::floor(u * grid.per_unit[k]));
                if (grid.pbc[k]) place[k] = std::clamp<std::int64_t>(place[k], 0, grid.n[k] - 1);
            }
            std::int64_t b = find(s, place);
            if (b < 0) {
                b = static_cast<std::int64_t>(bins.size());
                std::uint64_t h = slot(s, place);
                while (table_[h] >= 0) h = (h + 1) & (table_.size() - 1);
                table_[h] = b;
                bins.push_back({s, {place[0], place[1], place[2]}, 0, 0, {}, {}});
            }
            bin_of[i] = static_cast<std::uint32_t>(b);
            ++bins[b].last;
        }
    }
    const std::vector<std::uint32_t> number = sort_by_place();
    std::int64_t first = 0;
    for (Bin& bin : bins) {
        const std::int64_t count = bin.last;
        bin.first = bin.last = first;
        first += count;
    }
    if (wrapped) wraps.resize(n);
    order.resize(n), positions.resize(n), x.resize(n), y.resize(n), z.resize(n);
    for (std::int64_t i = 0; i < n; ++i) {
        Bin& bin = bins[number[bin_of[i]]];
        const Grid& grid = grids[bin.structure];
        const std::int64_t at = bin.last++;
        order[at] = static_cast<std::uint32_t>(i);
        if (wrapped) wraps[at] = cells[i];
        double w[3];
        for (int c = 0; c < 3; ++c) {
            positions[at][c] = structures.positions.row(i)[c];
            w[c] = static_cast<double>(positions[at][c]);
            for (int k = 0; k < 3; ++k) w[c] -= static_cast<double>(cells[i][k]) * grid.cell[k][c];
            bin.low[c] = at == bin.first ? w[c] : std::min(bin.low[c], w[c]);
            bin.high[c] = at == bin.first ? w[c] : std::max(bin.high[c], w[c]);
        }
        x[at] = w[0], y[at] = w[1], z[at] = w[2];
    }
}

template class Bins<float>;
template class Bins<double>;

}  // namespace mdgnn::cpu
