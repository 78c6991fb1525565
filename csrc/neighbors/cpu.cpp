// Cell list. Atoms are sorted into bins along the lattice directions (a non-periodic axis gets a direction orthogonal
// to the others and its bounding box); every atom searches the bins that its sphere can reach, counting how often it
// passes a periodic boundary, and tests each candidate with the exact edge vector. Rows are sorted afterwards.
// Parallelisation: atoms in chunks over threads; each row is found and sorted by one thread.
// Memory traffic: 24 bytes read per candidate, 28 written per edge, once more to join the rows.
// Alternatives: none measured yet.
#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>

#include "core/thread_pool.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cpu {
namespace {

using Vec = std::array<double, 3>;

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
    const int periodic = pbc[0] + pbc[1] + pbc[2];
    if (periodic == 0) return {Vec{1, 0, 0}, Vec{0, 1, 0}, Vec{0, 0, 1}};
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

// Where the bins are: x_k = (r . dual_k) * bins_k (periodic) or (r . dual_k - low_k) * bins_k / extent_k.
struct Grid {
    std::array<Vec, 3> dual;
    double low[3] = {}, per_unit[3] = {};  // bins per unit of the coordinate r . dual_k
    double reach[3] = {};                  // half-width of the search, in bins
    std::int64_t bins[3] = {1, 1, 1};
    bool pbc[3] = {};
};

struct Entry {
    std::int64_t sender;
    std::int32_t shift[3];
    bool operator<(const Entry& o) const {
        if (sender != o.sender) return sender < o.sender;
        return std::lexicographical_compare(shift, shift + 3, o.shift, o.shift + 3);
    }
};

template <class T>
class CellList {
  public:
    CellList(const Structure<T>& structure, T cutoff) : structure_(structure), cutoff_(cutoff) {
        for (int k = 0; k < 3; ++k)
            for (int c = 0; c < 3; ++c) cell_[k][c] = structure.pbc[k] ? structure.cell.rows[k][c] : T(0);
        for (int k = 0; k < 3; ++k)
            for (int c = 0; c < 3; ++c) exact_cell_.rows[k][c] = static_cast<T>(cell_[k][c]);
        build_grid();
        fill_bins();
    }

    // The edges of atom i, sorted.
    void find(std::int64_t i, bool self_interaction, std::vector<Entry>& found) const {
        found.clear();
        std::int64_t lo[3], hi[3];
        for (int k = 0; k < 3; ++k) {
            const double x = place_[i][k];
            lo[k] = bounded_floor(x - grid_.reach[k], k);
            hi[k] = bounded_floor(x + grid_.reach[k], k);
        }
        for (std::int64_t b0 = lo[0]; b0 <= hi[0]; ++b0)
            for (std::int64_t b1 = lo[1]; b1 <= hi[1]; ++b1)
                for (std::int64_t b2 = lo[2]; b2 <= hi[2]; ++b2) search_bin(i, {b0, b1, b2}, self_interaction, found);
        std::sort(found.begin(), found.end());
    }

  private:
    const T* position(std::int64_t i) const { return structure_.positions.row(i); }

    std::int64_t bounded_floor(double x, int k) const {
        const double f = std::floor(x);
        if (grid_.pbc[k]) return static_cast<std::int64_t>(f);
        return static_cast<std::int64_t>(std::clamp(f, 0.0, static_cast<double>(grid_.bins[k] - 1)));
    }

    void search_bin(std::int64_t i, const std::array<std::int64_t, 3>& bin, bool self_interaction,
                    std::vector<Entry>& found) const {
        std::int64_t linear = 0, image[3];
        for (int k = 0; k < 3; ++k) {
            image[k] = bin[k] / grid_.bins[k] - (bin[k] % grid_.bins[k] < 0);
            linear = linear * grid_.bins[k] + (bin[k] - image[k] * grid_.bins[k]);
        }
        for (std::int64_t k = bin_ptr_[linear]; k < bin_ptr_[linear + 1]; ++k) {
            const std::int64_t j = bin_atoms_[k];
            Entry entry{j, {}};
            for (int c = 0; c < 3; ++c)
                entry.shift[c] = static_cast<std::int32_t>(image[c] + (wrap_[i][c] - wrap_[j][c]));
            const bool self = i == j && entry.shift[0] == 0 && entry.shift[1] == 0 && entry.shift[2] == 0;
            if (self && !self_interaction) continue;
            T d[3];
            edge_vector(position(i), position(j), entry.shift, exact_cell_, d);
            if (length(d) < cutoff_) found.push_back(entry);
        }
    }

    void build_grid() {
        const std::int64_t n = structure_.positions.rows;
        const auto basis = complete_cell(cell_, structure_.pbc);
        const Vec normal = cross(basis[1], basis[2]);
        const double volume = dot(basis[0], normal);
        const double size = norm(basis[0]) * norm(basis[1]) * norm(basis[2]);
        if (!(std::abs(volume) > 1e-12 * size) || !std::isfinite(volume))
            throw std::invalid_argument(
                "expected linearly independent, finite cell vectors on the periodic axes, got a singular cell");
        for (int k = 0; k < 3; ++k) grid_.dual[k] = scaled(cross(basis[(k + 1) % 3], basis[(k + 2) % 3]), 1 / volume);

        double high[3], farthest = 0;
        for (int k = 0; k < 3; ++k) grid_.low[k] = std::numeric_limits<double>::infinity(), high[k] = -grid_.low[k];
        coordinates_.resize(n);
        for (std::int64_t i = 0; i < n; ++i) {
            const T* p = position(i);
            const Vec r{p[0], p[1], p[2]};
            for (int k = 0; k < 3; ++k) {
                const double x = coordinates_[i][k] = dot(r, grid_.dual[k]);
                grid_.low[k] = std::min(grid_.low[k], x);
                high[k] = std::max(high[k], x);
            }
            farthest = std::max(farthest, norm(r));
        }
        // The test on the edge vector is exact in T; the search must not lose a pair to rounding, so it reaches
        // further by what the positions, shifts and coordinates can be wrong.
        double scale = farthest + std::min<double>(cutoff_, farthest);
        for (int k = 0; k < 3; ++k) scale += norm(cell_[k]);
        const double condition = size / std::abs(volume);
        const double margin =
            64 * scale * (std::numeric_limits<T>::epsilon() + std::numeric_limits<double>::epsilon() * condition);
        const double reach = static_cast<double>(cutoff_) + margin;

        double extent[3], wanted[3];
        for (int k = 0; k < 3; ++k) {
            grid_.pbc[k] = structure_.pbc[k];
            const double thickness = 1 / norm(grid_.dual[k]);  // distance between lattice planes
            extent[k] = grid_.pbc[k] ? 1 : std::max(0.0, high[k] - grid_.low[k]);
            if (grid_.pbc[k]) grid_.low[k] = 0;
            wanted[k] = std::max(1.0, std::floor(extent[k] * thickness / (reach / 2)));
            if (!std::isfinite(wanted[k])) wanted[k] = 1;
        }
        const double most = static_cast<double>(n) + 1;
        while (wanted[0] * wanted[1] * wanted[2] > most) {
            double& largest = *std::max_element(wanted, wanted + 3);
            largest = std::max(1.0, std::floor(largest / 2));
        }
        for (int k = 0; k < 3; ++k) {
            grid_.bins[k] = static_cast<std::int64_t>(wanted[k]);
            grid_.per_unit[k] = extent[k] > 0 ? wanted[k] / extent[k] : 0;
            // An infinite cutoff sees every bin of an open system.
            grid_.reach[k] = std::isfinite(reach) ? reach * norm(grid_.dual[k]) * grid_.per_unit[k] : wanted[k];
        }
    }

    void fill_bins() {
        const std::int64_t n = structure_.positions.rows;
        place_.resize(n);
        wrap_.resize(n);
        std::vector<std::int64_t> bin_of(n);
        bin_ptr_.assign(grid_.bins[0] * grid_.bins[1] * grid_.bins[2] + 1, 0);
        for (std::int64_t i = 0; i < n; ++i) {
            std::int64_t linear = 0;
            for (int k = 0; k < 3; ++k) {
                double x = coordinates_[i][k] - grid_.low[k];
                wrap_[i][k] = 0;
                if (grid_.pbc[k]) {
                    const double cells = std::floor(x);
                    if (!(std::abs(cells) < 1e9))
                        throw std::invalid_argument("atom " + std::to_string(i) +
                                                    " lies more than a billion cells away from the cell");
                    wrap_[i][k] = static_cast<std::int64_t>(cells);
                    x -= cells;
                }
                place_[i][k] = x * grid_.per_unit[k];
                const auto bin = static_cast<std::int64_t>(place_[i][k]);
                linear = linear * grid_.bins[k] + std::clamp<std::int64_t>(bin, 0, grid_.bins[k] - 1);
            }
            bin_of[i] = linear;
            ++bin_ptr_[linear + 1];
        }
        for (std::size_t b = 1; b < bin_ptr_.size(); ++b) bin_ptr_[b] += bin_ptr_[b - 1];
        bin_atoms_.resize(n);
        std::vector<std::int64_t> cursor(bin_ptr_.begin(), bin_ptr_.end() - 1);
        for (std::int64_t i = 0; i < n; ++i) bin_atoms_[cursor[bin_of[i]]++] = i;
    }

    const Structure<T>& structure_;
    T cutoff_;
    std::array<Vec, 3> cell_{};  // in double, zero on non-periodic axes
    Cell<T> exact_cell_;
    Grid grid_;
    std::vector<Vec> coordinates_, place_;
    std::vector<std::array<std::int64_t, 3>> wrap_;
    std::vector<std::int64_t> bin_ptr_, bin_atoms_;
};

template <class T>
void check_input(const Structure<T>& structure, T cutoff) {
    if (!(cutoff > 0)) throw std::invalid_argument("expected a positive cutoff, got " + std::to_string(cutoff));
    for (std::int64_t i = 0; i < structure.positions.rows; ++i)
        for (int c = 0; c < 3; ++c)
            if (!std::isfinite(structure.positions.row(i)[c]))
                throw std::invalid_argument("expected finite positions, got " +
                                            std::to_string(structure.positions.row(i)[c]) + " for atom " +
                                            std::to_string(i));
    const bool* pbc = structure.pbc;
    if (std::isinf(cutoff) && (pbc[0] || pbc[1] || pbc[2]))
        throw std::invalid_argument("expected a finite cutoff for a periodic system, got infinity");
}

}  // namespace

template <class T>
EdgeList neighbors(const Structure<T>& structure, T cutoff, bool self_interaction, int n_threads) {
    check_input(structure, cutoff);
    const std::int64_t n = structure.positions.rows;
    EdgeList list;
    list.row_ptr.assign(n + 1, 0);
    if (n == 0) return list;
    const CellList<T> cells(structure, cutoff);

    constexpr std::int64_t kChunk = 64;  // atoms; fixed, so that nothing depends on the number of threads
    const std::int64_t n_chunks = (n - 1) / kChunk + 1;
    std::vector<std::vector<Entry>> chunks(n_chunks);
    parallel_for(n_chunks, 1, n_threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<Entry> found;
        for (std::int64_t c = begin; c < end; ++c)
            for (std::int64_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i) {
                cells.find(i, self_interaction, found);
                chunks[c].insert(chunks[c].end(), found.begin(), found.end());
                list.row_ptr[i + 1] = static_cast<std::int64_t>(found.size());
            }
    });
    for (std::int64_t i = 0; i < n; ++i) list.row_ptr[i + 1] += list.row_ptr[i];
    list.senders.resize(list.row_ptr[n]);
    list.shifts.resize(3 * list.row_ptr[n]);
    parallel_for(n_chunks, 1, n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t c = begin; c < end; ++c) {
            std::int64_t k = list.row_ptr[c * kChunk];
            for (const Entry& entry : chunks[c]) {
                list.senders[k] = entry.sender;
                std::copy(entry.shift, entry.shift + 3, &list.shifts[3 * k]);
                ++k;
            }
        }
    });
    return list;
}

template <class T>
EdgeList edges_within(const Structure<T>& structure, const std::int64_t* row_ptr, const std::int64_t* senders,
                      const std::int32_t* shifts, T cutoff, EdgeVectors<T>& vectors) {
    check_input(structure, cutoff);
    const std::int64_t n = structure.positions.rows;
    EdgeList list;
    list.row_ptr.assign(n + 1, 0);
    const std::int64_t most = row_ptr[n];
    list.senders.resize(most);
    list.shifts.resize(3 * most);
    vectors.receivers.resize(most);
    vectors.vectors.resize(3 * most);
    vectors.distances.resize(most);
    Cell<T> cell;
    for (int k = 0; k < 3; ++k)
        for (int c = 0; c < 3; ++c) cell.rows[k][c] = structure.pbc[k] ? structure.cell.rows[k][c] : T(0);
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t k = row_ptr[i]; k < row_ptr[i + 1]; ++k) {
            T d[3];
            edge_vector(structure.positions.row(i), structure.positions.row(senders[k]), &shifts[3 * k], cell, d);
            const T r = length(d);
            if (!(r < cutoff)) continue;
            list.senders[kept] = senders[k];
            std::copy(&shifts[3 * k], &shifts[3 * k] + 3, &list.shifts[3 * kept]);
            vectors.receivers[kept] = i;
            std::copy(d, d + 3, &vectors.vectors[3 * kept]);
            vectors.distances[kept] = r;
            ++kept;
        }
        list.row_ptr[i + 1] = kept;
    }
    list.senders.resize(kept);
    list.shifts.resize(3 * kept);
    vectors.receivers.resize(kept);
    vectors.vectors.resize(3 * kept);
    vectors.distances.resize(kept);
    return list;
}

#define MDGNN_INSTANTIATE(T)                                                                         \
    template EdgeList neighbors<T>(const Structure<T>&, T, bool, int);                               \
    template EdgeList edges_within<T>(const Structure<T>&, const std::int64_t*, const std::int64_t*, \
                                      const std::int32_t*, T, EdgeVectors<T>&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
