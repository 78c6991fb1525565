// Parallelisation: none; a block of rows is one thread's. A tile of rows x vectors of the result stays in registers
// while the inputs are run through; the weights come from the nearest cache. Floor: one multiply-add per row, input and
// output. One thread of a Zen 4 core (118 GFLOP/s), float32, this and MKL (torch.mm into a given array), rows x inputs
// x outputs:
//   13 x 32 x 64        91 and  27 GFLOP/s (0.6 and 2.0 us)      561 x 128 x 384      108 and 103
//   13 x 64 x 192       94 and  56                               6,525 x 64 x 64      104 and  94
//   561 x 64 x 64      104 and  94                               97,556 x 128 x 128    81 and  70
// So no library: with so few columns there is one level of blocking. It would also give a row other bits in other
// company. A single output, such as an energy, is summed in double: in float32 the sum of terms that cancel was the
// larger part of the error of a SchNet's energies, and its tile has one lane in use anyway.
#include "engine/linear.hpp"

#include <algorithm>
#include <type_traits>

#include "core/simd.hpp"
#include "core/vectors.hpp"

namespace mdgnn::engine {
namespace {

constexpr std::int64_t kPad = 64;  // bytes of a row of packed weights are a multiple of it

template <class T>
struct Product {
    Columns<const T> x;
    const T *weights, *bias;
    std::int64_t inputs, outputs, stride;
    bool add;
    Columns<T> out;
};

// Rows i .. i + kRows of kVectors vectors from column m on.
template <class T, class V, int kRows, int kVectors>
MDGNN_INLINE void tile(const Product<T>& p, std::int64_t i, std::int64_t m) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    const std::int64_t cols = std::min(p.outputs - m, kVectors * lanes);
    const bool whole = cols == kVectors * lanes;
    V sums[kRows][kVectors] = {};
    T some[kVectors * lanes] = {};
    if (p.add || p.bias) {
        for (int r = 0; r < kRows; ++r) {
            const T* from = p.add ? p.out.row(i + r) + m : p.bias + m;
            if (!whole) {
                for (std::int64_t c = 0; c < cols; ++c) some[c] = from[c];
                from = some;
            }
            for (int v = 0; v < kVectors; ++v) load(from + v * lanes, sums[r][v]);
        }
    }
    const T* w = p.weights + m;
    for (std::int64_t k = 0; k < p.inputs; ++k, w += p.stride) {
        V b[kVectors];
        for (int v = 0; v < kVectors; ++v) load(w + v * lanes, b[v]);
        for (int r = 0; r < kRows; ++r) {
            const T a = p.x.row(i + r)[k];
            for (int v = 0; v < kVectors; ++v) sums[r][v] += b[v] * a;
        }
    }
    for (int r = 0; r < kRows; ++r) {
        T* const to = p.out.row(i + r) + m;
        if (whole) {
            for (int v = 0; v < kVectors; ++v) store(sums[r][v], to + v * lanes);
        } else {
            for (int v = 0; v < kVectors; ++v) store(sums[r][v], some + v * lanes);
            for (std::int64_t c = 0; c < cols; ++c) to[c] = some[c];
        }
    }
}

template <class T, class V, int kRows, int kVectors>
MDGNN_INLINE void rows_of_tiles(const Product<T>& p, std::int64_t i) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    std::int64_t m = 0;
    for (; m + (kVectors - 1) * lanes < p.outputs; m += kVectors * lanes) tile<T, V, kRows, kVectors>(p, i, m);
    for (; m < p.outputs; m += lanes) tile<T, V, kRows, 1>(p, i, m);
}

template <class T, class V, int kRows, int kVectors>
MDGNN_INLINE void all_rows(const Product<T>& p, std::int64_t n_rows) {
    std::int64_t i = 0;
    for (; i + kRows <= n_rows; i += kRows) rows_of_tiles<T, V, kRows, kVectors>(p, i);
    for (; i < n_rows; ++i) rows_of_tiles<T, V, 1, kVectors>(p, i);
}

template <class T>
void one_column(const Product<T>& p, std::int64_t n_rows) {
    for (std::int64_t i = 0; i < n_rows; ++i) {
        const T *const x = p.x.row(i), *w = p.weights;
        double sum = p.add ? p.out.row(i)[0] : p.bias ? p.bias[0] : T(0);
        for (std::int64_t k = 0; k < p.inputs; ++k, w += p.stride) sum += double(x[k]) * double(*w);
        p.out.row(i)[0] = T(sum);
    }
}

// Of 32 registers a tile may have 24; of 16, 12. Vectors longer than a register would go through memory.
#define LOOPS(T, target, bytes)                                                                            \
    target void loop(Vectors<bytes>, const Product<T>& p, std::int64_t n_rows) {                           \
        all_rows<T, typename Wide<T, bytes>::type, 6, Vectors<bytes>::registers == 32 ? 4 : 2>(p, n_rows); \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
Packed<T>::Packed(Matrix<const T> weights, bool transposed)
    : inputs_(transposed ? weights.cols : weights.rows), outputs_(transposed ? weights.rows : weights.cols) {
    constexpr std::int64_t lanes = kPad / sizeof(T);
    stride_ = (outputs_ + lanes - 1) / lanes * lanes;
    data_.assign(static_cast<std::size_t>(inputs_ * stride_), T(0));
    for (std::int64_t k = 0; k < inputs_; ++k)
        for (std::int64_t m = 0; m < outputs_; ++m)
            data_[static_cast<std::size_t>(k * stride_ + m)] = transposed ? weights.row(m)[k] : weights.row(k)[m];
}

template <class T>
void multiply(std::int64_t n_rows, Columns<const T> x, const Packed<T>& weights, const T* bias, bool add,
              Columns<T> out) {
    const Product<T> p{
        x, weights.data(), add ? nullptr : bias, weights.inputs(), weights.outputs(), weights.stride(), add, out};
    if (p.outputs == 1) return one_column(p, n_rows);
    with_vectors([&](auto v) {
        // Half a vector is written number by number, a whole one of half the length is not.
        if constexpr (std::is_same_v<decltype(v), Vectors<64>>)
            if (p.outputs * static_cast<std::int64_t>(sizeof(T)) <= 32) return loop(Vectors<32>(), p, n_rows);
        loop(v, p, n_rows);
    });
}

#define MDGNN_INSTANTIATE(T)  \
    template class Packed<T>; \
    template void multiply<T>(std::int64_t, Columns<const T>, const Packed<T>&, const T*, bool, Columns<T>);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
