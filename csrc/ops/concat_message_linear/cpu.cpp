// Parallelisation: as concat_message_table's. The forward goes by receiver, and keeps the sums of gradients of silu
// that the receivers' share of the derivative for `ends` is made of; so the backward goes by sender alone. The double
// backward goes by receiver, and where `ends` wants one works out each message again for its sender. The gradient of
// the weight is summed over blocks of edges whose number depends on that of the edges alone.
// Edges are taken some at a time, whatever their rows, so that the products with the weight are tiles of registers also
// where an atom has two or three edges. What lies between is in the nearest cache.
// Memory traffic per edge: its B features, once a pass, and their gradient; by sender these stand anywhere, and are
// fetched some edges ahead. Arithmetic per edge and feature H: B multiply-adds (forward), 2 B (backward), 3 B with the
// gradient of the weight; one exp and one division a pass.
// In its place there was BLAS, with arrays of edges x H between it and concat_message: energy and forces of the
// lecture's call took 1.3 times as long at 561 atoms. A thread's memory whose address is asked for in loops: that call
// took 1.2 times as long on two threads and 1.8 times on one (Zen 3, in turns with the lecture's code). Features that
// are not fetched ahead: 1.25 times. Products that are compiled into the loops: 0.96 times, at five times the time to
// compile.
#include <algorithm>

#include "core/aligned.hpp"
#include "core/product.hpp"
#include "core/scratch.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/concat_message_linear/concat_message_linear.hpp"
#include "ops/radial_filter/edges.hpp"
#include "ops/silu/wide.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kEdges = 48;  // of a chunk: a multiple of a tile's rows

template <class T>
struct Linear {
    ConcatMessageLinear<T> op;
    Matrix<const T> grad;
    ConcatMessageLinearGradients<const T> by;  // of the double backward
    // (B, H) and (H, B); null: the weight has no second gradient.
    const Packed<T>*from_features = nullptr, *from_outputs = nullptr;
    const Packed<T>*by_from_features = nullptr, *by_from_outputs = nullptr;

    std::int64_t width() const { return op.weight.rows; }
    std::int64_t n_features() const { return op.weight.cols; }
    // Rows of arrays between products are filled up to whole vectors.
    std::int64_t stride() const { return Packed<T>::padded(width()); }
    std::int64_t stride_of_features() const { return Packed<T>::padded(n_features()); }
};

// Some edges in the order of rows.
template <class T>
struct Chunk {
    std::int64_t n = 0;
    bool scattered = false;  // edges do not follow upon each other
    std::int64_t row[kEdges], other[kEdges], edge[kEdges];
    T envelope[kEdges];

    // Calls body(row, begin, end) for the edges of each row.
    template <class Body>
    MDGNN_INLINE void each_row(const Body& body) const {
        for (std::int64_t begin = 0, end; begin < n; begin = end) {
            for (end = begin + 1; end < n && row[end] == row[begin];) ++end;
            body(row[begin], begin, end);
        }
    }
};

template <class T>
struct LinearScratch {
    AlignedVector<T> numbers;
    Chunk<T> chunk;
};

template <class T, class Body>
MDGNN_INLINE void each_chunk(const Linear<T>& p, const Rows& rows, std::int64_t begin, std::int64_t end, Chunk<T>& c,
                             const Body& body) {
    const std::int64_t last = rows.row_ptr[end];
    std::int64_t i = begin;
    c.scattered = rows.edge != nullptr;
    for (std::int64_t k = rows.row_ptr[begin]; k < last; k += c.n) {
        c.n = std::min(kEdges, last - k);
        for (std::int64_t m = 0; m < c.n; ++m) {
            while (rows.row_ptr[i + 1] <= k + m) ++i;
            const std::int64_t edge = rows.edge ? rows.edge[k + m] : k + m;
            c.row[m] = i, c.other[m] = rows.index[k + m], c.edge[m] = edge;
            if (rows.edge) __builtin_prefetch(p.op.features.row(edge));  // anywhere, where rows are senders
            c.envelope[m] = p.op.envelope ? p.op.envelope[edge] : T(1);
        }
        body();
    }
}

// The features (edges, B) of a chunk: where they stand, or copied to `to` if that is anywhere.
template <class T>
const T* features_of(const Chunk<T>& c, Matrix<const T> features, T* to) {
    if (!c.scattered) return features.row(c.edge[0]);
    for (std::int64_t k = 0; k < c.n; ++k) std::copy_n(features.row(c.edge[k]), features.cols, to + k * features.cols);
    return to;
}

// x (edges, padded H) = the sums of two ends of the chunk's edges, or what stands there, plus their features (edges, B)
// times a weight; either may be null. kSent: rows are senders.
template <bool kSent, class T>
void arguments(const Linear<T>& p, const Chunk<T>& c, Matrix<const T> ends, Matrix<const T> features,
               const Packed<T>* weight, T* x) {
    const T *rows[kEdges], *senders[kEdges], *receivers[kEdges];
    Product<T> product{.out = x, .out_stride = p.stride(), .rows = c.n, .cols = p.width(), .add = !ends};
    if (ends) {
        for (std::int64_t k = 0; k < c.n; ++k) {
            senders[k] = ends.row(kSent ? c.row[k] : c.other[k]);
            receivers[k] = ends.row(kSent ? c.other[k] : c.row[k]) + p.width();
        }
        product.start_1 = senders, product.start_2 = receivers;
    }
    if (weight) {
        for (std::int64_t k = 0; k < c.n; ++k) rows[k] = features.row(c.edge[k]);
        product.inner = p.n_features(), product.a_rows = rows;
        product.b = weight->data(), product.b_stride = weight->stride(), product.packed = true;
    }
    multiply(product);
}

// Adds the outer products of a chunk's features with x (edges, padded H) to sums (B, padded H).
template <class T>
void add_to_weight(const Linear<T>& p, std::int64_t n_edges, const T* features, const T* x, T* sums) {
    const std::int64_t stride = p.stride(), n = p.n_features();
    multiply(Product<T>{.a = features,
                        .a_row = 1,
                        .a_inner = n,
                        .b = x,
                        .b_stride = stride,
                        .out = sums,
                        .out_stride = stride,
                        .rows = n,
                        .inner = n_edges,
                        .cols = stride,
                        .add = true,
                        .packed = true});
}

// y (edges, padded B) = x (edges, padded H) times a weight, added to y if `add`.
template <class T>
void to_features(const Linear<T>& p, std::int64_t n_edges, const T* x, const Packed<T>& weight, bool add, T* y) {
    const std::int64_t stride = p.stride_of_features();
    multiply(Product<T>{.a = x,
                        .a_row = p.stride(),
                        .b = weight.data(),
                        .b_stride = stride,
                        .out = y,
                        .out_stride = stride,
                        .rows = n_edges,
                        .inner = p.width(),
                        .cols = stride,
                        .add = add,
                        .packed = true});
}

template <class T>
MDGNN_INLINE void write_features(const Linear<T>& p, const Chunk<T>& c, const T* y, Matrix<T> out) {
    const std::int64_t n = p.n_features(), stride = p.stride_of_features();
    for (std::int64_t k = 0; k < c.n; ++k) std::copy_n(y + k * stride, n, out.row(c.edge[k]));
}

// Whether SiLU has instructions of its own.
template <int kBytes, class T>
constexpr bool kAvx512 = kBytes == 64 && std::is_same_v<T, float>;

// Arrays of a thread: `n` of (kEdges, padded H) and two of (kEdges, padded B).
template <class T>
MDGNN_INLINE T* room(const Linear<T>& p, LinearScratch<T>& scratch, int n) {
    const std::size_t size = static_cast<std::size_t>(kEdges * (n * p.stride() + 2 * p.stride_of_features()));
    if (scratch.numbers.size() < size) scratch.numbers.resize(size);
    return scratch.numbers.data();
}

// --- the passes ------------------------------------------------------------------------------------------------------

// By receiver. kKeep: with the sums of gradients of silu.
template <int kBytes, class T, bool kKeep>
MDGNN_INLINE void sum_messages(const Linear<T>& p, Matrix<T> out, T* silu_grads, std::int64_t begin, std::int64_t end) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t lanes = Wide<T, kBytes>::n;
    const std::int64_t width = p.width(), stride = p.stride();
    LinearScratch<T>& scratch = scratch_of_this_thread<LinearScratch<T>>();
    Chunk<T>& c = scratch.chunk;
    T* const x = room(p, scratch, 1);
    std::fill(out.row(begin), out.row(end), T(0));
    if constexpr (kKeep) std::fill(silu_grads + begin * width, silu_grads + end * width, T(0));
    each_chunk(p, p.op.rows, begin, end, c, [&]() __attribute__((always_inline)) {
        arguments<false>(p, c, p.op.ends, p.op.features, p.from_features, x);
        c.each_row([&](std::int64_t i, std::int64_t first, std::int64_t last) __attribute__((always_inline)) {
            for (std::int64_t f = 0; f < width; f += lanes) {
                const std::int64_t n = std::min(lanes, width - f);
                T* const to = silu_grads + i * width + f;
                V sum, slopes;
                load_some(out.row(i) + f, n, sum);
                if constexpr (kKeep) load_some(to, n, slopes);
                for (std::int64_t k = first; k < last; ++k) {
                    V argument, part;
                    load(x + k * stride + f, argument);
                    const SiluParts<T, V, kAvx512<kBytes, T>> parts(argument);
                    parts.value(part);
                    sum += part * c.envelope[k];
                    if constexpr (kKeep) {
                        parts.slope(part);
                        slopes += part * c.envelope[k];
                    }
                }
                store_some(sum, n, out.row(i) + f);
                if constexpr (kKeep) store_some(slopes, n, to);
            }
        });
    });
}

// By sender. The gradient of the weight is added to weight_sums (B, padded H), unless null.
template <int kBytes, class T, bool kEnvelope>
MDGNN_INLINE void send(const Linear<T>& p, const ConcatMessageLinearGradients<T>& out, T* weight_sums,
                       std::int64_t begin, std::int64_t end) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t lanes = Wide<T, kBytes>::n;
    const std::int64_t width = p.width(), stride = p.stride();
    LinearScratch<T>& scratch = scratch_of_this_thread<LinearScratch<T>>();
    Chunk<T>& c = scratch.chunk;
    T *const x = room(p, scratch, 1), *const y = x + kEdges * stride;
    T* const room_of_features = y + kEdges * p.stride_of_features();
    if (out.ends)
        for (std::int64_t j = begin; j < end; ++j)
            for (std::int64_t f = 0; f < width; ++f) {
                out.ends.row(j)[f] = T(0);
                out.ends.row(j)[width + f] = p.grad.row(j)[f] * p.op.silu_grads[j * width + f];
            }
    each_chunk(p, p.op.columns, begin, end, c, [&]() __attribute__((always_inline)) {
        if (out.features)
            for (std::int64_t k = 0; k < c.n; ++k) __builtin_prefetch(out.features.row(c.edge[k]), 1);
        arguments<true>(p, c, p.op.ends, p.op.features, p.from_features, x);
        if constexpr (kEnvelope)
            for (std::int64_t k = 0; k < c.n; ++k) out.envelope[c.edge[k]] = T(0);
        c.each_row([&](std::int64_t j, std::int64_t first, std::int64_t last) __attribute__((always_inline)) {
            for (std::int64_t f = 0; f < width; f += lanes) {
                const std::int64_t n = std::min(lanes, width - f);
                V sum = {};
                if (out.ends) load_some(out.ends.row(j) + f, n, sum);
                for (std::int64_t k = first; k < last; ++k) {
                    V argument, g, part;
                    load(x + k * stride + f, argument);
                    load_some(p.grad.row(c.other[k]) + f, n, g);
                    const SiluParts<T, V, kAvx512<kBytes, T>> parts(argument);
                    if constexpr (kEnvelope) {
                        T total;
                        parts.value(part);
                        part *= g;
                        sum_of_lanes(part, total);
                        out.envelope[c.edge[k]] += total;
                    }
                    parts.slope(part);
                    part *= g * c.envelope[k];
                    sum += part;
                    store(part, x + k * stride + f);
                }
                if (out.ends) store_some(sum, n, out.ends.row(j) + f);
            }
        });
        if (weight_sums) add_to_weight(p, c.n, features_of(c, p.op.features, room_of_features), x, weight_sums);
        if (out.features) {
            to_features(p, c.n, x, *p.from_outputs, false, y);
            write_features(p, c, y, out.features);
        }
    });
}

// The second derivatives by receiver or, kSent, the senders' share of that for `ends`. q: what multiplies the gradient
// of x.
template <int kBytes, class T, bool kSent>
MDGNN_INLINE void second(const Linear<T>& p, Matrix<T> out_grad, const ConcatMessageLinearGradients<T>& out,
                         T* weight_sums, std::int64_t begin, std::int64_t end) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t lanes = Wide<T, kBytes>::n;
    const std::int64_t width = p.width(), stride = p.stride();
    LinearScratch<T>& scratch = scratch_of_this_thread<LinearScratch<T>>();
    Chunk<T>& c = scratch.chunk;
    T *const x = room(p, scratch, 2), *const q = x + kEdges * stride, *const y = q + kEdges * stride;
    T* const room_of_features = y + kEdges * p.stride_of_features();
    for (std::int64_t i = begin; i < end; ++i) {
        if (!kSent) std::fill_n(out_grad.row(i), width, T(0));
        if (out.ends) std::fill_n(out.ends.row(i) + (kSent ? 0 : width), width, T(0));
    }
    each_chunk(p, kSent ? p.op.columns : p.op.rows, begin, end, c, [&]() __attribute__((always_inline)) {
        arguments<kSent>(p, c, p.op.ends, p.op.features, p.from_features, x);
        if (!p.by.ends) std::fill_n(q, c.n * stride, T(0));
        arguments<kSent>(p, c, p.by.ends, p.op.features, p.by_from_features, q);
        if (p.by.features) arguments<kSent, T>(p, c, {}, p.by.features, p.from_features, q);
        if (!kSent && out.envelope)
            for (std::int64_t k = 0; k < c.n; ++k) out.envelope[c.edge[k]] = T(0);
        c.each_row([&](std::int64_t i, std::int64_t first, std::int64_t last) __attribute__((always_inline)) {
            for (std::int64_t f = 0; f < width; f += lanes) {
                const std::int64_t n = std::min(lanes, width - f);
                T* const of_ends = out.ends ? out.ends.row(i) + (kSent ? 0 : width) + f : nullptr;
                V sum = {}, for_grad = {};
                if (of_ends) load_some(of_ends, n, sum);
                if constexpr (!kSent) load_some(out_grad.row(i) + f, n, for_grad);
                for (std::int64_t k = first; k < last; ++k) {
                    const T envelope = c.envelope[k], by_envelope = p.by.envelope ? p.by.envelope[c.edge[k]] : T(0);
                    V argument, factor, g, silu, slope, curvature;
                    load(x + k * stride + f, argument), load(q + k * stride + f, factor);
                    load_some(p.grad.row(kSent ? c.other[k] : i) + f, n, g);
                    const SiluParts<T, V, kAvx512<kBytes, T>> parts(argument);
                    parts.slope(slope), parts.curvature(curvature);
                    const V gradient = g * (curvature * factor * envelope + slope * by_envelope);
                    sum += gradient;
                    if constexpr (!kSent) {
                        parts.value(silu);
                        const V along = slope * factor;
                        for_grad += along * envelope + silu * by_envelope;
                        if (out.envelope) {
                            T total;
                            sum_of_lanes(V(g * along), total);
                            out.envelope[c.edge[k]] += total;
                        }
                        store(gradient, x + k * stride + f);
                        store(V(g * slope * envelope), q + k * stride + f);
                    }
                }
                if (of_ends) store_some(sum, n, of_ends);
                if constexpr (!kSent) store_some(for_grad, n, out_grad.row(i) + f);
            }
        });
        if constexpr (!kSent) {
            if (weight_sums) {
                add_to_weight(p, c.n, features_of(c, p.op.features, room_of_features), x, weight_sums);
                if (p.by.features)
                    add_to_weight(p, c.n, features_of(c, p.by.features, room_of_features), q, weight_sums);
            }
            if (out.features) {
                to_features(p, c.n, x, *p.from_outputs, false, y);
                if (p.by_from_outputs) to_features(p, c.n, q, *p.by_from_outputs, true, y);
                write_features(p, c, y, out.features);
            }
        }
    });
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                    \
    target void forward_loop(Vectors<bytes>, const Linear<T>& p, Matrix<T> out, T* silu_grads, std::int64_t a,     \
                             std::int64_t b) {                                                                     \
        silu_grads ? sum_messages<bytes, T, true>(p, out, silu_grads, a, b)                                        \
                   : sum_messages<bytes, T, false>(p, out, silu_grads, a, b);                                      \
    }                                                                                                              \
    target void send_loop(Vectors<bytes>, const Linear<T>& p, const ConcatMessageLinearGradients<T>& out, T* sums, \
                          std::int64_t a, std::int64_t b) {                                                        \
        out.envelope ? send<bytes, T, true>(p, out, sums, a, b) : send<bytes, T, false>(p, out, sums, a, b);       \
    }                                                                                                              \
    target void second_loop(Vectors<bytes>, const Linear<T>& p, Matrix<T> out_grad,                                \
                            const ConcatMessageLinearGradients<T>& out, T* sums, std::int64_t a, std::int64_t b) { \
        second<bytes, T, false>(p, out_grad, out, sums, a, b);                                                     \
    }                                                                                                              \
    target void second_sent_loop(Vectors<bytes>, const Linear<T>& p, const ConcatMessageLinearGradients<T>& out,   \
                                 std::int64_t a, std::int64_t b) {                                                 \
        second<bytes, T, true>(p, {}, out, nullptr, a, b);                                                         \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

// body(sums, begin, end) over rows, of which each has a thread; with the gradient of the weight over blocks of them.
template <class T, class Body>
void over_rows(const Linear<T>& p, const Rows& rows, Matrix<T> out_weight, const Context& context, const Body& body) {
    const std::int64_t width = p.width(), stride = p.stride(), n_features = p.n_features();
    if (!out_weight)
        return parallel_for(rows.n_rows, filter_grain(rows, width * (n_features / 8 + 4)), context.n_threads,
                            [&](std::int64_t a, std::int64_t b) { body(static_cast<T*>(nullptr), a, b); });
    AlignedVector<T> sums(static_cast<std::size_t>(n_features * stride));
    sum_over_blocks<T>(rows, n_features * stride, sums.data(), context, body);
    for (std::int64_t f = 0; f < width; ++f)
        for (std::int64_t b = 0; b < n_features; ++b)
            out_weight.row(f)[b] = sums[static_cast<std::size_t>(b * stride + f)];
}

}  // namespace

template <class T>
void concat_message_linear(const ConcatMessageLinear<T>& op, Matrix<T> out, T* out_silu_grads, const Context& context) {
    const Packed<T> weight(op.weight, true);
    const Linear<T> p{op, {}, {}, &weight, nullptr, nullptr, nullptr};
    over_rows<T>(p, op.rows, {}, context, [&](T*, std::int64_t a, std::int64_t b) {
        with_vectors([&](auto v) { forward_loop(v, p, out, out_silu_grads, a, b); });
    });
}

template <class T>
void concat_message_linear_backward(const ConcatMessageLinear<T>& op, Matrix<const T> grad,
                                    const ConcatMessageLinearGradients<T>& out, const Context& context) {
    const Packed<T> weight(op.weight, true), from_outputs(op.weight, false);
    const Linear<T> p{op, grad, {}, &weight, &from_outputs, nullptr, nullptr};
    over_rows<T>(p, op.columns, out.weight, context, [&](T* sums, std::int64_t a, std::int64_t b) {
        with_vectors([&](auto v) { send_loop(v, p, out, sums, a, b); });
    });
}

template <class T>
void concat_message_linear_double_backward(const ConcatMessageLinear<T>& op, Matrix<const T> grad,
                                           const ConcatMessageLinearGradients<const T>& grad2, Matrix<T> out_grad,
                                           const ConcatMessageLinearGradients<T>& out, const Context& context) {
    const Packed<T> weight(op.weight, true), from_outputs(op.weight, false);
    const Packed<T> by_weight(grad2.weight, true), by_from_outputs(grad2.weight, false);
    const bool by = static_cast<bool>(grad2.weight);
    const Linear<T> p{
        op, grad, grad2, &weight, &from_outputs, by ? &by_weight : nullptr, by ? &by_from_outputs : nullptr};
    over_rows<T>(p, op.rows, out.weight, context, [&](T* sums, std::int64_t a, std::int64_t b) {
        with_vectors([&](auto v) { second_loop(v, p, out_grad, out, sums, a, b); });
    });
    if (out.ends)
        over_rows<T>(p, op.columns, {}, context, [&](T*, std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { second_sent_loop(v, p, out, a, b); });
        });
}

#define MDGNN_INSTANTIATE(T)                                                                                        \
    template void concat_message_linear<T>(const ConcatMessageLinear<T>&, Matrix<T>, T*, const Context&);           \
    template void concat_message_linear_backward<T>(const ConcatMessageLinear<T>&, Matrix<const T>,                 \
                                                    const ConcatMessageLinearGradients<T>&, const Context&);        \
    template void concat_message_linear_double_backward<T>(const ConcatMessageLinear<T>&, Matrix<const T>,          \
                                                           const ConcatMessageLinearGradients<const T>&, Matrix<T>, \
                                                           const ConcatMessageLinearGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
