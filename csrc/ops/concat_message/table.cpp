// Parallelisation: as cfconv's. The forward goes by receiver, and keeps the sums of gradients of silu that the
// receivers' share of the derivative for `ends` is made of; so the backward goes by sender alone. The double backward
// goes by receiver, and leaves what senders sum in the cache for them. The gradient of the table is summed over blocks
// of edges whose number depends on that of the edges alone.
// Memory traffic per edge and pass: 4 (H + 1) numbers of the table and H (forward) or 2 H (backward) of atoms, from the
// cache. Arithmetic per edge and feature, vectorised: 3 multiply-adds of the cubic (backward: 2 more for its slope), 15
// instructions and a division of SiLU's logistic, 8 (backward: 12) others.
// What bound AVX2 before, in vectors of eight, seen in the code: exp in 18 instructions, two of them to bound it and
// one for what the bound leaves; an edge taken twice, for half of 32 features each time, with its place in the table,
// the powers of t and the sum over lanes worked out anew; the slope of the cubic from weights of its own, three
// broadcasts and a product. 320 instructions for an edge of the backward became 215, of the forward 190 became 150.
// Constants and half of the sums come from the stack, as operands of instructions; nothing waits for them. There are no
// gathers. On a Sapphire Rapids core forced to AVX2, F = 32: 28 and 43 ns became 24 and 34 ns, which is half of the
// peak of multiply-adds; two ports of arithmetic are busy for four of five cycles. Alternatives that lost: a backward
// by receiver that leaves its terms for the senders as the double backward does, 1.7 times; to work out each message
// again for its sender; without fused multiply-add, 1.3 times; places in the table found inside the loop over
// features, 1.1 times; a bounded exp in place of the instructions of AVX-512, 1.15 times; rows of the table that begin
// on cache lines, prefetching it, no gain. A table of an eighth of the size: 0.92 times.
#include <algorithm>

#include "core/scratch.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/concat_message/table_pieces.hpp"

namespace mdgnn::cpu {
namespace {

// The edges of a row, of each the envelope with its slope, and a sum over features.
template <class T>
struct Scratch {
    FilterRow<T> row;
    std::vector<T> c, c_slope, sums;
};

// Vectors of features that an edge is taken with: all of 32 features, so that what it needs once is worked out once.
template <int kBytes, class T>
constexpr int kPieces = kBytes == 64 ? 2 : 4;

// Whether SiLU has instructions of its own.
template <int kBytes, class T>
constexpr bool kAvx512 = kBytes == 64 && std::is_same_v<T, float>;

// kKeep: with the sums of gradients of silu.
template <int kBytes, class T, bool kKeep>
MDGNN_INLINE void sum_messages(const Concat<T>& p, const ConcatMessageResult<T>& out, std::int64_t begin,
                               std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    Scratch<T>& scratch = scratch_of_this_thread<Scratch<T>>();
    FilterRow<T>& row = scratch.row;
    const auto coefficients_of = [&](std::int64_t k) { return p.op.table.coefficients + 4 * all * row.interval[k]; };
    for (std::int64_t i = begin; i < end; ++i) {
        find_row(p.op.rows, p.op.table, p.op.r, i, row);
        scratch.c.resize(static_cast<std::size_t>(row.n));
        T* const envelopes = scratch.c.data();
        T s = 0;
        for (std::int64_t k = 0; k < row.n; ++k) {
            cubic(coefficients_of(k) + width, all, row.t[k], envelopes[k]);
            s += envelopes[k];
        }
        out.s[i] = s;
        each_piece<kBytes, T, kPieces<kBytes, T>>(
            width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
                V received[kParts], sum[kParts] = {}, silu_grads[kParts] = {};
                std::memcpy(received, p.op.ends.row(i) + width + f, sizeof received);
                for (std::int64_t k = 0; k < row.n; ++k) {
                    const T *const at = coefficients_of(k) + f, *const ends = p.op.ends.row(row.other[k]) + f;
                    const T t = row.t[k], c = envelopes[k];
                    for (int m = 0; m < kParts; ++m) {
                        V sent, filter, part;
                        load(ends + m * lanes, sent);
                        cubic(at + m * lanes, all, t, filter);
                        const SiluParts<T, V, kAvx512<kBytes, T>> parts((sent + received[m]) + filter);
                        parts.value(part);
                        sum[m] += part * c;
                        if constexpr (kKeep) {
                            parts.slope(part);
                            silu_grads[m] += part * c;
                        }
                    }
                }
                std::memcpy(out.messages.row(i) + f, sum, sizeof sum);
                if constexpr (kKeep) std::memcpy(out.silu_grads + i * width + f, silu_grads, sizeof silu_grads);
            });
    }
}

// By sender: the first derivatives, for r and (kEnds) `ends`.
template <int kBytes, class T, bool kEnds>
MDGNN_INLINE void send(const Concat<T>& p, Matrix<T> out_ends, T* out_r, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    Scratch<T>& scratch = scratch_of_this_thread<Scratch<T>>();
    FilterRow<T>& row = scratch.row;
    for (std::int64_t j = begin; j < end; ++j) {
        const std::int64_t first = p.op.columns.row_ptr[j], last = p.op.columns.row_ptr[j + 1];
        find_row(p.op.columns, p.op.table, p.op.r, j, row);
        if (out_r && !p.op.adds && row.n < last - first)  // some are beyond the cutoff
            for (std::int64_t k = first; k < last; ++k) out_r[edge_at(p.op.columns, k)] = T(0);
        const std::size_t n = static_cast<std::size_t>(row.n);
        scratch.c.resize(n), scratch.c_slope.resize(n), scratch.sums.assign(n, T(0));
        T *const envelopes = scratch.c.data(), *const slopes = scratch.c_slope.data(),
                 *const sums = scratch.sums.data();
        const auto coefficients_of = [&](std::int64_t k) {
            return p.op.table.coefficients + 4 * all * row.interval[k];
        };
        for (std::int64_t k = 0; k < row.n; ++k) {
            interpolate_both(row.t[k], coefficients_of(k) + width, all, envelopes[k], slopes[k]);
            slopes[k] *= per_unit;
        }
        each_piece<kBytes, T, kPieces<kBytes, T>>(
            width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
                V sent[kParts], sum[kParts] = {};
                std::memcpy(sent, p.op.ends.row(j) + f, sizeof sent);
                for (std::int64_t k = 0; k < row.n; ++k) {
                    const T *const at = coefficients_of(k) + f, t = row.t[k], c = envelopes[k];
                    const T* const ends = p.op.ends.row(row.other[k]) + width + f;
                    const T* const gradients = p.grad.messages.row(row.other[k]) + f;
                    V along = {}, across = {};  // what c and its slope multiply
                    for (int m = 0; m < kParts; ++m) {
                        V received, g, filter, filter_slope, silu, gradient;
                        load(ends + m * lanes, received);
                        load(gradients + m * lanes, g);
                        interpolate_both(t, at + m * lanes, all, filter, filter_slope);
                        const SiluParts<T, V, kAvx512<kBytes, T>> parts((sent[m] + received) + filter);
                        parts.value(silu), parts.slope(gradient);
                        gradient *= g;
                        if constexpr (kEnds) sum[m] += gradient * c;
                        along += gradient * filter_slope, across += g * silu;
                    }
                    T total;
                    sum_of_lanes(V(along * (c * per_unit) + across * slopes[k]), total);
                    sums[k] += total;
                }
                if constexpr (kEnds) std::memcpy(out_ends.row(j) + f, sum, sizeof sum);
            });
        if (out_r)
            for (std::int64_t k = 0; k < row.n; ++k) {
                const T total = sums[k] + slopes[k] * p.grad.s[row.other[k]];
                T* const to = out_r + row.edge(k);
                *to = p.op.adds ? *to + total : total;
            }
        if constexpr (kEnds)
            for (std::int64_t f = 0; f < width; ++f)
                out_ends.row(j)[width + f] = p.grad.messages.row(j)[f] * p.op.silu_grads[j * width + f];
    }
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                       \
    target void forward_loop(Vectors<bytes>, const Concat<T>& p, const ConcatMessageResult<T>& out, std::int64_t a,   \
                             std::int64_t b) {                                                                        \
        out.silu_grads ? sum_messages<bytes, T, true>(p, out, a, b) : sum_messages<bytes, T, false>(p, out, a, b);    \
    }                                                                                                                 \
    target void send_loop(Vectors<bytes>, const Concat<T>& p, Matrix<T> ends, T* r, std::int64_t a, std::int64_t b) { \
        ends ? send<bytes, T, true>(p, ends, r, a, b) : send<bytes, T, false>(p, ends, r, a, b);                      \
    }                                                                                                                 \
    target void table_loop(Vectors<bytes>, const Concat<T>& p, T* coefficients, std::int64_t a, std::int64_t b) {     \
        add_to_table<bytes, T, false>(p, coefficients, a, b);                                                         \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void concat_message_table(const ConcatMessageTable<T>& op, const ConcatMessageResult<T>& out, const Context& context) {
    const Concat<T> p{op, {}, {}};
    parallel_for(op.rows.n_rows, filter_grain(op.rows, 4 * op.ends.cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { with_vectors([&](auto v) { forward_loop(v, p, out, a, b); }); });
}

template <class T>
void concat_message_table_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                   const ConcatMessageGradients<T>& out, const Context& context) {
    const Concat<T> p{op, grad, {}};
    if (out.ends || out.r)
        parallel_for(op.columns.n_rows, filter_grain(op.columns, 4 * op.ends.cols), context.n_threads,
                     [&](std::int64_t a, std::int64_t b) {
                         with_vectors([&](auto v) { send_loop(v, p, out.ends, out.r, a, b); });
                     });
    if (out.coefficients)
        sum_over_blocks<T>(op.rows, 4 * op.table.n_intervals * op.table.width, out.coefficients, context,
                           [&](T* sums, std::int64_t a, std::int64_t b) {
                               with_vectors([&](auto v) { table_loop(v, p, sums, a, b); });
                           });
}

#define MDGNN_INSTANTIATE(T)                                                                                          \
    template void concat_message_table<T>(const ConcatMessageTable<T>&, const ConcatMessageResult<T>&,                \
                                          const Context&);                                                            \
    template void concat_message_table_backward<T>(const ConcatMessageTable<T>&, const ConcatMessageResult<const T>&, \
                                                   const ConcatMessageGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
