// painn_message: the message of PaiNN (Schuett, Unke and Gastegger, ICML 2021), scalars and vectors in one pass.
//
//   ds[i] = sum_k a,   dv[i, c] = sum_k  u[k, c] b + v[j, c] d,   (a, b, d) = x[j] W(r[k])
//
// over the edges k of receiver i, with sender j; a, b, d are blocks of F of the 3 F columns, W is a table. Edges at or
// beyond its cutoff count for nothing. No array of edges x features exists: the derivatives interpolate W again.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn {

// Arguments shared by the three functions.
template <class T>
struct PainnMessage {
    Rows rows;          // by receiver; index: the sender of each edge
    Rows columns;       // by sender; index: the receiver of each edge, edge: its number. Needed for results for x and v
    Matrix<const T> x;  // (N, 3 F)
    Matrix<const T> v;  // (N, 3 F): three components of F each
    RadialTable<T> table;
    const T* r = nullptr;      // (E)
    const T* unit = nullptr;   // (E, 3)
    TableWorkspace workspace;  // for results for coefficients
    bool adds = false;         // the CPU's backward adds to r and unit what it would write

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("x", x);
        visit("v", v);
        visit("table", table);
        visit("r", r);
        visit("unit", unit);
        visit("workspace", workspace);
    }
};

// Of the results: scalars (N, F), vectors (N, 3 F).
template <class T>
struct PainnResult {
    Matrix<T> s, v;

    template <class V>
    void fields(V&& visit) {
        visit("s", s);
        visit("v", v);
    }
};

// One for each input: x (N, 3 F), v (N, 3 F), coefficients (n_intervals, 4, 3 F), r (E), unit (E, 3).
template <class T>
struct PainnGradients {
    Matrix<T> x, v;
    T *coefficients = nullptr, *r = nullptr, *unit = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("x", x);
        visit("v", v);
        visit("coefficients", coefficients);
        visit("r", r);
        visit("unit", unit);
    }
};

#define MDGNN_PAINN_MESSAGE_INTERFACE                                                                                 \
    template <class T>                                                                                                \
    void painn_message(const PainnMessage<T>& op, const PainnResult<T>& out, const Context& context);                 \
                                                                                                                      \
    /* grad is d/d results. x and v come together, and r and unit; each pair and coefficients may be null. */         \
    template <class T>                                                                                                \
    void painn_message_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad,                          \
                                const PainnGradients<T>& out, const Context& context);                                \
                                                                                                                      \
    /* The derivative of <grad2, results of backward>, for grad (out_grad, may be null) and the inputs.               \
       grad2.coefficients is not read: what multiplies that gradient takes the place of the table in calls of the two \
       others. */                                                                                                     \
    template <class T>                                                                                                \
    void painn_message_double_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad,                   \
                                       const PainnGradients<const T>& grad2, const PainnResult<T>& out_grad,          \
                                       const PainnGradients<T>& out, const Context& context);

namespace cpu {
MDGNN_PAINN_MESSAGE_INTERFACE
}
namespace cuda {
MDGNN_PAINN_MESSAGE_INTERFACE
}

}  // namespace mdgnn
