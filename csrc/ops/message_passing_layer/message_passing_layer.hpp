// message_passing_layer: a whole layer of SimpleGNN, for the CPU. With F features of an atom and B of an edge,
//
//   sums = concat_message_linear(features, M1[:, 2F:], (h M1[:, :F]^T, h M1[:, F:2F]^T + m1), envelope)
//   total = sums M2^T + n m2
//   hidden = (h, total) U1^T + u1
//   out = h + silu(hidden) U2^T + u2,
//
// where n are the sums of the envelope, M1, m1, M2, m2 the weights and biases of the message's network, U1 .. u2 those
// of the update's.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

// Arguments that both functions share.
template <class T>
struct MessagePassingLayer {
    Rows rows;                          // by receiver; index: the sender of each edge
    Rows columns;                       // by sender; index: the receiver of each edge, edge: its number
    Matrix<const T> h;                  // (N, F)
    Matrix<const T> features;           // (E, B)
    const T* n_neighbours = nullptr;    // (N)
    const T* envelope = nullptr;        // (E) or null: 1
    Matrix<const T> message_1;          // (H, 2 F + B)
    const T* message_bias_1 = nullptr;  // (H)
    Matrix<const T> message_2;          // (K, H)
    const T* message_bias_2 = nullptr;  // (K)
    Matrix<const T> update_1;           // (G, F + K)
    const T* update_bias_1 = nullptr;   // (G)
    Matrix<const T> update_2;           // (F, G)
    const T* update_bias_2 = nullptr;   // (F)

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("h", h);
        visit("features", features);
        visit("n_neighbours", n_neighbours);
        visit("envelope", envelope);
        visit("message_1", message_1);
        visit("message_bias_1", message_bias_1);
        visit("message_2", message_2);
        visit("message_bias_2", message_bias_2);
        visit("update_1", update_1);
        visit("update_bias_1", update_bias_1);
        visit("update_2", update_2);
        visit("update_bias_2", update_bias_2);
    }
};

// What the forward leaves to the backward.
template <class T>
struct MessagePassingLayerSaved {
    Matrix<T> messages;    // (N, 3 H): shares of ends (N, 2 H), then sums of messages (N, H)
    Matrix<T> silu_grads;  // (N, H)
    Matrix<T> total;       // (N, K)
    Matrix<T> hidden;      // (N, G)

    Matrix<T> ends() const { return {messages.data, messages.rows, messages.cols / 3 * 2}; }
    Matrix<T> sums() const {
        return {messages.data + messages.rows * messages.cols / 3 * 2, messages.rows, messages.cols / 3};
    }

    template <class V>
    void fields(V&& visit) {
        visit("messages", messages);
        visit("silu_grads", silu_grads);
        visit("total", total);
        visit("hidden", hidden);
    }
};

// One for each input; each may be null.
template <class T>
struct MessagePassingLayerGradients {
    Matrix<T> h, features;
    T *n_neighbours = nullptr, *envelope = nullptr;
    Matrix<T> message_1;
    T* message_bias_1 = nullptr;
    Matrix<T> message_2;
    T* message_bias_2 = nullptr;
    Matrix<T> update_1;
    T* update_bias_1 = nullptr;
    Matrix<T> update_2;
    T* update_bias_2 = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("h", h);
        visit("features", features);
        visit("n_neighbours", n_neighbours);
        visit("envelope", envelope);
        visit("message_1", message_1);
        visit("message_bias_1", message_bias_1);
        visit("message_2", message_2);
        visit("message_bias_2", message_bias_2);
        visit("update_1", update_1);
        visit("update_bias_1", update_bias_1);
        visit("update_2", update_2);
        visit("update_bias_2", update_bias_2);
    }
};

namespace cpu {

// out (N, F). Of `saved` only silu_grads may be null, where the backward is not to give the gradient of h or of the
// message's first layer.
template <class T>
void message_passing_layer(const MessagePassingLayer<T>& op, Matrix<T> out, const MessagePassingLayerSaved<T>& saved,
                           const Context& context);

// grad (N, F) is d/d out.
template <class T>
void message_passing_layer_backward(const MessagePassingLayer<T>& op, Matrix<const T> grad,
                                    const MessagePassingLayerSaved<const T>& saved,
                                    const MessagePassingLayerGradients<T>& out, const Context& context);

}  // namespace cpu

}  // namespace mdgnn
