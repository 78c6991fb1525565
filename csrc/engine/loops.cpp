// Parallelisation: none; a block of rows is one thread's. Memory traffic: each argument once, from the cache that the
// block is in. Strides and broadcasting are settled outside of the innermost loop, which runs over channels that follow
// upon each other, a vector at a time. What is left at their end is a vector whose other lanes nobody reads: with
// shorter vectors and single numbers, as messages have them, this file took four times as long to compile. These passes
// cost little beside the messages of edges, of which an atom has dozens.
#include "engine/loops.hpp"

#include <algorithm>

#include "core/simd.hpp"
#include "engine/pieces.hpp"

namespace mdgnn::engine {
namespace {

// n channels from f on.
template <class V, class T>
MDGNN_INLINE void load(const Operand<T>& x, const T* from, std::int64_t f, std::int64_t n, V& to) {
    if (x.one_channel)
        to = V{} + *from;
    else
        load_some(from + f, n, to);
}

template <Binary function, class V>
MDGNN_INLINE void value_of(const V& a, const V& b, const V& c, V& out) {
    if constexpr (function == Binary::copy) out = a;
    if constexpr (function == Binary::negate) out = -a;
    if constexpr (function == Binary::add) out = a + b;
    if constexpr (function == Binary::subtract) out = a - b;
    if constexpr (function == Binary::multiply) out = a * b;
    if constexpr (function == Binary::divide) out = a / b;
    if constexpr (function == Binary::divide_grad) out = -(a * b) / (c * c);
}

template <int kBytes, Binary function, class T>
MDGNN_INLINE void rows(const BinaryLoop<T>& p, std::int64_t n_rows) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t kLanes = Wide<T, kBytes>::n;
    constexpr bool kTwo = function != Binary::copy && function != Binary::negate;
    const bool narrow = p.out.shape.channels < p.shape.channels;
    const std::int64_t n_outer = p.out.shape.components, n_inner = p.shape.components / n_outer;
    for (std::int64_t i = 0; i < n_rows; ++i)
        for (std::int64_t k = 0; k < n_outer; ++k) {
            T* const to = p.out.at(i, k);
            V over_channels = {};
            for (std::int64_t f = 0; f < p.shape.channels; f += kLanes) {
                const std::int64_t n = std::min(kLanes, p.shape.channels - f);
                V a, b = {}, c = {}, value, sum = {};
                if (p.add && !narrow) load_some(to + f, n, sum);
                for (std::int64_t m = k; m < k + n_inner; ++m) {
                    load(p.a, p.a.at(i, m), f, n, a);
                    if constexpr (kTwo) load(p.b, p.b.at(i, m), f, n, b);
                    if constexpr (function == Binary::divide_grad) load(p.c, p.c.at(i, m), f, n, c);
                    value_of<function>(a, b, c, value);
                    sum += value;
                }
                if (narrow)
                    clear_after(n, sum), over_channels += sum;
                else
                    store_some(sum, n, to + f);
            }
            if (!narrow) continue;
            T sum;
            sum_of_lanes(over_channels, sum);
            *to = p.add ? *to + sum : sum;
        }
}

#define LOOPS(T, target, bytes)                                                            \
    target void row_loop(Vectors<bytes>, const BinaryLoop<T>& loop, std::int64_t n_rows) { \
        const BinaryLoop<T> p = loop;                                                      \
        switch (p.function) {                                                              \
            case Binary::copy:                                                             \
                return rows<bytes, Binary::copy>(p, n_rows);                               \
            case Binary::negate:                                                           \
                return rows<bytes, Binary::negate>(p, n_rows);                             \
            case Binary::add:                                                              \
                return rows<bytes, Binary::add>(p, n_rows);                                \
            case Binary::subtract:                                                         \
                return rows<bytes, Binary::subtract>(p, n_rows);                           \
            case Binary::multiply:                                                         \
                return rows<bytes, Binary::multiply>(p, n_rows);                           \
            case Binary::divide:                                                           \
                return rows<bytes, Binary::divide>(p, n_rows);                             \
            case Binary::divide_grad:                                                      \
                return rows<bytes, Binary::divide_grad>(p, n_rows);                        \
        }                                                                                  \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void apply(const BinaryLoop<T>& loop, std::int64_t n_rows) {
    with_vectors([&](auto v) { row_loop(v, loop, n_rows); });
}

template void apply<float>(const BinaryLoop<float>&, std::int64_t);
template void apply<double>(const BinaryLoop<double>&, std::int64_t);

}  // namespace mdgnn::engine
