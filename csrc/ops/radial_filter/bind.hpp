// A radial table as it crosses from Python.
#pragma once

#include "core/bind.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn {

using TableTuple = std::tuple<Address, std::int64_t, std::int64_t, double>;  // coefficients, n_intervals, width, cutoff

template <class T>
RadialTable<T> table(const TableTuple& t) {
    const auto& [coefficients, n_intervals, width, cutoff] = t;
    const double per_unit = static_cast<double>(n_intervals) / cutoff;
    return {pointer<const T>(coefficients), n_intervals, width, static_cast<T>(cutoff), static_cast<T>(per_unit)};
}

using WorkspaceTuple = std::tuple<Address, std::int64_t>;  // memory, n_edges

inline TableWorkspace workspace(const WorkspaceTuple& t) { return {pointer<void>(std::get<0>(t)), std::get<1>(t)}; }

}  // namespace mdgnn
