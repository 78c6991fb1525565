// Parallelisation: none; a block of rows is one thread's. Memory traffic: each argument once, from the cache that the
// block is in. Strides and broadcasting are settled outside of the innermost loop, which runs over channels that follow
// upon each other. These passes cost little beside the messages of edges, of which an atom has dozens.
#include "engine/loops.hpp"

#include "core/lanes.hpp"
#include "core/simd.hpp"
#include "ops/radial_filter/edges.hpp"

namespace mdgnn::engine {
namespace {

template <class V, class T>
MDGNN_INLINE void load(const Operand<T>& x, const T* from, std::int64_t f, V& to) {
    if (x.one_channel)
        to = V{} + *from;
    else
        mdgnn::load(from + f, to);
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

// Row i and channels from f on, in vectors: the sum over components k .. k + n.
template <Binary function, class V, class T>
MDGNN_INLINE void piece(const BinaryLoop<T>& p, std::int64_t i, std::int64_t k, std::int64_t n, std::int64_t f) {
    constexpr bool kTwo = function != Binary::copy && function != Binary::negate;
    T* const to = p.out.at(i, p.out.shape.components == 1 ? 0 : k) + f;
    V a, b = {}, c = {}, value = {}, sum = {};
    if (p.add) mdgnn::load(to, sum);
    for (std::int64_t m = k; m < k + n; ++m) {
        load(p.a, p.a.at(i, m), f, a);
        if constexpr (kTwo) load(p.b, p.b.at(i, m), f, b);
        if constexpr (function == Binary::divide_grad) load(p.c, p.c.at(i, m), f, c);
        value_of<function>(a, b, c, value);
        if (p.add || n > 1)
            sum += value;
        else
            sum = value;
    }
    store(sum, to);
}

// One channel: the sum over all of them, and over components k .. k + n.
template <Binary function, class T>
MDGNN_INLINE void sum_of_channels(const BinaryLoop<T>& p, std::int64_t i, std::int64_t k, std::int64_t n) {
    T* const to = p.out.at(i, p.out.shape.components == 1 ? 0 : k);
    T sum = p.add ? *to : T(0);
    for (std::int64_t m = k; m < k + n; ++m) {
        const T *const a = p.a.at(i, m), *const b = p.b.at(i, m), *const c = p.c.at(i, m);
        sum += sum_lanes<T>(p.shape.channels, [&](std::int64_t f) __attribute__((always_inline)) {
            T x, y = 0, z = 0, value = 0;
            load(p.a, a, f, x);
            if (p.b.data) load(p.b, b, f, y);
            if (p.c.data) load(p.c, c, f, z);
            value_of<function>(x, y, z, value);
            return value;
        });
    }
    *to = sum;
}

template <int kBytes, Binary function, class T>
MDGNN_INLINE void rows(const BinaryLoop<T>& p, std::int64_t n_rows) {
    const bool sums = p.out.shape.components < p.shape.components, narrow = p.out.shape.channels < p.shape.channels;
    const std::int64_t n_outer = sums ? 1 : p.shape.components, n_inner = sums ? p.shape.components : 1;
    for (std::int64_t i = 0; i < n_rows; ++i)
        for (std::int64_t k = 0; k < n_outer; ++k) {
            if (narrow) {
                sum_of_channels<function>(p, i, k, n_inner);
                continue;
            }
            cpu::each_piece<kBytes, T, 1>(
                p.shape.channels, [&]<class V, int kParts>(std::int64_t f)
                                      __attribute__((always_inline)) { piece<function, V>(p, i, k, n_inner, f); });
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
