// Some 50 ns an atom, a hundredth of what an atom's edges cost. What costs time in it is done on several
// threads, but for the numbering of bins, 10 ns, which depends on the order of atoms.
// Only bins that hold atoms exist (a hash table finds them), so that neither vacuum nor the shape of a structure costs
// memory or time.
#include "neighbors/bins.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>

#include "core/thread_pool.hpp"

namespace mdgnn::cpu {
namespace {

[[noreturn]] void refuse(NeighborCode code, std::int64_t where, double cutoff, double got = 0) {
    throw std::invalid_argument(
        neighbor_error(code, where, cutoff, std::to_string(static_cast<std::int64_t>(std::min(got, 1e18)))));
}

constexpr std::int64_t kAtoms = 1024, kStructures = 256, kBins = 64;  // that a thread takes at a time

// Some atoms of one structure, and how far they extend.
struct Piece {
    std::int64_t structure, begin, end;
    Extent extent;
};

Extent nothing() {
    Extent e;
    for (int k = 0; k < 3; ++k) e.low[k] = kInfinity, e.high[k] = -kInfinity;
    return e;
}

void join(Extent& e, const Extent& other) {
    for (int k = 0; k < 3; ++k) {
        e.low[k] = smaller(e.low[k], other.low[k]);
        e.high[k] = larger(e.high[k], other.high[k]);
    }
    e.farthest = larger(e.farthest, other.farthest);
}

template <class T>
std::vector<Piece> make_pieces(const Structures<T>& structures) {
    std::vector<Piece> pieces;
    pieces.reserve(structures.n + structures.positions.rows / kAtoms);
    for (std::int64_t s = 0; s < structures.n; ++s)
        for (std::int64_t i = structures.first[s]; i < structures.first[s + 1]; i += kAtoms)
            pieces.push_back({s, i, std::min(i + kAtoms, structures.first[s + 1]), nothing()});
    return pieces;
}

template <class T>
NeighborCode start_grid(const Structures<T>& structures, std::int64_t s, Grid& grid) {
    const Cell<T> cell = structures.cell(s);
    for (int k = 0; k < 3; ++k) {
        grid.pbc[k] = structures.pbc[3 * s + k];
        for (int c = 0; c < 3; ++c) grid.cell[k][c] = static_cast<double>(cell.rows[k][c]);
    }
    return set_axes(grid);
}

// r . dual
template <class T>
void find_coordinates(const Structures<T>& structures, const Grid& grid, Piece& piece, Vec* coordinates) {
    for (std::int64_t i = piece.begin; i < piece.end; ++i) {
        const T* p = structures.positions.row(i);
        const Vec r{{static_cast<double>(p[0]), static_cast<double>(p[1]), static_cast<double>(p[2])}};
        const Vec x = coordinates[i] = coordinates_of(grid, r);
        join(piece.extent, {{x[0], x[1], x[2]}, {x[0], x[1], x[2]}, distance_bound(r)});
    }
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

// Where an atom is: the place of its bin, its cell; the number of the bin, and which of its atoms it is.
template <class T>
struct Bins<T>::Spot {
    std::int64_t place[3];
    Shift cell;
    std::uint32_t bin, rank;
};

// Finds or makes every atom's bin. Returns the cell that most atoms of a structure lie in, if there is one; by
// structure.
template <class T>
std::vector<Shift> Bins<T>::number_atoms(const Structures<T>& structures, Spot* spots) {
    std::size_t slots = 16;
    while (slots < 2 * static_cast<std::size_t>(structures.positions.rows)) slots *= 2;
    table_.assign(slots, -1);
    std::vector<Shift> usual(structures.n);
    for (std::int64_t s = 0; s < structures.n; ++s) {
        std::int64_t votes = 0, b = -1;
        for (std::int64_t i = structures.first[s]; i < structures.first[s + 1]; ++i) {
            Spot& spot = spots[i];
            if (votes == 0) usual[s] = spot.cell;
            votes += same(spot.cell, usual[s]) ? 1 : -1;
            if (b < 0 || !std::equal(spot.place, spot.place + 3, bins[b].place)) b = find(s, spot.place);
            if (b < 0) {
                b = static_cast<std::int64_t>(bins.size());
                std::uint64_t h = slot(s, spot.place);
                while (table_[h] >= 0) h = (h + 1) & (table_.size() - 1);
                table_[h] = b;
                bins.push_back({s, {spot.place[0], spot.place[1], spot.place[2]}, 0, 0, {}, {}});
            }
            spot.bin = static_cast<std::uint32_t>(b);
            spot.rank = static_cast<std::uint32_t>(bins[b].last++);
        }
    }
    return usual;
}

template <class T>
Bins<T>::Bins(const Structures<T>& structures, T cutoff, int n_threads) : grids(structures.n) {
    const std::int64_t n = structures.positions.rows;
    const auto limit = static_cast<double>(cutoff);
    std::vector<Piece> pieces = make_pieces(structures);
    const auto n_pieces = static_cast<std::int64_t>(pieces.size()), grain = n_pieces * kAtoms / (n + 1) + 1;
    Arena scratch;
    scratch.reserve(n * (sizeof(Vec) + sizeof(Spot)) + 2 * Arena::kAlign);
    Vec* const coordinates = scratch.array<Vec>(n);
    Spot* const spots = scratch.array<Spot>(n);

    std::vector<NeighborCode> codes(structures.n);
    const auto refuse_first = [&](bool of_several) {
        for (std::int64_t s = 0; s < structures.n; ++s)
            if (codes[s] != NeighborCode::fine)
                refuse(codes[s], of_several && structures.n == 1 ? -1 : s, limit, count_visits(grids[s]));
    };
    const auto start = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t s = begin; s < end; ++s) codes[s] = start_grid(structures, s, grids[s]);
    };
    parallel_for(structures.n, kStructures, n_threads, start, Team::own);
    refuse_first(true);

    const auto measure = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p)
            find_coordinates(structures, grids[pieces[p].structure], pieces[p], coordinates);
    };
    parallel_for(n_pieces, grain, n_threads, measure, Team::own);
    std::vector<Extent> extents(structures.n, nothing());
    for (const Piece& piece : pieces) join(extents[piece.structure], piece.extent);
    const auto finish = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t s = begin; s < end; ++s)
            codes[s] =
                set_bins(grids[s], extents[s], structures.first[s + 1] - structures.first[s], limit, kEpsilon<T>);
    };
    parallel_for(structures.n, kStructures, n_threads, finish, Team::own);
    refuse_first(false);

    std::atomic<std::int64_t> far_atom{n};
    const auto locate = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p)
            for (std::int64_t i = pieces[p].begin; i < pieces[p].end; ++i) {
                if (place_of(grids[pieces[p].structure], coordinates[i], spots[i].place, spots[i].cell.data()))
                    continue;
                for (std::int64_t first = far_atom; i < first && !far_atom.compare_exchange_weak(first, i);) continue;
            }
    };
    parallel_for(n_pieces, grain, n_threads, locate, Team::own);
    if (far_atom < n) refuse(NeighborCode::far_atom, far_atom, limit);

    const std::vector<Shift> usual = number_atoms(structures, spots);
    const std::vector<std::uint32_t> number = sort_by_place();
    std::int64_t first = 0;
    for (Bin& bin : bins) {
        bin.first = first, first += bin.last, bin.last = first;
    }
    bool wrapped = false;
    for (const Piece& piece : pieces)
        for (std::int64_t i = piece.begin; i < piece.end && !wrapped; ++i)
            wrapped = !same(spots[i].cell, usual[piece.structure]);
    arrays_.reserve(n * (sizeof *order + sizeof *positions + wrapped * sizeof *wraps) + 3 * Arena::kAlign);
    positions = arrays_.array<Place<T>>(n);
    order = arrays_.array<std::uint32_t>(n);
    if (wrapped) wraps = arrays_.array<Shift>(n);
    coordinates_.reserve(n * 3 * sizeof *x + 3 * Arena::kAlign);
    for (double** a : {&x, &y, &z}) *a = coordinates_.array<double>(n);
    const auto place = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const Spot& spot = spots[i];
            const Bin& bin = bins[number[spot.bin]];
            const Grid& grid = grids[bin.structure];
            const std::int64_t at = bin.first + spot.rank;
            order[at] = static_cast<std::uint32_t>(i);
            for (int k = 0; wrapped && k < 3; ++k) wraps[at][k] = spot.cell[k] - usual[bin.structure][k];
            Place<T> r;
            std::copy_n(structures.positions.row(i), 3, r.r);
            positions[at] = r;
            double w[3];
            for (int c = 0; c < 3; ++c) {
                w[c] = static_cast<double>(r.r[c]);
                for (int k = 0; k < 3; ++k) w[c] -= static_cast<double>(spot.cell[k]) * grid.cell[k][c];
            }
            x[at] = w[0], y[at] = w[1], z[at] = w[2];
        }
    };
    parallel_for(n, kAtoms, n_threads, place, Team::own);
    const double* const axes[3] = {x, y, z};
    const auto enclose = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
            Bin& bin = bins[b];
            for (int c = 0; c < 3; ++c) {
                const auto [low, high] = std::minmax_element(axes[c] + bin.first, axes[c] + bin.last);
                bin.low[c] = *low, bin.high[c] = *high;
            }
        }
    };
    parallel_for(static_cast<std::int64_t>(bins.size()), kBins, n_threads, enclose, Team::own);
}

template class Bins<float>;
template class Bins<double>;

}  // namespace mdgnn::cpu
