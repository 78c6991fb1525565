// Parallelisation: none; rows are the caller's to share out. A tile of 6 rows and 2 vectors stays in registers while
// the inner index runs: 12 multiply-adds for 2 loads of b and 6 broadcasts of a, more than the latency of a
// multiply-add asks for, and no more than 15 of 16 registers. b comes from the nearest cache. Floor: one multiply-add a
// term.
#include "core/product.hpp"

#include <algorithm>

#include "core/simd.hpp"
#include "core/vectors.hpp"

namespace mdgnn {
namespace {

// kWhole: the tile's columns are whole vectors; else the last columns, in one vector.
template <class T, class V, int kRows, int kVectors, bool kWhole>
MDGNN_INLINE void tile(const Product<T>& p, std::int64_t i, std::int64_t m) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    const std::int64_t n = kWhole ? lanes : p.cols - m;
    V sums[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = V{};
            if (p.add) load_some(p.out + (i + r) * p.out_stride + m + v * lanes, n, sums[r][v]);
        }
    const T *a = p.a + i * p.a_row, *b = p.b + m;
    for (std::int64_t k = 0; k < p.inner; ++k, a += p.a_inner, b += p.b_stride) {
        V w[kVectors];
        for (int v = 0; v < kVectors; ++v) load_some(b + v * lanes, n, w[v]);
        for (int r = 0; r < kRows; ++r) {
            const T x = a[r * p.a_row];
            for (int v = 0; v < kVectors; ++v) sums[r][v] += w[v] * x;
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) store_some(sums[r][v], n, p.out + (i + r) * p.out_stride + m + v * lanes);
}

template <class T, class V, int kRows>
MDGNN_INLINE void some_rows(const Product<T>& p, std::int64_t i) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    std::int64_t m = 0;
    for (; m + 2 * lanes <= p.cols; m += 2 * lanes) tile<T, V, kRows, 2, true>(p, i, m);
    for (; m + lanes <= p.cols; m += lanes) tile<T, V, kRows, 1, true>(p, i, m);
    if (m < p.cols) tile<T, V, kRows, 1, false>(p, i, m);
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                           \
    target void product_loop(Vectors<bytes>, const Product<T>& p, std::int64_t begin, std::int64_t end) { \
        using V = typename Wide<T, bytes>::type;                                                          \
        std::int64_t i = begin;                                                                           \
        for (; i + 6 <= end; i += 6) some_rows<T, V, 6>(p, i);                                            \
        if (i + 4 <= end) some_rows<T, V, 4>(p, i), i += 4;                                               \
        for (; i < end; ++i) some_rows<T, V, 1>(p, i);                                                    \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void multiply(const Product<T>& p, std::int64_t begin, std::int64_t end) {
    with_vectors([&](auto v) { product_loop(v, p, begin, end); });
}

template void multiply<float>(const Product<float>&, std::int64_t, std::int64_t);
template void multiply<double>(const Product<double>&, std::int64_t, std::int64_t);

}  // namespace mdgnn
