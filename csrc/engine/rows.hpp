// What atoms do each for themselves, row by row; and its derivatives.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "engine/linear.hpp"

namespace mdgnn::engine {

enum class RowCode {
    copy,                    // a
    add,                     // a + b
    multiply,                // a * b
    plus,                    // a + constant
    at_least,                // max(a, constant)
    at_least_slope,          // a where b is at least constant, else 0
    root,                    // sqrt(a + constant)
    root_slope,              // a / (2 b), b the root
    silu,                    // a / (1 + exp(-a))
    silu_slope,              // a times the slope at b
    shifted_softplus,        // log((1 + exp(a)) / 2)
    shifted_softplus_slope,  // a times the slope at b
    scale_vectors,           // a[f] b[c, f]
    dot,                     // sum over c of a[c, f] b[c, f]
    divide,                  // a[f] / b[0]
    divide_slope,            // - sum over f of a[f] b[f] / c[0]^2
};

// out = f(a, b), or out += f(a, b). Vectors (c, f) have three components of `cols` numbers, in rows of their own.
template <class T>
struct RowOp {
    RowCode code;
    Columns<const T> a, b;
    Columns<T> out;
    bool add = false;
    double constant = 0;
    Columns<const T> c = {};
};

// Over rows 0 .. n of out; of scale_vectors and dot, over atoms.
template <class T>
void apply(const RowOp<T>& op, std::int64_t n, const Context& context);

}  // namespace mdgnn::engine
