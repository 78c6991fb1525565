// The state of one structure that moves: all that its next step depends on, so that it moves alone as it does among
// others.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "core/view.hpp"
#include "engine/engine.hpp"

namespace mdgnn::dynamics {

// What computes: an engine.
using Potential = std::function<void(const engine::Structure&, const engine::Outputs&, const Context&)>;

struct Model {
    Potential potential;
    double cutoff = 0;
    double skin = 0;          // by which the list reaches further, so that it is good for some steps
    double min_distance = 0;  // atoms that are closer are a failure
};

// A neighbour list with a skin, where the atoms were when it was made, and which of its edges are within the cutoff.
struct SkinList {
    std::vector<double> positions;  // empty: there is no list yet
    double largest_square = 0;      // of the way of an atom from there, before another list is needed
    std::vector<std::int64_t> row_ptr, senders;
    std::vector<double> offsets;  // (E, 4): by which the cell moves senders; empty where nothing is periodic

    // At the last positions. Edges by sender only once they are steady.
    double limit = 0;          // of squared distances
    bool steady = false;       // the same edges were within the cutoff at the positions before
    std::vector<char> within;  // (E)
    std::vector<std::int64_t> near_row_ptr, near_senders;
    struct Columns {
        std::vector<std::int64_t> row_ptr, receivers, edges;
    } columns;
};

// The edges at some positions, in the list's memory and, vectors, in the thread's.
struct Edges {
    Rows rows, columns;  // the latter may be absent
    const double* vectors = nullptr;
    double shortest = 0;
};

// Of the relaxation by FIRE, in ASE's names.
struct Fire {
    std::vector<double> velocities;  // empty before the first step
    double dt = 0.1, a = 0.1;
    std::int64_t n_steps = 0;  // since the velocities were last against the forces
};

enum class Status { fine, failed };

// Units are the model's, with ASE's unit of time. Vectors of atoms are (N, 3).
struct System {
    std::int64_t n = 0;
    std::vector<std::int64_t> atomic_numbers;
    std::vector<double> positions, momenta, masses;
    std::vector<char> fixed;  // (N): atoms that do not move; empty: none
    bool fixed_center_of_mass = false;
    double cell[9] = {};
    bool pbc[3] = {};
    double condition = 1;  // of the periodic cell vectors

    // At these positions, if they are known.
    bool known = false;
    std::vector<double> energies, forces;
    double closest = std::numeric_limits<double>::infinity();  // distance of two atoms, ever since it was last asked

    Status status = Status::fine;  // failed: the model cannot treat these positions, or its forces are not finite
    std::int64_t n_steps = 0;      // since positions were last set; integrators count on
    bool converged = false;
    SkinList list;
    Fire fire;

    bool constrained() const { return !fixed.empty() || fixed_center_of_mass; }
};

// Throws std::invalid_argument for a position that is not finite.
Edges find_edges(System& system, const Model& model, int n_threads);

// Energies and forces at the positions, unless they are known. False, with the status, where there are none.
bool find_forces(System& system, const Model& model, int n_threads);

// Positions as the constraints let them be, from where atoms were before; momenta and forces likewise.
void constrain_positions(const System& system, const std::vector<double>& before, std::vector<double>& positions);
void constrain_momenta(const System& system, std::vector<double>& momenta);
void constrain_forces(const System& system, std::vector<double>& forces);

// Friction and temperature (k_B T as an energy) of a thermostat. Noise (n_steps, 2, N, 3) of unit variance: for each
// step what moves momenta, then what moves positions too.
struct Thermostat {
    double friction = 0, temperature = 0;
    const double* noise = nullptr;
};

// So many steps by velocity Verlet; or, with a thermostat, of Langevin dynamics. Both do what ASE's integrators do in
// the same order: without FixCom, the same bits. They end early where the system fails.
void velocity_verlet(System& system, const Model& model, double timestep, std::int64_t n_steps, int n_threads);
void langevin(System& system, const Model& model, double timestep, const Thermostat& thermostat, std::int64_t n_steps,
              int n_threads);

// Up to so many steps of FIRE, as ASE takes them; converged once no force is as large as fmax.
void relax(System& system, const Model& model, double fmax, std::int64_t n_steps, int n_threads);

}  // namespace mdgnn::dynamics
