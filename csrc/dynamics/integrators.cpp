// Velocity Verlet and Langevin dynamics, operation by operation as ASE's.
//
// Floor: the engine's; these loops take 0.2 us of a step of 13 atoms.
#include <cmath>

#include "dynamics/system.hpp"

namespace mdgnn::dynamics {

// Swope, Andersen, Berens and Wilson, J. Chem. Phys. 76, 637 (1982).
void velocity_verlet(System& s, const Model& model, double timestep, std::int64_t n_steps, int n_threads) {
    std::vector<double> before;
    const std::size_t size = s.positions.size();
    const double half = 0.5 * timestep;
    for (std::int64_t step = 0; step < n_steps; ++step, ++s.n_steps) {
        if (!find_forces(s, model, n_threads)) return;
        if (s.constrained()) before = s.positions;
        for (std::size_t k = 0; k < size; ++k) {
            s.momenta[k] += half * s.forces[k];
            s.positions[k] += timestep * s.momenta[k] / s.masses[k / 3];
        }
        if (s.constrained()) {
            constrain_positions(s, before, s.positions);
            for (std::size_t k = 0; k < size; ++k)
                s.momenta[k] = (s.positions[k] - before[k]) * s.masses[k / 3] / timestep;
        }
        s.known = false;
        if (!find_forces(s, model, n_threads)) return;
        for (std::size_t k = 0; k < size; ++k) s.momenta[k] += half * s.forces[k];
        constrain_momenta(s, s.momenta);
    }
}

// Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), eq. 23.
void langevin(System& s, const Model& model, double timestep, const Thermostat& thermostat, std::int64_t n_steps,
              int n_threads) {
    const std::size_t size = s.positions.size();
    const double dt = timestep, friction = thermostat.friction;
    const double c1 = dt / 2.0 - dt * dt * friction / 8.0, c2 = dt * friction / 2 - dt * dt * friction * friction / 8.0;
    std::vector<double> before, v(size), to_positions(size), to_velocities(size), c3(size), c4(size), c5(size);
    for (std::size_t k = 0; k < size; ++k) {  // powers take longer than the rest of a step
        const double sigma = std::sqrt(2 * thermostat.temperature * friction / s.masses[k / 3]);
        c3[k] = std::sqrt(dt) * sigma / 2.0 - std::pow(dt, 1.5) * friction * sigma / 8.0;
        c5[k] = std::pow(dt, 1.5) * sigma / (2 * std::sqrt(3.0)), c4[k] = friction / 2.0 * c5[k];
    }
    const double* noise = thermostat.noise;
    for (std::int64_t step = 0; step < n_steps; ++step, ++s.n_steps, noise += 2 * size) {
        if (!find_forces(s, model, n_threads)) return;
        before = s.positions;
        for (std::size_t k = 0; k < size; ++k) {
            const double m = s.masses[k / 3];
            to_positions[k] = c5[k] * noise[size + k];
            to_velocities[k] = c3[k] * noise[k] - c4[k] * noise[size + k];
            v[k] = s.momenta[k] / m;
            v[k] += c1 * s.forces[k] / m - c2 * v[k] + to_velocities[k];
            s.positions[k] = before[k] + dt * v[k] + to_positions[k];
        }
        constrain_positions(s, before, s.positions);
        s.known = false;
        if (!find_forces(s, model, n_threads)) return;
        for (std::size_t k = 0; k < size; ++k) {
            v[k] = (s.positions[k] - before[k] - to_positions[k]) / dt;
            v[k] += c1 * s.forces[k] / s.masses[k / 3] - c2 * v[k] + to_velocities[k];
            s.momenta[k] = v[k] * s.masses[k / 3];
        }
        constrain_momenta(s, s.momenta);
    }
}

}  // namespace mdgnn::dynamics
