// concat_message_table: concat_message whose share of the edge is a table of the distance, with the envelope beside it.
//
//   out[i, f] = sum_k  c(r[k]) silu(x[k, f]),   x[k, f] = (ends[j, f] + ends[i, H + f]) + t_f(r[k]),   s[i] = sum_k
//   c(r[k])
//
// over the edges k of receiver i, with sender j; the table has the H functions t_f and, as its last column, c. Edges at
// or beyond its cutoff count for nothing. No array of edges x features exists.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn {

// Arguments shared by the three functions.
template <class T>
struct ConcatMessageTable {
    Rows rows;     // by receiver; index: the sender of each edge
    Rows columns;  // by sender; index: the receiver of each edge, edge: its number. For derivatives but the table's
    Matrix<const T> ends;  // (N, 2 H): an atom's share as a sender, then as a receiver
    RadialTable<T> table;  // of H + 1
    const T* r = nullptr;  // (E)
    const T* silu_grads =
        nullptr;               // (N, H), of the forward; for the CPU's backward, where it is to give that of `ends`
    TableWorkspace workspace;  // for results for coefficients, on CUDA: memory, and (E, 4) numbers, 32-byte aligned
    T* of_edges = nullptr;
    bool adds = false;  // the CPU's backward adds to r what it would write

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("ends", ends);
        visit("table", table);
        visit("r", r);
        visit("silu_grads", silu_grads);
        visit("workspace", workspace);
        visit("of_edges", of_edges);
    }
};

// Of the results: messages (N, H) and s (N); from the CPU's forward also (N, H) sums of c(r[k]) silu'(x[k, f]), if not
// null: what the gradient of the messages is multiplied by for the receiver's share of `ends`.
template <class T>
struct ConcatMessageResult {
    Matrix<T> messages;
    T *s = nullptr, *silu_grads = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("messages", messages);
        visit("s", s);
        visit("silu_grads", silu_grads);
    }
};

// One for each input: ends (N, 2 H), coefficients (n_intervals, 4, H + 1), r (E).
template <class T>
struct ConcatMessageGradients {
    Matrix<T> ends;
    T *coefficients = nullptr, *r = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("ends", ends);
        visit("coefficients", coefficients);
        visit("r", r);
    }
};

#define MDGNN_CONCAT_MESSAGE_TABLE_INTERFACE                                                                      \
    template <class T>                                                                                            \
    void concat_message_table(const ConcatMessageTable<T>& op, const ConcatMessageResult<T>& out,                 \
                              const Context& context);                                                            \
                                                                                                                  \
    /* grad is d/d results. Of `out` each may be null. */                                                         \
    template <class T>                                                                                            \
    void concat_message_table_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad, \
                                       const ConcatMessageGradients<T>& out, const Context& context);             \
                                                                                                                  \
    /* The derivative of <grad2, results of backward>, for grad and the inputs. grad2.coefficients may be null;   \
       out_grad may be, and each of `out`. */                                                                     \
    template <class T>                                                                                            \
    void concat_message_table_double_backward(                                                                    \
        const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,                                \
        const ConcatMessageGradients<const T>& grad2, const ConcatMessageResult<T>& out_grad,                     \
        const ConcatMessageGradients<T>& out, const Context& context);

namespace cpu {
MDGNN_CONCAT_MESSAGE_TABLE_INTERFACE
}
namespace cuda {
MDGNN_CONCAT_MESSAGE_TABLE_INTERFACE
}

}  // namespace mdgnn
