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

// One call at a time: others wait, without the GIL. So whoever has the lock makes no Python objects and reads none.
class Systems {
  public:
    Systems(const py::object& engine, double cutoff, double skin, double min_distance)
        : engine_(engine), model_{run_of(engine), cutoff, skin, min_distance} {}

    // System k, of new atoms; or one more, where k is their number.
    void put(std::int64_t k, const Array<std::int64_t>& atomic_numbers, const Array<double>& masses,
             const Array<double>& cell, const Array<bool>& pbc, double condition, const Array<bool>& fixed,
             bool fixed_center_of_mass) {
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
        locked([&] {
            if (k == static_cast<std::int64_t>(systems_.size()))
                systems_.push_back(std::move(s));
            else
                at(k), systems_[static_cast<std::size_t>(k)] = std::move(s);
        });
    }

    // Whether it is not where it was: then its forces are computed anew, and a failure is forgotten. Its steps count
    // from here.
    bool set(std::int64_t k, const Array<double>& positions, const Array<double>& momenta) {
        std::vector<double> r = numbers_of(positions, positions.size(), "positions"),
                            p = numbers_of(momenta, positions.size(), "momenta");
        return locked([&] {
            System& s = at(k);
            if (static_cast<std::int64_t>(r.size()) != 3 * s.n)
                throw std::invalid_argument("expected positions of " + std::to_string(s.n) + " atoms");
            const bool moved = s.positions != r;
            s.momenta = std::move(p), s.n_steps = 0;
            if (moved) s.positions = std::move(r), s.known = false, s.status = Status::fine, s.converged = false;
            return moved;
        });
    }

    // positions, momenta, steps since they were set; whether energies and forces are known there, and these.
    py::tuple get(std::int64_t k) const {
        std::vector<double> positions, momenta, energies, forces;
        std::int64_t n_steps = 0;
        bool known = false;
        locked([&] {
            const System& s = at(k);
            positions = s.positions, momenta = s.momenta, energies = s.energies, forces = s.forces;
            n_steps = s.n_steps, known = s.known;
        });
        return py::make_tuple(array_of(positions, 3), array_of(momenta, 3), n_steps, known, array_of(energies, 1),
                              array_of(forces, 3));
    }

    // Of systems: whether they failed, whether they converged, steps since they were set, and the least distance of two
    // atoms since this was asked last.
    py::tuple states(const Array<std::int64_t>& which) {
        const py::ssize_t n = which.size();
        py::array_t<bool> failed(n), converged(n);
        py::array_t<std::int64_t> n_steps(n);
        py::array_t<double> closest(n);
        bool *const has_failed = failed.mutable_data(), *const has_converged = converged.mutable_data();
        std::int64_t* const steps = n_steps.mutable_data();
        double* const distance = closest.mutable_data();
        const std::vector<std::int64_t> numbers = numbers_of(which, n, "which");
        locked([&] {
            const std::vector<System*> chosen = choose(numbers);
            for (std::size_t k = 0; k < chosen.size(); ++k) {
                System& s = *chosen[k];
                has_failed[k] = s.status == Status::failed, has_converged[k] = s.converged, steps[k] = s.n_steps;
                distance[k] = std::exchange(s.closest, std::numeric_limits<double>::infinity());
            }
        });
        return py::make_tuple(failed, converged, n_steps, closest);
    }

    void find_forces(const Array<std::int64_t>& which, int n_threads) {
        each(which, n_threads, [&](std::size_t, System& s, int threads) { dynamics::find_forces(s, model_, threads); });
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
        const double* const numbers = noise.data();
        const std::int64_t n_numbers = noise.size();
        const std::vector<std::int64_t> ks = numbers_of(which, which.size(), "which");
        locked([&] {
            const std::vector<System*> chosen = choose(ks);
            std::vector<std::int64_t> first;
            std::int64_t size = 0;
            for (const System* s : chosen) first.push_back(size), size += n_steps * 6 * s->n;
            if (n_numbers != size)
                throw std::invalid_argument("expected noise of " + std::to_string(size) + " numbers, got " +
                                            std::to_string(n_numbers));
            move(chosen, n_threads, [&](std::size_t k, System& s, int threads) {
                dynamics::langevin(s, model_, timestep, {gamma[k], kT[k], numbers + first[k]}, n_steps, threads);
            });
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

    std::vector<System*> choose(const std::vector<std::int64_t>& which) const {
        std::vector<System*> chosen;
        for (std::int64_t k : which) chosen.push_back(&at(k));
        return chosen;
    }

    template <class Body>
    auto locked(const Body& body) const -> decltype(body()) {
        const py::gil_scoped_release release;  // before the lock, so that it is taken back after it
        const std::lock_guard lock(mutex_);
        return body();
    }

    // body(k, system, threads) for each of these.
    template <class Body>
    void each(const Array<std::int64_t>& which, int n_threads, const Body& body) {
        const std::vector<std::int64_t> ks = numbers_of(which, which.size(), "which");
        locked([&] { move(choose(ks), n_threads, body); });
    }

    template <class Body>
    void move(const std::vector<System*>& chosen, int n_threads, const Body& body) const {
        std::vector<System*> sorted = chosen;
        std::sort(sorted.begin(), sorted.end());
        if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
            throw std::invalid_argument("expected each system once");
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
             py::arg("skin"), py::arg("min_distance"))
        .def("put", &Systems::put, py::arg("k"), py::arg("atomic_numbers"), py::arg("masses"), py::arg("cell"),
             py::arg("pbc"), py::arg("condition"), py::arg("fixed"), py::arg("fixed_center_of_mass"))
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
