// Parallelisation: none; rows are the caller's to share out. A tile of 6 rows and 2 or, of 32 registers, 4 vectors
// stays in registers while the inner index runs: with 2, 12 multiply-adds for 2 loads of b and 6 broadcasts of a, more
// than the latency of a multiply-add asks for, and no more than 15 of 16 registers. b comes from the nearest cache.
// Loops over rows and vectors are unrolled by pragmas: without, g++ 12 with AVX2 set the sums in memory, read them back
// before the stores had ended: simple_gnn on 128 atoms of 32 features took 1.4 times as long (Zen 3).
// Floor: one multiply-add a term. One thread of a Zen 4 core (118 GFLOP/s), float32, this and MKL (torch.mm into a
// given array), rows x inner x columns:
//   13 x 32 x 64        91 and  27 GFLOP/s (0.6 and 2.0 us)      561 x 128 x 384      108 and 103
//   13 x 64 x 192       94 and  56                               6,525 x 64 x 64      104 and  94
//   561 x 64 x 64      104 and  94                               97,556 x 128 x 128    81 and  70
// So no library: with so few columns there is one level of blocking. It would also give a row other bits in other
// company. 12 rows and 2 vectors of AVX-512 took 1.05 times as long, rows that begin with sums made before 1.07.
#include "core/product.hpp"

#include <type_traits>

#include "core/simd.hpp"
#include "core/vectors.hpp"

namespace mdgnn {
namespace {

// kWhole: the tile's columns are whole vectors; else the last columns, in one vector.
template <class T, class V, int kRows, int kVectors, bool kWhole>
MDGNN_INLINE void tile(const Product<T>& p, std::int64_t i, std::int64_t m) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    const std::int64_t n = kWhole ? lanes : p.cols - m, n_of_b = p.packed ? lanes : n;
    V sums[kRows][kVectors];
    const T* a[kRows];
    // Unrolled, or the sums are set, and stored, in memory.
    if (p.start_1) {
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                V other;
                load_some(p.start_1[i + r] + m + v * lanes, n, sums[r][v]);
                load_some(p.start_2[i + r] + m + v * lanes, n, other);
                sums[r][v] += other;
            }
    } else if (p.add || p.bias) {
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const T* const from = (p.add ? p.out + (i + r) * p.out_stride : p.bias) + m;
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) load_some(from + v * lanes, n, sums[r][v]);
        }
    } else {
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) sums[r][v] = V{};
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) a[r] = p.a_rows ? p.a_rows[i + r] : p.a + (i + r) * p.a_row;
    const T* b = p.b + m;
    const std::int64_t step = p.a_inner, end = p.inner * step;
    for (std::int64_t k = 0; k != end; k += step, b += p.b_stride) {
        V w[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) load_some(b + v * lanes, kWhole ? lanes : n_of_b, w[v]);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const T x = a[r][k];
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) sums[r][v] += w[v] * x;
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) store_some(sums[r][v], n, p.out + (i + r) * p.out_stride + m + v * lanes);
}

template <class T, class V, int kRows, int kRegisters>
MDGNN_INLINE void some_rows(const Product<T>& p, std::int64_t i) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    std::int64_t m = 0;
    if constexpr (kRegisters == 32)
        for (; m + 4 * lanes <= p.cols; m += 4 * lanes) tile<T, V, kRows, 4, true>(p, i, m);
    for (; m + 2 * lanes <= p.cols; m += 2 * lanes) tile<T, V, kRows, 2, true>(p, i, m);
    for (; m + lanes <= p.cols; m += lanes) tile<T, V, kRows, 1, true>(p, i, m);
    if (m < p.cols) tile<T, V, kRows, 1, false>(p, i, m);
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                           \
    target void product_loop(Vectors<bytes>, const Product<T>& p, std::int64_t begin, std::int64_t end) { \
        using V = typename Wide<T, bytes>::type;                                                          \
        constexpr int registers = Vectors<bytes>::registers;                                              \
        std::int64_t i = begin;                                                                           \
        for (; i + 6 <= end; i += 6) some_rows<T, V, 6, registers>(p, i);                                 \
        if (i + 4 <= end) some_rows<T, V, 4, registers>(p, i), i += 4;                                    \
        for (; i < end; ++i) some_rows<T, V, 1, registers>(p, i);                                         \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void multiply(const Product<T>& p, std::int64_t begin, std::int64_t end) {
    with_vectors([&](auto v) {
        // Part of a vector is written number by number, a whole one of half the length is not.
        if constexpr (std::is_same_v<decltype(v), Vectors<64>>)
            if (p.cols * static_cast<std::int64_t>(sizeof(T)) <= 32) return product_loop(Vectors<32>(), p, begin, end);
        product_loop(v, p, begin, end);
    });
}

template <class T>
Packed<T>::Packed(Matrix<const T> weights, bool transposed)
    : inputs_(transposed ? weights.cols : weights.rows), outputs_(transposed ? weights.rows : weights.cols) {
    data_.assign(static_cast<std::size_t>(inputs_ * stride()), T(0));
    for (std::int64_t k = 0; k < inputs_; ++k)
        for (std::int64_t m = 0; m < outputs_; ++m)
            data_[static_cast<std::size_t>(k * stride() + m)] = transposed ? weights.row(m)[k] : weights.row(k)[m];
}

#define MDGNN_INSTANTIATE(T)  \
    template class Packed<T>; \
    template void multiply<T>(const Product<T>&, std::int64_t, std::int64_t);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn
