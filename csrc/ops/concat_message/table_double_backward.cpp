// The double backward of concat_message_table. By receiver: its share of the derivative for `ends`, that for r, and
// that for grad; by sender, from what that left in the cache, the sender's share.
// Alternatives that lost: to work out each message again for its sender; other sizes of what is saved, no gain.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/concat_message/table_pieces.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kSaved = std::int64_t{1} << 19;  // numbers saved for the senders: 2 MB in float32

// The derivatives for x of the edges from `first` on, a row of H each; may be null.
template <class T>
struct Saved {
    Matrix<T> rows;
    std::int64_t first = 0;

    T* row(std::int64_t edge) const { return rows.row(edge - first); }
};

// By receiver: its share of the derivative for `ends`, that for r, and that for grad.
template <int kBytes, class T>
MDGNN_INLINE void receive(const Concat<T>& p, const Saved<T>& saved, const ConcatMessageResult<T>& out_grad,
                          const ConcatMessageGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    std::vector<T> sums(2 * width);  // of the receiver's share, and of the derivative for grad
    for (std::int64_t i = begin; i < end; ++i) {
        std::fill(sums.begin(), sums.end(), T(0));
        const std::int64_t first = p.op.rows.row_ptr[i], last = p.op.rows.row_ptr[i + 1];
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        if (static_cast<std::int64_t>(edges.size()) < last - first) {  // some are beyond the cutoff
            if (out.r) std::fill(out.r + first, out.r + last, T(0));
            if (saved.rows) std::fill(saved.row(first), saved.row(last), T(0));
        }
        T s = 0;
        for (const FilterEdge<T>& e : edges) {
            Message<T> m;
            set_message<T, true>(p, e, m);
            s += m.by_c;
            T for_r;  // without what comes through s
            const auto add_piece = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const Piece<T, true, V> x(p, m, i, e.other, f);
                add(x.gradient, sums.data() + f);
                if (saved.rows) store(x.gradient, saved.row(e.edge) + f);
                V change, more;  // q depends on r too
                interpolate_slope(m.curvature, m.coefficients + f, all, change);
                if (m.by) {
                    interpolate_slope(m.slope, m.by + f, all, more);
                    change += more;
                }
                sum[0] += x.gradient * x.filter_slope + x.g * x.silu * m.c_curvature;
                sum[0] += x.g * x.slope * (change * m.c + x.q * m.c_slope);
                add(x.q * x.slope * m.c + x.silu * m.by_c, sums.data() + width + f);
            };
            sum_pieces<kBytes, T, 1>(width, add_piece, &for_r);
            if (out.r) out.r[e.edge] = for_r + m.c_curvature * p.grad.s[i];
        }
        if (out.ends) std::copy(sums.data(), sums.data() + width, out.ends.row(i) + width);
        if (out_grad.messages) {
            std::copy(sums.data() + width, sums.data() + 2 * width, out_grad.messages.row(i));
            out_grad.s[i] = s;
        }
    }
}

// By sender: adds what the edges up to `last` contribute to its share of the derivative for `ends`. Each sender goes on
// where it stopped.
template <int kBytes, class T>
MDGNN_INLINE void add_sent(const Concat<T>& p, const Saved<T>& saved, Matrix<T> ends, std::int64_t last,
                           std::int64_t* next, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width();
    const Rows& columns = p.op.columns;
    for (std::int64_t j = begin; j < end; ++j) {
        std::int64_t k = next[j];
        T* const y = ends.row(j);
        for (; k < columns.row_ptr[j + 1] && columns.edge[k] < last; ++k) {
            const T* const gradient = saved.row(columns.edge[k]);
            each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                V x;
                load(gradient + f, x);
                add(x, y + f);
            });
        }
        next[j] = k;
    }
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                   \
    target void receive_loop(Vectors<bytes>, const Concat<T>& p, const Saved<T>& saved,                           \
                             const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,        \
                             std::int64_t a, std::int64_t b) {                                                    \
        receive<bytes, T>(p, saved, out_grad, out, a, b);                                                         \
    }                                                                                                             \
    target void sent_loop(Vectors<bytes>, const Concat<T>& p, const Saved<T>& saved, Matrix<T> ends,              \
                          std::int64_t last, std::int64_t* next, std::int64_t a, std::int64_t b) {                \
        add_sent<bytes, T>(p, saved, ends, last, next, a, b);                                                     \
    }                                                                                                             \
    target void table_loop(Vectors<bytes>, const Concat<T>& p, T* coefficients, std::int64_t a, std::int64_t b) { \
        add_to_table<bytes, T, true>(p, coefficients, a, b);                                                      \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

// Both shares of the derivative for `ends`, for blocks of rows: first by receiver, then, from what that left in the
// cache, by sender.
template <class T>
void run_blocks(const Concat<T>& p, const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                std::int64_t grain, const Context& context) {
    const Rows& rows = p.op.rows;
    const std::int64_t width = p.width(), n_senders = p.op.columns.n_rows;
    for (std::int64_t j = 0; j < n_senders; ++j) std::fill(out.ends.row(j), out.ends.row(j) + width, T(0));
    for (std::int64_t j = 0; j < n_senders; ++j)
        if (!std::is_sorted(p.op.columns.edge + p.op.columns.row_ptr[j],
                            p.op.columns.edge + p.op.columns.row_ptr[j + 1]))
            throw std::invalid_argument("expected the edges of each sender in ascending order, those of atom " +
                                        std::to_string(j) + " are not");
    std::vector<std::int64_t> next(p.op.columns.row_ptr, p.op.columns.row_ptr + n_senders);
    thread_local std::vector<T> memory;
    for (std::int64_t begin = 0, end; begin < rows.n_rows; begin = end) {
        const std::int64_t first = rows.row_ptr[begin];
        for (end = begin + 1; end < rows.n_rows && (rows.row_ptr[end + 1] - first) * width <= kSaved; ++end) {
        }
        const std::int64_t n_edges = rows.row_ptr[end] - first;
        if (static_cast<std::int64_t>(memory.size()) < n_edges * width) memory.resize(n_edges * width);
        const Saved<T> saved{{memory.data(), n_edges, width}, first};
        parallel_for(end - begin, grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { receive_loop(v, p, saved, out_grad, out, begin + a, begin + b); });
        });
        parallel_for(n_senders, 4 * grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { sent_loop(v, p, saved, out.ends, rows.row_ptr[end], next.data(), a, b); });
        });
    }
    if (static_cast<std::int64_t>(memory.size()) > kSaved) std::vector<T>().swap(memory);  // a row of many edges
}

}  // namespace

template <class T>
void concat_message_table_double_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                          const ConcatMessageGradients<const T>& grad2,
                                          const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                                          const Context& context) {
    const Concat<T> p{op, grad, grad2};
    const std::int64_t grain = filter_grain(op.rows, 4 * op.ends.cols);
    if (out.ends)
        run_blocks(p, out_grad, out, grain, context);
    else if (out.r || out_grad.messages)
        parallel_for(op.rows.n_rows, grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { receive_loop(v, p, Saved<T>{}, out_grad, out, a, b); });
        });
    if (out.coefficients)
        sum_over_blocks<T>(op.rows, 4 * op.table.n_intervals * op.table.width, out.coefficients, context,
                           [&](T* sums, std::int64_t a, std::int64_t b) {
                               with_vectors([&](auto v) { table_loop(v, p, sums, a, b); });
                           });
}

#define MDGNN_INSTANTIATE(T)                                                                                       \
    template void concat_message_table_double_backward<T>(                                                         \
        const ConcatMessageTable<T>&, const ConcatMessageResult<const T>&, const ConcatMessageGradients<const T>&, \
        const ConcatMessageResult<T>&, const ConcatMessageGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
