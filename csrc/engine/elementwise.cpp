// The rows of engine/elementwise.hpp as loops and as declarations.
//
// Parallelisation: none; a block of rows is one thread's. Memory traffic: each argument once, from the cache that the
// block is in. Floor: for those of exp about 20 instructions a vector. log, expm1, log1p, sin, cos and power take a
// number at a time, 5 to 20 ns: programs of atoms have few, and tables are made once.
#include "engine/elementwise.hpp"

#include <algorithm>
#include <cmath>

#include "core/simd.hpp"
#include "engine/instruction.hpp"
#include "engine/instructions/all.hpp"
#include "engine/loops.hpp"
#include "engine/pieces.hpp"
#include "ops/silu/wide.hpp"

namespace mdgnn::engine {
namespace {

template <class T, class V>
using WordsOf = typename Wide<typename ExpConstants<T>::Int, sizeof(V)>::type;

constexpr double kLog2 = 0.693147180559945309417;

template <class V, class F>
MDGNN_INLINE void each(const V& x, V& out, const F& f) {
    for (std::size_t k = 0; k < sizeof x / sizeof x[0]; ++k) out[k] = f(x[k]);
}

// The square of exp(x / 2), which reaches zero and infinity where exp does. NaN stays.
template <class T, class V>
MDGNN_INLINE void exp_of(const V& x, V& y) {
    constexpr T kLimit = ExpConstants<T>::limit;
    const V zero = {}, half = x * T(0.5);
    const V bounded = half < zero - kLimit ? zero - kLimit : half > zero + kLimit ? zero + kLimit : half;
    V e;
    exp_within<T, WordsOf<T, V>>(bounded, e);
    y = e * e;
}

// exp(-|x|) within the limit, which changes no digit of what follows. NaN does not stay.
template <class T, class V>
MDGNN_INLINE void exp_of_minus_size(const V& x, V& negative, V& e) {
    const V zero = {};
    negative = x < zero ? x : -x;
    V bounded;
    bound_by_bits<T>(negative, -ExpConstants<T>::limit, ExpConstants<T>::limit, bounded);
    exp_within<T, WordsOf<T, V>>(bounded, e);
}

template <class T, class V>
MDGNN_INLINE void sigmoid_of(const V& x, V& y) {
    const SiluParts<T, V> parts(x);
    y = x == x ? parts.s : x;
}

// (1 - e) / (1 + e) with e = exp(-2 |x|): exact to a rounding of 1.
template <class T, class V>
MDGNN_INLINE void tanh_of(const V& x, V& y) {
    const V zero = {};
    V negative, e;
    exp_of_minus_size<T>(V(x + x), negative, e);
    const V size = (T(1) - e) / (T(1) + e);
    y = x < zero ? -size : x == x ? size : x;
}

// log(1 + exp(x)) - shift from e = exp(-|x|): log(1 + e) = 2 artanh(e / (2 + e)), whose argument is at most 1/3.
template <class T, class V>
MDGNN_INLINE void softplus_of(const V& x, double shift, V& y) {
    constexpr int kTerms = std::is_same_v<T, float> ? 8 : 17;
    V negative, e;
    exp_of_minus_size<T>(x, negative, e);
    const V zero = {}, s = e / (T(2) + e), square = s * s;
    V sum = zero + T(1) / T(2 * kTerms + 1);
    for (int k = kTerms - 1; k >= 0; --k) sum = sum * square + T(1) / T(2 * k + 1);
    y = (x - negative) * T(0.5) + (T(2) * s * sum - T(shift));
}

template <Unary function>
struct Row;

enum class From { nothing, x, y };

#define MDGNN_ROW(row, n, from, value, slope)                                                \
    template <>                                                                              \
    struct Row<Unary::row> {                                                                 \
        static constexpr const char* kName = #row;                                           \
        static constexpr std::size_t kNumbers = n;                                           \
        static constexpr From kFrom = From::from;                                            \
        template <class T, class V>                                                          \
        MDGNN_INLINE static void value_of(const V& x, [[maybe_unused]] T c, V& y) {          \
            [[maybe_unused]] const V zero = {};                                              \
            value;                                                                           \
        }                                                                                    \
        template <class T, class V>                                                          \
        MDGNN_INLINE static void slope_of([[maybe_unused]] const V& x, [[maybe_unused]] T c, \
                                          [[maybe_unused]] const V& y, V& d) {               \
            [[maybe_unused]] const V zero = {};                                              \
            slope;                                                                           \
        }                                                                                    \
    };
MDGNN_ELEMENTWISE(MDGNN_ROW)
#undef MDGNN_ROW

// A block whose rows follow upon each other is one row: bits do not depend on where in a vector a number stands.
template <class T>
bool one_row(const UnaryLoop<T>& p) {
    const auto follows = [](const auto& x) {  // no copies: they would wait for what has just been written
        return !x.data || (x.component_stride == x.shape.channels && x.row_stride == x.shape.size());
    };
    return follows(p.g) && follows(p.x) && follows(p.y) && follows(p.out);
}

template <int kBytes, Unary function, class T>
MDGNN_INLINE void row(const UnaryLoop<T>& p, std::int64_t i, std::int64_t k, std::int64_t n_channels) {
    using V = typename Wide<T, kBytes>::type;
    using R = Row<function>;
    constexpr std::int64_t kLanes = Wide<T, kBytes>::n;
    const T c = static_cast<T>(p.number);
    T* const to = p.out.at(i, k);
    const T *const g = p.g.at(i, k), *const x = p.x.at(i, k), *const y = p.y.at(i, k);
    for (std::int64_t f = 0; f < n_channels; f += kLanes) {
        const std::int64_t n = std::min(kLanes, n_channels - f);
        V given = {}, value = {};
        if (!p.derivative) {
            load_some(x + f, n, given);
            R::template value_of<T, V>(given, c, value);
            store_some(value, n, to + f);
            continue;
        }
        V gradient, slope, before = {};
        load_some(g + f, n, gradient);
        if constexpr (R::kFrom == From::x) load_some(x + f, n, given);
        if constexpr (R::kFrom == From::y) load_some(y + f, n, value);
        R::template slope_of<T, V>(given, c, value, slope);
        if (p.add) load_some(to + f, n, before);
        store_some(V(before + gradient * slope), n, to + f);
    }
}

template <int kBytes, Unary function, class T>
MDGNN_INLINE void rows(const UnaryLoop<T>& p, std::int64_t n_rows) {
    const bool one = one_row(p);
    const Shape shape = p.out.shape;
    const std::int64_t n = one ? 1 : n_rows, n_components = one ? 1 : shape.components;
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t k = 0; k < n_components; ++k)
            row<kBytes, function>(p, i, k, one ? n_rows * shape.size() : shape.channels);
}

#define MDGNN_CASE(row, ...) \
    case Unary::row:         \
        return rows<kWidth, Unary::row>(p, n_rows);
#define LOOPS(T, target, bytes)                                                           \
    target void row_loop(Vectors<bytes>, const UnaryLoop<T>& loop, std::int64_t n_rows) { \
        constexpr int kWidth = bytes;                                                     \
        const UnaryLoop<T> p = loop;                                                      \
        switch (p.function) { MDGNN_ELEMENTWISE(MDGNN_CASE) }                             \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)
#undef MDGNN_CASE

double number_of(const Instruction& in) { return in.numbers.empty() ? 0.0 : in.numbers[0]; }

template <Unary function, class T>
void forward(const Step<T>& step) {
    const ArrayView<const T> x = step.input(0);
    apply<T>({function, number_of(step.in), {}, x, {}, step.output()}, step.n_rows());
}

template <Unary function, class T>
void backward(const Step<T>& step) {
    if (!step.needs_grad(0)) return;
    UnaryLoop<T> loop{function, number_of(step.in), step.output_grad(), {}, {}, step.input_grad(0), true, step.adds(0)};
    if constexpr (Row<function>::kFrom == From::x) loop.x = step.input(0);
    if constexpr (Row<function>::kFrom == From::y) loop.y = step.output();
    apply(loop, step.n_rows());
}

template <Unary function>
void tangent(const Step<double>& step) {
    apply<double>({function, number_of(step.in), step.input_tangent(0), step.input(0), step.output(),
                   step.output_tangent(), true},
                  step.n_rows());
}

bool same_shape(const Signature& s) { return s.inputs[0] == s.outputs[0]; }

template <Unary function>
constexpr Declaration declaration() {
    using R = Row<function>;
    return {.name = R::kName,
            .inputs = 1,
            .outputs = 1,
            .weights = 0,
            .numbers = R::kNumbers,
            .fits = same_shape,
            .reads = {.inputs = R::kFrom == From::x, .outputs = R::kFrom == From::y},
            .float32 = {.forward = forward<function, float>, .backward = backward<function, float>},
            .float64 = {.forward = forward<function, double>,
                        .backward = backward<function, double>,
                        .tangent = tangent<function>}};
}

#define MDGNN_DECLARATION(row, ...) declaration<Unary::row>(),
constexpr Declaration kDeclarations[] = {MDGNN_ELEMENTWISE(MDGNN_DECLARATION)};
#undef MDGNN_DECLARATION

}  // namespace

std::span<const Declaration> elementwise() { return kDeclarations; }

template <class T>
void apply(const UnaryLoop<T>& loop, std::int64_t n_rows) {
    with_vectors([&](auto v) { row_loop(v, loop, n_rows); });
}

template void apply<float>(const UnaryLoop<float>&, std::int64_t);
template void apply<double>(const UnaryLoop<double>&, std::int64_t);

}  // namespace mdgnn::engine
