// Systems that move on an engine, one or many. numpy in, numpy out; mdgnn/dynamics/compiled.py prepares what comes.
//
// Parallelisation: small systems over threads, one each; a large one on all threads. A thread takes a system through
// all steps of the call, so that its state stays in the cache.
#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bindings/engine.hpp"
#include "bindings/pybind.hpp"
#include "core/thread_pool.hpp"
#include "dynamics/system.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

using dynamics::Status;
using dynamics::System;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <class T>
std::vector<T> numbers_of(const Array<T>& array, std::int64_t n, const char* name) {
    if (array.size() != n)
        throw std::invalid_argument("expected " + std::to_string(n) + " numbers of " + name + ", got " +
                                    std::to_string(array.size()));
    return std::vector<T>(array.data(), array.data() + n);
}

template <class T>
py::array_t<T> array_of(const std::vector<T>& numbers, std::int64_t columns) {
    const std::int64_t n = static_cast<std::int64_t>(numbers.size());
    if (columns == 1) return py::array_t<T>(n, numbers.data());
    return py::array_t<T>({n / columns, columns}, numbers.data());
}

// One call at a time: others wait.
class Systems {
  public:
    Systems(const py::object& engine, double cutoff, double skin, double least_distance)
        : engine_(engine), model_{run_of(engine), cutoff, skin, least_distance} {}

    std::int64_t add(const Array<std::int64_t>& atomic_numbers, const Array<double>& masses, const Array<double>& cell,
                     const Array<bool>& pbc, double condition, const Array<bool>& fixed, bool fixed_center_of_mass) {
        auto s = std::make_unique<System>();
        const std::int64_t n = s->n = atomic_numbers.size();
        s->atomic_numbers = numbers_of(atomic_numbers, n, "atomic_numbers");
        s->masses = numbers_of(masses, n, "masses");
        s->positions.resize(static_cast<std::size_t>(3 * n)), s->momenta = s->forces = s->positions;
        s->energies.resize(static_cast<std::size_t>(n));
        const std::vector<double> vectors = numbers_of(cell, 9, "cell");
        std::copy(vectors.begin(), vectors.end(), s->cell);
        if (pbc.size() != 3) throw std::invalid_argument("expected 3 numbers of pbc");
        std::copy(pbc.data(), pbc.data() + 3, s->pbc);
        if (fixed.size() > 0) {
            if (fixed.size() != n) throw std::invalid_argument("expected as many fixed as atoms");
            s->fixed.assign(fixed.data(), fixed.data() + n);
        }
        s->condition = condition, s->fixed_center_of_mass = fixed_center_of_mass;
        const std::lock_guard lock(mutex_);
        systems_.push_back(std::move(s));
        return static_cast<std::int64_t>(systems_.size()) - 1;
    }

    // Whether it is not where it was: then its forces are computed anew, and a failure is forgotten.
    bool set(std::int64_t k, const Array<double>& positions, const Array<double>& momenta) {
        const std::lock_guard lock(mutex_);
        System& s = at(k);
        std::vector<double> r = numbers_of(positions, 3 * s.n, "positions");
        s.momenta = numbers_of(momenta, 3 * s.n, "momenta");
        const bool moved = s.positions != r;
        if (moved) s.positions = std::move(r), s.known = false, s.status = Status::fine, s.converged = false;
        return moved;
    }

    // positions, momenta, energies and forces.
    py::tuple get(std::int64_t k) const {
        const std::lock_guard lock(mutex_);
        const System& s = at(k);
        return py::make_tuple(array_of(s.positions, 3), array_of(s.momenta, 3), array_of(s.energies, 1),
                              array_of(s.forces, 3));
    }

    // Of systems: whether they failed, whether they converged, steps of the last call, and the least distance of two
    // atoms since this was asked last.
    py::tuple states(const Array<std::int64_t>& which) {
        const std::lock_guard lock(mutex_);
        const std::vector<System*> chosen = choose(which);
        const py::ssize_t n = static_cast<py::ssize_t>(chosen.size());
        py::array_t<bool> failed(n), converged(n);
        py::array_t<std::int64_t> n_steps(n);
        py::array_t<double> closest(n);
        for (py::ssize_t k = 0; k < n; ++k) {
            System& s = *chosen[static_cast<std::size_t>(k)];
            failed.mutable_at(k) = s.status == Status::failed, converged.mutable_at(k) = s.converged;
            n_steps.mutable_at(k) = s.n_steps;
            closest.mutable_at(k) = std::exchange(s.closest, std::numeric_limits<double>::infinity());
        }
        return py::make_tuple(failed, converged, n_steps, closest);
    }

    void find_forces(const Array<std::int64_t>& which, int n_threads) {
        each(which, n_threads, [&](std::size_t, System& s, int threads) {
            s.n_steps = 0;
            dynamics::find_forces(s, model_, threads);
        });
    }

    void velocity_verlet(const Array<std::int64_t>& which, double timestep, std::int64_t n_steps, int n_threads) {
        each(which, n_threads, [&](std::size_t, System& s, int threads) {
            dynamics::velocity_verlet(s, model_, timestep, n_steps, threads);
        });
    }

    // friction and temperature of each of these systems; noise: of one after the other, (n_steps, 2, N, 3).
    void langevin(const Array<std::int64_t>& which, double timestep, const Array<double>& friction,
                  const Array<double>& temperature, const Array<double>& noise, std::int64_t n_steps, int n_threads) {
        const std::vector<double> gamma = numbers_of(friction, which.size(), "friction"),
                                  kT = numbers_of(temperature, which.size(), "temperature");
        std::vector<std::int64_t> first;
        std::int64_t size = 0;
        for (const System* s : choose(which)) first.push_back(size), size += n_steps * 6 * s->n;
        if (noise.size() != size)
            throw std::invalid_argument("expected noise of " + std::to_string(size) + " numbers, got " +
                                        std::to_string(noise.size()));
        const double* const numbers = noise.data();
        each(which, n_threads, [&](std::size_t k, System& s, int threads) {
            dynamics::langevin(s, model_, timestep, {gamma[k], kT[k], numbers + first[k]}, n_steps, threads);
        });
    }

    void relax(const Array<std::int64_t>& which, double fmax, const Array<std::int64_t>& n_steps, int n_threads) {
        const std::vector<std::int64_t> most = numbers_of(n_steps, which.size(), "n_steps");
        each(which, n_threads,
             [&](std::size_t k, System& s, int threads) { dynamics::relax(s, model_, fmax, most[k], threads); });
    }

  private:
    static constexpr std::int64_t kLarge = 200;  // atoms that are worth more than one thread

    System& at(std::int64_t k) const {
        if (k < 0 || k >= static_cast<std::int64_t>(systems_.size()))
            throw std::invalid_argument("expected a system below " + std::to_string(systems_.size()) + ", got " +
                                        std::to_string(k));
        return *systems_[static_cast<std::size_t>(k)];
    }

    std::vector<System*> choose(const Array<std::int64_t>& which) const {
        std::vector<System*> chosen;
        for (py::ssize_t k = 0; k < which.size(); ++k) chosen.push_back(&at(which.at(k)));
        return chosen;
    }

    // body(k, system, threads) for each of these.
    template <class Body>
    void each(const Array<std::int64_t>& which, int n_threads, const Body& body) {
        const std::vector<System*> chosen = choose(which);
        std::vector<System*> sorted = chosen;
        std::sort(sorted.begin(), sorted.end());
        if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
            throw std::invalid_argument("expected each system once");
        py::gil_scoped_release release;  // whoever has the lock does not ask for the GIL
        const std::lock_guard lock(mutex_);
        std::vector<std::size_t> small;
        for (std::size_t k = 0; k < chosen.size(); ++k) {
            if (chosen[k]->n < kLarge)
                small.push_back(k);
            else
                body(k, *chosen[k], n_threads);
        }
        parallel_for(
            static_cast<std::int64_t>(small.size()), 1, n_threads,
            [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t m = begin; m < end; ++m) {
                    const std::size_t k = small[static_cast<std::size_t>(m)];
                    body(k, *chosen[k], 1);
                }
            },
            Team::own);
    }

    py::object engine_;  // which lives as long
    dynamics::Model model_;
    std::vector<std::unique_ptr<System>> systems_;
    mutable std::mutex mutex_;
};

}  // namespace

void bind_dynamics(py::module_& m) {
    py::class_<Systems>(m, "Systems")
        .def(py::init<const py::object&, double, double, double>(), py::arg("engine"), py::arg("cutoff"),
             py::arg("skin"), py::arg("least_distance"))
        .def("add", &Systems::add, py::arg("atomic_numbers"), py::arg("masses"), py::arg("cell"), py::arg("pbc"),
             py::arg("condition"), py::arg("fixed"), py::arg("fixed_center_of_mass"))
        .def("set", &Systems::set, py::arg("k"), py::arg("positions"), py::arg("momenta"))
        .def("get", &Systems::get, py::arg("k"))
        .def("states", &Systems::states, py::arg("which"))
        .def("find_forces", &Systems::find_forces, py::arg("which"), py::arg("n_threads"))
        .def("velocity_verlet", &Systems::velocity_verlet, py::arg("which"), py::arg("timestep"), py::arg("n_steps"),
             py::arg("n_threads"))
        .def("langevin", &Systems::langevin, py::arg("which"), py::arg("timestep"), py::arg("friction"),
             py::arg("temperature"), py::arg("noise"), py::arg("n_steps"), py::arg("n_threads"))
        .def("relax", &Systems::relax, py::arg("which"), py::arg("fmax"), py::arg("n_steps"), py::arg("n_threads"));
}

}  // namespace mdgnn
