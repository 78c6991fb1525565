// The edges at the present positions, filtered from a list with a skin, and what the engine makes of them.
//
// The edges are those of a fresh search, bit for bit, whenever the list was made. Their memory belongs to the thread.
//
// Parallelisation: that of the callers, over systems; of a large one, over atoms. Floor: the engine's time, of 13 atoms
// with the shipped lj (PaiNN) 55 us of 57. Lost: a search at each step, 7 us; 8 systems in one call of the engine,
// which saves a tenth of its time and couples systems that converge at different steps.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/scratch.hpp"
#include "dynamics/system.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::dynamics {
namespace {

struct EdgeMemory {
    std::vector<std::int64_t> row_ptr, receivers, senders;
    std::vector<std::int32_t> shifts;
    std::vector<double> vectors, distances;

    void resize(std::int64_t n_edges) {
        const std::size_t e = static_cast<std::size_t>(n_edges);
        receivers.resize(e), senders.resize(e), shifts.resize(3 * e), vectors.resize(3 * e), distances.resize(e);
    }
};

double largest(const double* numbers, std::size_t n) {
    double most = 0;
    for (std::size_t k = 0; k < n; ++k) most = std::max(most, std::abs(numbers[k]));
    return most;
}

// Whether no pair outside of the list can have come within the cutoff. False for positions that are not finite.
bool is_valid(const System& s, const Model& model) {
    const std::vector<double>&r = s.positions, &r0 = s.list.positions;
    if (r0.size() != r.size() || r.empty()) return false;
    const double reach = model.cutoff + model.skin;
    const double size = largest(r.data(), r.size()) + largest(r0.data(), r0.size()) + largest(s.cell, 9) + reach;
    const double rounding = 64 * std::numeric_limits<double>::epsilon() * size * s.condition;
    double square = 0;
    for (std::size_t k = 0; k < r.size(); k += 3) {
        const double x = r[k] - r0[k], y = r[k + 1] - r0[k + 1], z = r[k + 2] - r0[k + 2];
        square = std::max(square, x * x + y * y + z * z);
    }
    return reach - 2 * std::sqrt(square) - rounding > model.cutoff;
}

void search(System& s, const Structures<double>& structure, const Model& model, int n_threads) {
    SkinList& list = s.list;
    list.positions.clear();
    cpu::NeighborSearch<double> search(structure, {model.cutoff + model.skin, false, false, n_threads, {}});
    list.row_ptr.resize(static_cast<std::size_t>(s.n + 1));
    search.count(list.row_ptr.data());
    if (!search.complete()) throw std::bad_alloc();
    const std::size_t n_edges = static_cast<std::size_t>(list.row_ptr.back());
    list.senders.resize(n_edges), list.shifts.resize(3 * n_edges);
    EdgeArrays<double> out;
    out.senders = list.senders.data(), out.shifts32 = list.shifts.data();
    search.fill(list.row_ptr.data(), out);
    list.positions = s.positions;
}

void find_edges(System& s, const Model& model, int n_threads, EdgeMemory& edges) {
    const std::int64_t first[2] = {0, s.n};
    const Structures<double> structure{{s.positions.data(), s.n, 3}, first, 1, s.cell, s.pbc};
    if (!is_valid(s, model)) search(s, structure, model, n_threads);
    const NeighborOptions<double> options{model.cutoff, false, false, n_threads, {}};
    const cpu::ListView list{s.list.row_ptr.data(), s.list.senders.data(), s.list.shifts.data()};
    edges.row_ptr.resize(static_cast<std::size_t>(s.n + 1));
    cpu::count_within(structure, options, list, edges.row_ptr.data());
    edges.resize(edges.row_ptr.back());
    EdgeArrays<double> out;
    out.receivers = edges.receivers.data(), out.senders = edges.senders.data(), out.shifts32 = edges.shifts.data();
    out.vectors = edges.vectors.data(), out.distances = edges.distances.data();
    cpu::fill_within(structure, options, list, edges.row_ptr.data(), out);
}

bool are_finite(const System& s) {
    double sum = 0;  // of zeros, unless a number is not finite
    for (double e : s.energies) sum += 0 * e;
    for (double f : s.forces) sum += 0 * f;
    return sum == 0;
}

}  // namespace

bool find_forces(System& s, const Model& model, int n_threads) {
    if (s.known) return true;
    if (s.status == Status::failed) return false;
    EdgeMemory& edges = scratch_of_this_thread<EdgeMemory>();
    try {
        find_edges(s, model, n_threads, edges);
        double closest = std::numeric_limits<double>::infinity();
        for (double d : edges.distances) closest = std::min(closest, d);
        s.closest = std::min(s.closest, closest);
        if (!(closest >= model.min_distance)) {
            s.status = Status::failed;
            return false;
        }
        engine::Structure structure;
        structure.atomic_numbers = s.atomic_numbers.data();
        structure.rows = {edges.row_ptr.data(), edges.senders.data(), nullptr, s.n};
        structure.vectors = edges.vectors.data();
        model.potential(structure, {s.energies.data(), s.forces.data(), nullptr}, {n_threads, 0, nullptr});
    } catch (const std::invalid_argument&) {  // a position that is not finite
        s.status = Status::failed;
        return false;
    }
    s.known = are_finite(s);
    if (!s.known) s.status = Status::failed;
    return s.known;
}

}  // namespace mdgnn::dynamics
