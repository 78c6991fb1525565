// The grid of a structure, the place of an atom in it and the bins around one: shared by host and device. Bins only
// propose pairs, in double precision; whether a pair is an edge is decided elsewhere, exactly.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/host_device.hpp"

namespace mdgnn {

// Why a search is refused; `neighbor_error` has the sentences. Those that hold for an atom or a structure come with it.
enum class NeighborCode : std::int64_t {
    fine = 0,
    position = 1,         // of an atom: not finite
    infinite_cutoff = 2,  // with a periodic axis
    singular_cell = 3,    // of a structure
    overflow = 4,         // squares of lengths are not finite
    long_cutoff = 5,      // a million cells
    many_images = 6,      // of a structure: a search would seem to hang
    far_atom = 7,         // of an atom: a billion cells away
};

struct Vec {
    double at[3] = {};

    MDGNN_HD double& operator[](int k) { return at[k]; }
    MDGNN_HD const double& operator[](int k) const { return at[k]; }
};

// Parallelepipeds along the lattice directions of a structure; an axis that is not periodic gets a direction orthogonal
// to the others.
struct Grid {
    Vec cell[3], dual[3];  // cell: zero on axes that are not periodic
    bool pbc[3] = {};
    double low[3] = {}, per_unit[3] = {};  // bin = floor((r . dual - low) per_unit)
    std::int64_t n[3] = {1, 1, 1};         // bins of a periodic axis
    std::int64_t range[3] = {};            // a neighbour is at most so many bins away
    double condition = 1;                  // lengths of the lattice directions over their volume
    double cutoff = 0, reach = 0;          // reach: with what rounding may add
};

// More atoms than this in a bin as wide as the cutoff, and it is halved: fewer candidates then outweigh shorter loops.
inline constexpr double kCrowded = 100;

// So few atoms of an open structure share one bin: to try all pairs costs less than to sort candidates for each bin.
inline constexpr std::int64_t kFew = 192;

// Constants, because device code cannot call functions of the standard library.
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
template <class T>
inline constexpr double kEpsilon = static_cast<double>(std::numeric_limits<T>::epsilon());

// Bins and images that are visited around one bin.
inline constexpr double kMostVisits = 1e8;

MDGNN_HD inline double larger(double a, double b) { return a < b ? b : a; }
MDGNN_HD inline double smaller(double a, double b) { return b < a ? b : a; }

MDGNN_HD inline Vec cross(const Vec& a, const Vec& b) {
    return {{a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}};
}
MDGNN_HD inline double dot(const Vec& a, const Vec& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
MDGNN_HD inline double norm(const Vec& a) { return std::sqrt(dot(a, a)); }
MDGNN_HD inline Vec scaled(const Vec& a, double s) { return {{s * a[0], s * a[1], s * a[2]}}; }

// A unit vector orthogonal to a (and to b, unless b is zero).
MDGNN_HD inline Vec orthogonal_to(const Vec& a, const Vec& b) {
    Vec other = b;
    if (!(norm(b) > 0)) {
        int smallest = 0;
        for (int c = 1; c < 3; ++c)
            if (std::abs(a[c]) < std::abs(a[smallest])) smallest = c;
        other[smallest] = 1;
    }
    const Vec c = cross(a, other);
    return scaled(c, 1 / norm(c));
}

// Three independent directions: the periodic cell vectors, and orthogonal unit vectors for the other axes.
MDGNN_HD inline void complete_cell(const Grid& grid, Vec* basis) {
    const bool periodic = grid.pbc[0] || grid.pbc[1] || grid.pbc[2];
    for (int k = 0; k < 3; ++k) {
        basis[k] = {};
        if (grid.pbc[k]) basis[k] = grid.cell[k];
        if (!periodic) basis[k][k] = 1;
    }
    for (int k = 0; periodic && k < 3; ++k) {
        if (grid.pbc[k]) continue;
        const Vec &a = basis[(k + 1) % 3], &b = basis[(k + 2) % 3];
        basis[k] = norm(a) == 0 ? orthogonal_to(b, a) : orthogonal_to(a, b);
    }
}

// First step: dual vectors, from the cell and pbc of the grid.
MDGNN_HD inline NeighborCode set_axes(Grid& grid) {
    Vec basis[3];
    complete_cell(grid, basis);
    const double volume = dot(basis[0], cross(basis[1], basis[2]));
    const double size = norm(basis[0]) * norm(basis[1]) * norm(basis[2]);
    if (!(std::abs(volume) > 1e-12 * size) || !std::isfinite(volume)) return NeighborCode::singular_cell;
    for (int k = 0; k < 3; ++k) grid.dual[k] = scaled(cross(basis[(k + 1) % 3], basis[(k + 2) % 3]), 1 / volume);
    grid.condition = size / std::abs(volume);
    return NeighborCode::fine;
}

// What must be known of a structure's atoms. Without atoms: low is infinity and high is minus infinity.
struct Extent {
    double low[3] = {}, high[3] = {};  // of r . dual
    double farthest = 0;               // at least the largest distance from the origin
};

// 1.8 |x| of the largest component is more than sqrt(3) |x|.
MDGNN_HD inline double distance_bound(const Vec& r) {
    return 1.8 * larger(larger(std::abs(r[0]), std::abs(r[1])), std::abs(r[2]));
}

MDGNN_HD inline double count_visits(const Grid& grid) {
    double visits = 1;
    for (int k = 0; k < 3; ++k) visits *= 2 * static_cast<double>(grid.range[k]) + 1;
    return visits;
}

// Second step: bins. `epsilon` is that of the type that positions have.
MDGNN_HD inline NeighborCode set_bins(Grid& grid, const Extent& atoms, std::int64_t n_atoms, double cutoff,
                                      double epsilon) {
    // The test of a pair is exact in T; the search must not lose one to rounding, so it reaches further by what
    // positions, coordinates and S @ cell can be wrong. In a skewed cell the parts of S @ cell are longer than the
    // whole.
    const bool periodic = grid.pbc[0] || grid.pbc[1] || grid.pbc[2];
    double scale = 2 * atoms.farthest + (periodic ? cutoff : smaller(cutoff, atoms.farthest));
    for (int k = 0; k < 3; ++k) scale += norm(grid.cell[k]);
    grid.cutoff = cutoff;
    grid.reach = cutoff + 16 * scale * grid.condition * epsilon;
    if (!std::isfinite(grid.reach) && std::isfinite(cutoff)) return NeighborCode::overflow;

    double extent[3], thickness[3], box = 1;  // lengths along the normals of the lattice planes
    for (int k = 0; k < 3; ++k) {
        thickness[k] = 1 / norm(grid.dual[k]);
        extent[k] = (grid.pbc[k] ? 1 : larger(0.0, atoms.high[k] - atoms.low[k])) * thickness[k];
        grid.low[k] = grid.pbc[k] ? 0 : atoms.low[k];
        box *= larger(extent[k], smaller(grid.reach, 1e150));
    }
    const double side = smaller(grid.reach, 1e100);
    const double parts = static_cast<double>(n_atoms) * (side * side * side) / box > kCrowded ? 2 : 1;
    for (int k = 0; k < 3; ++k) {
        double width = grid.reach / parts;
        if (grid.pbc[k]) {
            grid.n[k] = static_cast<std::int64_t>(smaller(larger(std::floor(extent[k] / width), 1.0), 1e6));
            width = extent[k] / static_cast<double>(grid.n[k]);
            grid.per_unit[k] = static_cast<double>(grid.n[k]);
        } else {
            width = larger(width, extent[k] * 1e-12);  // so that numbers of bins stay exact integers
            if (!periodic && n_atoms <= kFew) width = kInfinity;
            grid.per_unit[k] = thickness[k] / width;  // zero for an infinite width: one bin
        }
        const double bins = std::isfinite(grid.reach) ? std::ceil(grid.reach / width * (1 - 4 * kEpsilon<double>)) : 0;
        if (!(bins < 1e6)) return NeighborCode::long_cutoff;
        grid.range[k] = static_cast<std::int64_t>(bins);
    }
    return count_visits(grid) > kMostVisits ? NeighborCode::many_images : NeighborCode::fine;
}

// r . dual
MDGNN_HD inline Vec coordinates_of(const Grid& grid, const Vec& r) {
    return {{dot(r, grid.dual[0]), dot(r, grid.dual[1]), dot(r, grid.dual[2])}};
}

// The bin of an atom, and how many cells it is away from the cell; false if those are a billion.
MDGNN_HD inline bool place_of(const Grid& grid, const Vec& coordinates, std::int64_t* place, std::int32_t* wrap) {
    for (int k = 0; k < 3; ++k) {
        double u = coordinates[k] - grid.low[k];
        wrap[k] = 0;
        if (grid.pbc[k]) {
            const double whole = std::floor(u);
            if (!(std::abs(whole) < 1e9)) return false;
            wrap[k] = static_cast<std::int32_t>(whole);
            u -= whole;
        }
        place[k] = static_cast<std::int64_t>(std::floor(u * grid.per_unit[k]));
        if (!grid.pbc[k]) continue;
        if (place[k] < 0) place[k] = 0;
        if (place[k] >= grid.n[k]) place[k] = grid.n[k] - 1;
    }
    return true;
}

// The bin `at` bins away from a place, and the image of the cell that it lies in.
MDGNN_HD inline void neighbor_place(const Grid& grid, const std::int64_t* place, const std::int64_t* at,
                                    std::int64_t* target, std::int32_t* image) {
    for (int k = 0; k < 3; ++k) {
        target[k] = place[k] + at[k];
        image[k] = 0;
        if (!grid.pbc[k]) continue;
        // Both are below two million, and a division of 32 bits is several times faster.
        const auto w = static_cast<std::int32_t>(target[k]), n = static_cast<std::int32_t>(grid.n[k]);
        image[k] = w / n - (w % n < 0);
        target[k] = w - image[k] * n;
    }
}

// Where a hash table of bins starts to look.
MDGNN_HD inline std::uint64_t hash_of(std::int64_t structure, const std::int64_t* place) {
    std::uint64_t h = static_cast<std::uint64_t>(structure) * 0x9E3779B97F4A7C15u;
    for (int k = 0; k < 3; ++k) {
        h ^= static_cast<std::uint64_t>(place[k]);
        h *= 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    return h;
}

}  // namespace mdgnn
