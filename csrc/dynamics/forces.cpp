// What the engine makes of the edges at the present positions.
//
// Parallelisation: that of the callers, over systems; of a large one, over atoms. Floor: the engine's time. Lost: 8
// systems of 13 atoms in one call of the engine, which saves a tenth of its time and couples systems that converge at
// different steps.
#include <algorithm>
#include <limits>
#include <stdexcept>

#include "dynamics/system.hpp"

namespace mdgnn::dynamics {
namespace {

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
    try {
        const Edges edges = find_edges(s, model, n_threads);
        s.closest = std::min(s.closest, edges.shortest);
        if (!(edges.shortest >= model.min_distance)) {
            s.status = Status::failed;
            return false;
        }
        engine::Structure structure;
        structure.atomic_numbers = s.atomic_numbers.data();
        structure.rows = edges.rows, structure.columns = edges.columns;
        structure.vectors = edges.vectors;
        model.potential(structure, {s.energies.data(), s.forces.data(), nullptr}, {n_threads, 0, nullptr});
    } catch (const std::invalid_argument&) {  // a position that is not finite
        s.status = Status::failed;
        return false;
    } catch (...) {  // no memory: nothing may go on from within a step
        s.status = Status::failed;
        throw;
    }
    s.known = are_finite(s);
    if (!s.known) s.status = Status::failed;
    return s.known;
}

}  // namespace mdgnn::dynamics
