// A radial table as it crosses from Python.
#pragma once

#include "core/bind.hpp"
#include "radial_filter/math.hpp"

namespace mdgnn {

using TableTuple = std::tuple<Address, std::int64_t, std::int64_t, double>;  // knots, n_knots, width, cutoff

template <class T>
RadialTable<T> table(const TableTuple& t) {
    const auto& [knots, n_knots, width, cutoff] = t;
    const double per_unit = static_cast<double>(n_knots - 1) / cutoff;
    return {pointer<const T>(knots), n_knots, width, static_cast<T>(cutoff), static_cast<T>(per_unit)};
}

}  // namespace mdgnn
