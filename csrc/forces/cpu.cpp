// Parallelisation: atoms over threads; each sum runs in edge order, in double precision, so that the bits do not depend
// on the number of threads. Memory traffic: the gradients twice, once in order and once gathered.
// Alternatives that lost: two calls of scatter_add and a difference (three passes, and 30 us of Python for few atoms).
#include "core/thread_pool.hpp"
#include "forces/forces.hpp"

namespace mdgnn::cpu {

template <class T>
void forces(const Rows& rows, const Rows& columns, const T* gradients, double* out, const Context& context) {
    const std::int64_t n_edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0;
    const std::int64_t grain = 16384 / (n_edges / (rows.n_rows + 1) + 1) + 1;
    parallel_for(rows.n_rows, grain, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            double received[3] = {}, sent[3] = {};
            for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k)
                for (int c = 0; c < 3; ++c) received[c] += static_cast<double>(gradients[3 * k + c]);
            for (std::int64_t k = columns.row_ptr[i]; k < columns.row_ptr[i + 1]; ++k)
                for (int c = 0; c < 3; ++c) sent[c] += static_cast<double>(gradients[3 * columns.index[k] + c]);
            for (int c = 0; c < 3; ++c) out[3 * i + c] = received[c] - sent[c];
        }
    });
}

template void forces<float>(const Rows&, const Rows&, const float*, double*, const Context&);
template void forces<double>(const Rows&, const Rows&, const double*, double*, const Context&);

}  // namespace mdgnn::cpu
