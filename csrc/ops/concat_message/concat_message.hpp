// concat_message: the message of SimpleGNN after splitting its first Linear by blocks, summed over neighbours.
//
//   out[i, f] = sum_k  w[k] silu(x[k, f]),   x[k, f] = (ends[j, f] + ends[i, H + f]) + edge_part[k, f],
//
// over the edges k of receiver i, with sender j = index[k]. The derivatives compute x again,
// so that of size edges x features only edge_part is kept for them.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

// Arguments shared by the three functions.
template <class T>
struct ConcatMessage {
    Rows rows;                     // by receiver; index: the sender of each edge
    Rows columns;                  // by sender; index: the edges. Needed where a result for `ends` is wanted
    Matrix<const T> edge_part;     // (E, H)
    std::int64_t edge_stride = 0;  // from one row of edge_part to the next
    Matrix<const T> ends;          // (N, 2 H): an atom's share as a sender, then as a receiver
    const T* envelope = nullptr;   // (E) or null: 1

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("edge_part", edge_part);
        visit("edge_stride", edge_stride);
        visit("ends", ends);
        visit("envelope", envelope);
    }
};

// What multiplies the results of backward: edge_part (E, H), ends (N, 2 H), envelope (E); each may be null.
template <class T>
struct ConcatMessageGrad2 {
    Matrix<const T> edge_part, ends;
    const T* envelope = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("edge_part", edge_part);
        visit("ends", ends);
        visit("envelope", envelope);
    }
};

#define MDGNN_CONCAT_MESSAGE_INTERFACE                                                                               \
    /* out (N, H) */                                                                                                 \
    template <class T>                                                                                               \
    void concat_message(const ConcatMessage<T>& op, Matrix<T> out, const Context& context);                          \
                                                                                                                     \
    /* grad (N, H) is d/d out. out_edge_part (E, H) is always written; out_ends (N, 2 H) and out_envelope (E) may be \
       null. */                                                                                                      \
    template <class T>                                                                                               \
    void concat_message_backward(const ConcatMessage<T>& op, Matrix<const T> grad, Matrix<T> out_edge_part,          \
                                 Matrix<T> out_ends, T* out_envelope, const Context& context);                       \
                                                                                                                     \
    /* The derivative of <grad2, results of backward> with respect to grad, edge_part, ends and envelope. out_grad   \
       (N, H) and out_edge_part (E, H) are always written; out_ends (N, 2 H) and out_envelope (E) may be null. */    \
    template <class T>                                                                                               \
    void concat_message_double_backward(                                                                             \
        const ConcatMessage<T>& op, Matrix<const T> grad, const ConcatMessageGrad2<T>& grad2, Matrix<T> out_grad,    \
        Matrix<T> out_edge_part, Matrix<T> out_ends, T* out_envelope, const Context& context);

namespace cpu {
MDGNN_CONCAT_MESSAGE_INTERFACE
}
namespace cuda {
MDGNN_CONCAT_MESSAGE_INTERFACE
}

}  // namespace mdgnn
