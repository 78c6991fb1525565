// A bound engine for other bindings.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>

#include "engine/engine.hpp"

namespace mdgnn {

using RunEngine = std::function<void(const engine::Structure&, const engine::Outputs&, const Context&)>;

// What an Engine of Python computes; valid while it lives. Throws pybind11::cast_error for anything else, and
// std::invalid_argument for one without energies.
RunEngine run_of(const pybind11::object& engine);

}  // namespace mdgnn
