// Parallelisation: none; a block of rows is one thread's. Memory traffic: each argument once, from the cache that the
// block is in. Strides and broadcasting are settled outside of the innermost loop, which runs over channels that follow
// upon each other, a vector at a time. What is left at their end is a vector whose other lanes nobody reads: with
// shorter vectors and single numbers, as messages have them, this file took four times as long to compile. These passes
// cost little beside the messages of edges, of which an atom has dozens.
#include "engine/loops.hpp"

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

// Where the operands of a row's component begin.
template <class T>
struct Starts {
    const T *a, *b, *c;
};

// The sum over n_inner components, of n channels from f on.
template <Binary function, class V, class T>
MDGNN_INLINE void piece(const BinaryLoop<T>& p, Starts<T> at, std::int64_t n_inner, std::int64_t f, std::int64_t n,
                        V& sum) {
    constexpr bool kTwo = function != Binary::copy && function != Binary::negate;
    V a, b = {}, c = {}, value;
    for (;;) {
        load(p.a, at.a, f, n, a);
        if constexpr (kTwo) load(p.b, at.b, f, n, b);
        if constexpr (function == Binary::divide_grad) load(p.c, at.c, f, n, c);
        value_of<function>(a, b, c, value);
        sum += value;
        if (--n_inner == 0) return;
        at.a += p.a.component_stride, at.b += p.b.component_stride, at.c += p.c.component_stride;
    }
}

template <int kBytes, Binary function, class T>
MDGNN_INLINE void rows(const BinaryLoop<T>& p, std::int64_t n_rows) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t kLanes = Wide<T, kBytes>::n;
    const bool narrow = p.out.shape.channels < p.shape.channels;
    const std::int64_t n_outer = p.out.shape.components, n_inner = p.shape.components / n_outer;
    const std::int64_t n_channels = p.shape.channels, n_whole = n_channels / kLanes * kLanes;
    for (std::int64_t i = 0; i < n_rows; ++i)
        for (std::int64_t k = 0; k < n_outer; ++k) {
            T* const to = p.out.at(i, k);
            const Starts<T> at{p.a.at(i, k), p.b.at(i, k), p.c.at(i, k)};
            V over_channels = {};
            const auto one = [&](std::int64_t f, std::int64_t n) __attribute__((always_inline)) {
                V sum = {};
                if (narrow) {
                    piece<function>(p, at, n_inner, f, n, sum);
                    clear_after(n, sum);
                    over_channels += sum;
                    return;
                }
                if (p.add) load_some(to + f, n, sum);
                piece<function>(p, at, n_inner, f, n, sum);
                store_some(sum, n, to + f);
            };
            for (std::int64_t f = 0; f < n_whole; f += kLanes) one(f, kLanes);
            if (n_whole < n_channels) one(n_whole, n_channels - n_whole);
            if (!narrow) continue;
            T sum;
            sum_of_lanes(over_channels, sum);
            *to = p.add ? *to + sum : sum;
        }
}

template <class T>
bool is_whole(const Operand<T>& x, const Shape& shape) {
    return !x.data || (!x.one_channel && x.component_stride == shape.channels && x.row_stride == shape.size());
}

// Where nothing is broadcast or summed and rows follow upon each other, a block is one row: bits do not depend on where
// in a vector a number stands.
template <class T>
bool one_row(const BinaryLoop<T>& p) {
    return p.out.shape == p.shape && is_whole(p.a, p.shape) && is_whole(p.b, p.shape) && is_whole(p.c, p.shape) &&
           is_whole<T>({p.out.data, p.out.row_stride, p.out.component_stride}, p.shape);
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
    BinaryLoop<T> p = loop;
    if (one_row(p)) p.shape = p.out.shape = {1, n_rows * p.shape.size()}, n_rows = n_rows > 0 ? 1 : 0;
    with_vectors([&](auto v) { row_loop(v, p, n_rows); });
}

template void apply<float>(const BinaryLoop<float>&, std::int64_t);
template void apply<double>(const BinaryLoop<double>&, std::int64_t);

}  // namespace mdgnn::engine
