// scatter_add: gather rows of `values`, weight them, reduce them into rows of receivers, in one pass.
//
//   out[i, f] = reduce_k  w[edge[k]] * values[index[k], f],   k in row_ptr[i] .. row_ptr[i+1]
//
// reduce: sum; mean (sum / number of entries of the row); max (first maximum; an empty row gives 0).
// The derivative ladder is forward, backward, double_backward; sum and mean have all three, max has the first two.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

enum class Reduce : int { sum = 0, mean = 1, max = 2 };

// Arguments shared by the three functions. `rows` groups edges by receiver. `columns` groups the same edges by the
// value that they gather (its index holds receivers); it may be absent when rows.index is null, that is when every
// value belongs to exactly one edge.
template <class T>
struct ScatterAdd {
    Rows rows, columns;
    Matrix<const T> values;     // (n_values, F)
    const T* weight = nullptr;  // (E) or null: 1
    Reduce reduce = Reduce::sum;

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("values", values);
        visit("weight", weight);
        visit("reduce", reduce);
    }
};

#define MDGNN_SCATTER_ADD_INTERFACE                                                                                  \
    /* out (n_rows, F); argmax (n_rows, F), only for max: the winning edge, -1 in an empty row. */                   \
    template <class T>                                                                                               \
    void scatter_add(const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, const Context& context);          \
                                                                                                                     \
    /* grad (n_rows, F) is d/d out. Either result may be null: out_values (n_values, F), out_weight (E). */          \
    template <class T>                                                                                               \
    void scatter_add_backward(const ScatterAdd<T>& op, Matrix<const T> grad, const std::int64_t* argmax,             \
                              Matrix<T> out_values, T* out_weight, const Context& context);                          \
                                                                                                                     \
    /* The derivative of <grad2_values, out_values> + <grad2_weight, out_weight> of backward with respect to grad,   \
       values and weight. grad2_* and the results may be null; sum and mean only. */                                 \
    template <class T>                                                                                               \
    void scatter_add_double_backward(const ScatterAdd<T>& op, Matrix<const T> grad, Matrix<const T> grad2_values,    \
                                     const T* grad2_weight, Matrix<T> out_grad, Matrix<T> out_values, T* out_weight, \
                                     const Context& context);

namespace cpu {
MDGNN_SCATTER_ADD_INTERFACE
}
namespace cuda {
MDGNN_SCATTER_ADD_INTERFACE
}

}  // namespace mdgnn
