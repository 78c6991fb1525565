// What ASE's FixAtoms and FixCom do.
#include <cstddef>

#include "dynamics/system.hpp"

namespace mdgnn::dynamics {
namespace {

struct Vector {
    double of[3] = {0, 0, 0};
};

Vector center_of_mass(const System& s, const std::vector<double>& positions) {
    Vector sum;
    double mass = 0;
    for (std::size_t i = 0; i < s.masses.size(); ++i) {
        for (std::size_t c = 0; c < 3; ++c) sum.of[c] += s.masses[i] * positions[3 * i + c];
        mass += s.masses[i];
    }
    for (double& x : sum.of) x /= mass;
    return sum;
}

void hold(const System& s, std::vector<double>& vectors) {
    for (std::size_t k = 0; k < vectors.size() && !s.fixed.empty(); ++k)
        if (s.fixed[k / 3]) vectors[k] = 0;
}

}  // namespace

void constrain_positions(const System& s, const std::vector<double>& before, std::vector<double>& positions) {
    for (std::size_t k = 0; k < positions.size() && !s.fixed.empty(); ++k)
        if (s.fixed[k / 3]) positions[k] = before[k];
    if (!s.fixed_center_of_mass) return;
    const Vector was = center_of_mass(s, before), is = center_of_mass(s, positions);
    for (std::size_t k = 0; k < positions.size(); ++k) positions[k] += was.of[k % 3] - is.of[k % 3];
}

void constrain_momenta(const System& s, std::vector<double>& momenta) {
    hold(s, momenta);
    if (!s.fixed_center_of_mass) return;
    Vector sum;
    double mass = 0;
    for (double m : s.masses) mass += m;
    for (std::size_t k = 0; k < momenta.size(); ++k) sum.of[k % 3] += momenta[k];
    for (std::size_t k = 0; k < momenta.size(); ++k) momenta[k] -= s.masses[k / 3] * (sum.of[k % 3] / mass);
}

// No force on the whole, as ASE has it.
void constrain_forces(const System& s, std::vector<double>& forces) {
    hold(s, forces);
    if (!s.fixed_center_of_mass) return;
    Vector sum;
    double squares = 0;
    for (double m : s.masses) squares += m * m;
    for (std::size_t k = 0; k < forces.size(); ++k) sum.of[k % 3] += s.masses[k / 3] * forces[k];
    for (std::size_t k = 0; k < forces.size(); ++k) forces[k] -= s.masses[k / 3] * (sum.of[k % 3] / squares);
}

}  // namespace mdgnn::dynamics
