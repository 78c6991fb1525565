// Parallelisation: atoms over threads, in both directions; each sum runs in edge order, in double precision, so that
// the bits do not depend on the number of threads. Memory traffic: the gradients, and for virials the vectors, twice,
// once in order and once gathered; backward gathers what belongs to the sender of each edge.
// Alternatives that lost: sums of outer products by scatter_add (an array of 9 E numbers, three passes, and for few
// atoms 30 us of Python).
#include "core/thread_pool.hpp"
#include "ops/force_virial/math.hpp"

namespace mdgnn::cpu {
namespace {

std::int64_t grain_of(const Rows& rows) {
    const std::int64_t n_edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0;
    return 16384 / (n_edges / (rows.n_rows + 1) + 1) + 1;
}

template <class T, bool kVirial>
void sum_edges(const EdgeVectors& op, const T* gradients, double* forces, double* virials, std::int64_t begin,
               std::int64_t end) {
    const Rows &rows = op.rows, &columns = op.columns;
    const auto add = [&](std::int64_t k, double sign, AtomSums& sums) {
        add_force(gradients + 3 * k, sign, sums);
        if constexpr (kVirial) add_virial(gradients + 3 * k, op.vectors + 3 * k, sums);
    };
    for (std::int64_t i = begin; i < end; ++i) {
        AtomSums received, sent;
        for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) add(k, 1.0, received);
        for (std::int64_t k = columns.row_ptr[i]; k < columns.row_ptr[i + 1]; ++k) add(columns.index[k], -1.0, sent);
        for (int c = 0; c < 3; ++c) forces[3 * i + c] = received.force[c] + sent.force[c];
        if constexpr (kVirial) {
            for (int c = 0; c < 6; ++c) received.virial[c] += sent.virial[c];
            write_virial(received, virials + 9 * i);
        }
    }
}

}  // namespace

template <class T>
void force_virial(const EdgeVectors& op, const T* gradients, double* forces, double* virials, const Context& context) {
    parallel_for(op.rows.n_rows, grain_of(op.rows), context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        virials ? sum_edges<T, true>(op, gradients, forces, virials, begin, end)
                : sum_edges<T, false>(op, gradients, forces, virials, begin, end);
    });
}

template <class T>
void force_virial_backward(const EdgeVectors& op, const double* grad_forces, const double* grad_virials, T* out,
                           const Context& context) {
    const Rows& rows = op.rows;
    parallel_for(rows.n_rows, grain_of(rows), context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
                const std::int64_t j = rows.index[k];
                double sum[3] = {};
                if (grad_virials)
                    add_virial_derivative(grad_virials + 9 * i, grad_virials + 9 * j, op.vectors + 3 * k, sum);
                if (grad_forces) add_force_derivative(grad_forces + 3 * i, grad_forces + 3 * j, sum);
                for (int c = 0; c < 3; ++c) out[3 * k + c] = static_cast<T>(sum[c]);
            }
    });
}

#define MDGNN_INSTANTIATE(T)                                                                       \
    template void force_virial<T>(const EdgeVectors&, const T*, double*, double*, const Context&); \
    template void force_virial_backward<T>(const EdgeVectors&, const double*, const double*, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
