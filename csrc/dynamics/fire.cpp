// The fast inertial relaxation engine with the parameters of ASE's FIRE.
//
// Bitzek, Koskinen, Gaehler, Moseler and Gumbsch, Phys. Rev. Lett. 97, 170201 (2006).
#include <algorithm>
#include <cmath>

#include "dynamics/system.hpp"

namespace mdgnn::dynamics {
namespace {

constexpr double kLongestTimestep = 1.0, kLongestStep = 0.2;  // the latter of all atoms together
constexpr double kIncrease = 1.1, kDecrease = 0.5, kStart = 0.1, kFade = 0.99;
constexpr std::int64_t kPatience = 5;

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
    return sum;
}

// Turns velocities to the forces, or ends them where they are against the forces.
void steer(Fire& fire, const std::vector<double>& forces) {
    std::vector<double>& v = fire.velocities;
    if (dot(forces, v) > 0) {
        const double length = std::sqrt(dot(forces, forces)), speed = std::sqrt(dot(v, v));
        for (std::size_t k = 0; k < v.size(); ++k) v[k] = (1.0 - fire.a) * v[k] + fire.a * forces[k] / length * speed;
        if (fire.n_steps > kPatience) fire.dt = std::min(fire.dt * kIncrease, kLongestTimestep), fire.a *= kFade;
        ++fire.n_steps;
    } else {
        std::fill(v.begin(), v.end(), 0.0);
        fire.a = kStart, fire.dt *= kDecrease, fire.n_steps = 0;
    }
}

bool are_below(const std::vector<double>& forces, double fmax) {
    double square = 0;
    for (std::size_t k = 0; k < forces.size(); k += 3)
        square =
            std::max(square, forces[k] * forces[k] + forces[k + 1] * forces[k + 1] + forces[k + 2] * forces[k + 2]);
    return std::sqrt(square) < fmax;
}

}  // namespace

void relax(System& s, const Model& model, double fmax, std::int64_t n_steps, int n_threads) {
    std::vector<double> forces, before;
    for (std::int64_t step = 0;; ++step, ++s.n_steps) {
        if (!find_forces(s, model, n_threads)) return;
        forces = s.forces;
        constrain_forces(s, forces);
        s.converged = are_below(forces, fmax);
        if (s.converged || step == n_steps) return;
        std::vector<double>& v = s.fire.velocities;
        if (v.empty())
            v.assign(forces.size(), 0.0);
        else
            steer(s.fire, forces);
        for (std::size_t k = 0; k < v.size(); ++k) v[k] += s.fire.dt * forces[k];
        const double length = s.fire.dt * std::sqrt(dot(v, v)),
                     scale = length > kLongestStep ? kLongestStep / length : 1;
        before = s.positions;
        for (std::size_t k = 0; k < v.size(); ++k) s.positions[k] += scale * (s.fire.dt * v[k]);
        constrain_positions(s, before, s.positions);
        s.known = false;
    }
}

}  // namespace mdgnn::dynamics
