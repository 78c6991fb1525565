// Parallelisation: none; a block of rows is one thread's. Floor and products: core/product.cpp. A single output, such
// as an energy, is summed in double: in float32 the sum of terms that cancel was the larger part of the error of a
// SchNet's energies, and its tile has one lane in use anyway.
#include "engine/linear.hpp"

namespace mdgnn::engine {

template <class T>
void multiply(std::int64_t n_rows, Columns<const T> x, const Packed<T>& weights, const T* bias, bool add,
              Columns<T> out) {
    if (weights.outputs() != 1)
        return multiply(Product<T>{.a = x.data,
                                   .a_row = x.stride,
                                   .b = weights.data(),
                                   .b_stride = weights.stride(),
                                   .out = out.data,
                                   .out_stride = out.stride,
                                   .rows = n_rows,
                                   .inner = weights.inputs(),
                                   .cols = weights.outputs(),
                                   .add = add,
                                   .bias = bias,
                                   .packed = true});
    for (std::int64_t i = 0; i < n_rows; ++i) {
        const T *const row = x.row(i), *w = weights.data();
        double sum = add ? out.row(i)[0] : bias ? bias[0] : T(0);
        for (std::int64_t k = 0; k < weights.inputs(); ++k, w += weights.stride()) sum += double(row[k]) * double(*w);
        out.row(i)[0] = T(sum);
    }
}

#define MDGNN_INSTANTIATE(T) \
    template void multiply<T>(std::int64_t, Columns<const T>, const Packed<T>&, const T*, bool, Columns<T>);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
