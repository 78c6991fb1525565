// Parallelisation: rows over threads. Memory traffic: each argument once. These passes cost little beside the messages
// of edges, of which an atom has dozens.
#include "engine/rows.hpp"

#include <cmath>
#include <limits>

#include "core/lanes.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/radial_filter/edges.hpp"
#include "ops/silu/wide.hpp"

namespace mdgnn::engine {
namespace {

// log(1 + exp(x)) - log(2) from e = exp(-|x|): log(1 + e) = 2 artanh(e / (2 + e)), whose argument is at most 1/3.
template <class T, class V>
MDGNN_INLINE void shifted_softplus(const V& x, V& out) {
    using Word = typename ExpConstants<T>::Int;
    using Words = std::conditional_t<std::is_same_v<V, T>, Word, typename Wide<Word, sizeof(V)>::type>;
    constexpr int kTerms = std::is_same_v<T, float> ? 8 : 17;
    const V zero = {};
    const V negative = x < zero ? x : -x;
    V bounded, e;
    bound_by_bits<T>(negative, bounded);
    exp_within<T, Words>(bounded, e);
    const V s = e / (T(2) + e), square = s * s;
    V sum = zero + T(1) / T(2 * kTerms + 1);
    for (int k = kTerms - 1; k >= 0; --k) sum = sum * square + T(1) / T(2 * k + 1);
    out = (x - negative) * T(0.5) + (T(2) * s * sum - T(0.693147180559945309417));
}

template <class T, class V>
MDGNN_INLINE void root_of(const V& x, V& out) {
    out = x;
    if constexpr (std::is_same_v<V, T>) {
        out = std::sqrt(x);
    } else {
        for (std::size_t k = 0; k < sizeof(V) / sizeof(T); ++k) out[k] = std::sqrt(x[k]);
    }
}

template <class T, class V>
MDGNN_INLINE void value_of(const RowOp<T>& p, const V& a, const V& b, V& out) {
    switch (p.code) {
        case RowCode::copy:
            out = a;
            break;
        case RowCode::add:
            out = a + b;
            break;
        case RowCode::multiply:
            out = a * b;
            break;
        case RowCode::plus:
            out = a + T(p.constant);
            break;
        case RowCode::at_least:
        case RowCode::at_least_slope: {
            const V limit = V{} + T(p.constant), other = p.code == RowCode::at_least ? limit : V{};
            out = (p.code == RowCode::at_least ? a : b) < limit ? other : a;
            break;
        }
        case RowCode::root:
            root_of<T>(V(a + T(p.constant)), out);
            break;
        case RowCode::root_slope:
            out = a * T(0.5) / b;
            break;
        case RowCode::silu:
            SiluParts<T, V>(a).value(out);
            break;
        case RowCode::silu_slope:
            SiluParts<T, V>(b).slope(out), out *= a;
            break;
        case RowCode::shifted_softplus:
            shifted_softplus<T>(a, out);
            break;
        case RowCode::shifted_softplus_slope:
            out = a * SiluParts<T, V>(b).s;
            break;
        default:
            break;
    }
}

template <int kBytes, class T>
MDGNN_INLINE void rows_of(const RowOp<T>& p, std::int64_t begin, std::int64_t end) {
    const bool two = p.b.data != nullptr;
    for (std::int64_t i = begin; i < end; ++i) {
        cpu::each_piece<kBytes, T, 1>(p.out.cols,
                                      [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                                          V a, b = {}, out = {}, before;
                                          load(p.a.row(i) + f, a);
                                          if (two) load(p.b.row(i) + f, b);
                                          value_of<T>(p, a, b, out);
                                          if (p.add) load(p.out.row(i) + f, before), out += before;
                                          store(out, p.out.row(i) + f);
                                      });
    }
}

template <int kBytes, class T>
MDGNN_INLINE void vectors_of(const RowOp<T>& p, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        cpu::each_piece<kBytes, T, 1>(p.out.cols,
                                      [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                                          V a, b, out = {};
                                          if (p.code == RowCode::dot) {
                                              if (p.add) load(p.out.row(i) + f, out);
                                              for (int c = 0; c < 3; ++c) {
                                                  load(p.a.row(3 * i + c) + f, a), load(p.b.row(3 * i + c) + f, b);
                                                  out += a * b;
                                              }
                                              store(out, p.out.row(i) + f);
                                              return;
                                          }
                                          load(p.a.row(i) + f, a);
                                          for (int c = 0; c < 3; ++c) {
                                              load(p.b.row(3 * i + c) + f, b);
                                              if (p.add) load(p.out.row(3 * i + c) + f, out);
                                              out = p.add ? V(out + a * b) : V(a * b);
                                              store(out, p.out.row(3 * i + c) + f);
                                          }
                                      });
    }
}

template <class T>
MDGNN_INLINE void quotients_of(const RowOp<T>& p, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        if (p.code == RowCode::divide) {
            const T factor = T(1) / *p.b.row(i);
            for (std::int64_t f = 0; f < p.out.cols; ++f)
                p.out.row(i)[f] = p.a.row(i)[f] * factor + (p.add ? p.out.row(i)[f] : T(0));
        } else {
            const T s = *p.c.row(i);
            const T sum = sum_lanes<T>(p.a.cols, [&](std::int64_t f) { return p.a.row(i)[f] * p.b.row(i)[f]; });
            *p.out.row(i) = (p.add ? *p.out.row(i) : T(0)) - sum / (s * s);
        }
    }
}

#define LOOPS(T, target, bytes)                                                                \
    target void row_loop(Vectors<bytes>, const RowOp<T>& op, std::int64_t a, std::int64_t b) { \
        const RowOp<T> p = op;                                                                 \
        if (p.code == RowCode::dot || p.code == RowCode::scale_vectors)                        \
            vectors_of<bytes>(p, a, b);                                                        \
        else if (p.code == RowCode::divide || p.code == RowCode::divide_slope)                 \
            quotients_of(p, a, b);                                                             \
        else                                                                                   \
            rows_of<bytes>(p, a, b);                                                           \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void apply(const RowOp<T>& op, std::int64_t n, const Context& context) {
    parallel_for(n, 1 + 32768 / (op.out.cols + 1), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { with_vectors([&](auto v) { row_loop(v, op, a, b); }); });
}

template void apply<float>(const RowOp<float>&, std::int64_t, const Context&);
template void apply<double>(const RowOp<double>&, std::int64_t, const Context&);

}  // namespace mdgnn::engine
