// cfconv: the continuous-filter convolution of SchNet (Schuett et al., J. Chem. Phys. 148, 241722, 2018).
//
//   out[i, f] = sum_k  x[j, f] W_f(r[k])
//
// over the edges k of receiver i, with sender j; the filter W is a table. Edges at or beyond its cutoff count for
// nothing. No array of edges x features exists: the derivatives interpolate W again.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn {

// Arguments shared by the three functions.
template <class T>
struct CfConv {
    Rows rows;          // by receiver; index: the sender of each edge
    Rows columns;       // by sender; index: the receiver of each edge, edge: its number. Needed for results for x
    Matrix<const T> x;  // (N, C)
    RadialTable<T> table;
    const T* r = nullptr;      // (E)
    TableWorkspace workspace;  // for results for coefficients
    bool adds = false;         // the CPU's backward adds to out_r what it would write

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("x", x);
        visit("table", table);
        visit("r", r);
        visit("workspace", workspace);
    }
};

#define MDGNN_CFCONV_INTERFACE                                                                                         \
    /* out (N, C) */                                                                                                   \
    template <class T>                                                                                                 \
    void cfconv(const CfConv<T>& op, Matrix<T> out, const Context& context);                                           \
                                                                                                                       \
    /* grad (N, C) is d/d out. out_x (N, C), out_r (E) and out_coefficients (n_intervals, 4, C) may be null. */        \
    template <class T>                                                                                                 \
    void cfconv_backward(const CfConv<T>& op, Matrix<const T> grad, Matrix<T> out_x, T* out_r, T* out_coefficients,    \
                         const Context& context);                                                                      \
                                                                                                                       \
    /* The derivative of <grad2_x, out_x> + <grad2_r, out_r> of backward, of which either may be null, with respect to \
       grad, x, r and coefficients; each result may be null. What multiplies out_coefficients takes the place of the   \
       table in calls of the two others. */                                                                            \
    template <class T>                                                                                                 \
    void cfconv_double_backward(const CfConv<T>& op, Matrix<const T> grad, Matrix<const T> grad2_x, const T* grad2_r,  \
                                Matrix<T> out_grad, Matrix<T> out_x, T* out_r, T* out_coefficients,                    \
                                const Context& context);

namespace cpu {
MDGNN_CFCONV_INTERFACE
}
namespace cuda {
MDGNN_CFCONV_INTERFACE
}

}  // namespace mdgnn
