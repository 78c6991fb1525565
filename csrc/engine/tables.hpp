// Tables of functions of the distance, made from the weights of their networks when an engine is made.
#pragma once

#include "engine/program.hpp"

namespace mdgnn::engine {

// Coefficients (knots - 1, 4, width) of a cubic Hermite interpolation, which is what mdgnn.ops.tabulate gives: value
// and derivative at the knots r_k = k cutoff / (knots - 1) in float64, whatever T is, rounded at the end. The same bits
// for any number of threads. Throws std::invalid_argument, with a sentence that names the layer, where they are not
// finite.
template <class T>
void make_tables(const Program& program, Weights<T>& weights, int n_threads);

}  // namespace mdgnn::engine
