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

[[noreturn]] void refuse(NeighborCode code, std::int64_t where, double cutoff, double got = 0) {
    throw std::invalid_argument(
        neighbor_error(code, where, cutoff, std::to_string(static_cast<std::int64_t>(std::min(got, 1e18)))));
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
    NeighborCode code = set_axes(grid);
    if (code != NeighborCode::fine) refuse(code, structures.n > 1 ? s : -1, cutoff);
    const std::int64_t begin = structures.first[s], end = structures.first[s + 1];
    Extent atoms;
    for (int k = 0; k < 3; ++k) atoms.low[k] = std::numeric_limits<double>::infinity(), atoms.high[k] = -atoms.low[k];
    for (std::int64_t i = begin; i < end; ++i) {
        const T* p = structures.positions.row(i);
        const Vec r{{static_cast<double>(p[0]), static_cast<double>(p[1]), static_cast<double>(p[2])}};
        const Vec x = coordinates[i - begin] = coordinates_of(grid, r);
        for (int k = 0; k < 3; ++k) {
            atoms.low[k] = smaller(atoms.low[k], x[k]);
            atoms.high[k] = larger(atoms.high[k], x[k]);
        }
        atoms.farthest = larger(atoms.farthest, distance_bound(r));
    }
    code = set_bins(grid, atoms, end - begin, cutoff, kEpsilon<T>);
    if (code != NeighborCode::fine) refuse(code, s, cutoff, count_visits(grid));
    return grid;
}

}  // namespace

template <class T>
std::uint64_t Bins<T>::slot(std::int64_t structure, const std::int64_t* place) const {
    return hash_of(structure, place) & (table_.size() - 1);
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
    std::vector<std::array<std::int32_t, 3>> usually;  // by structure
    usually.reserve(structures.n);
    bool wrapped = false;
    for (std::int64_t s = 0; s < structures.n; ++s) {
        const std::int64_t begin = structures.first[s], end = structures.first[s + 1];
        grids.push_back(make_grid(structures, s, static_cast<double>(cutoff), coordinates.data() + begin));
        const Grid& grid = grids.back();
        std::array<std::int32_t, 3> usual{};  // that of most atoms, if there is such a cell
        std::int64_t votes = 0;
        for (std::int64_t i = begin; i < end; ++i) {
            std::int64_t place[3];
            if (!place_of(grid, coordinates[i], place, cells[i].data()))
                refuse(NeighborCode::far_atom, i, static_cast<double>(cutoff));
            if (votes == 0) usual = cells[i];
            votes += cells[i] == usual ? 1 : -1;
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
        usually.push_back(usual);
        for (std::int64_t i = begin; i < end && !wrapped; ++i) wrapped = cells[i] != usual;
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
        for (int k = 0; wrapped && k < 3; ++k) wraps[at][k] = cells[i][k] - usually[bin.structure][k];
        double w[3];
        for (int c = 0; c < 3; ++c) {
            positions[at].r[c] = structures.positions.row(i)[c];
            w[c] = static_cast<double>(positions[at].r[c]);
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
