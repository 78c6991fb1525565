// The edges of one row with their places in a table, worked out before the loops over features.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/thread_pool.hpp"
#include "core/vectors.hpp"
#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::cpu {

template <class T>
struct FilterEdge {
    const T* coefficients = nullptr;  // of the interval: four times `width` numbers
    std::int64_t other = 0;           // the atom at the other end
    std::int64_t edge = 0;
    T t = 0;
};

// Features of rows that have loops of their own, in which a number's address is a constant beside that of its row: a
// third of the instructions less. Other loops have a width of 0: any.
constexpr std::int64_t kCommonWidth = 64;

// The number of the edge that is entry k.
MDGNN_INLINE std::int64_t edge_at(const Rows& rows, std::int64_t k) { return rows.edge ? rows.edge[k] : k; }

// Those edges of row i that are shorter than the cutoff, in order. The memory is reused.
template <class T>
MDGNN_INLINE void filter_edges(const Rows& rows, const RadialTable<T>& given, const T* r, std::int64_t i,
                               std::vector<FilterEdge<T>>& within) {
    const RadialTable<T> table = given;  // a copy stays in registers while edges are written
    const std::int64_t begin = rows.row_ptr[i], end = rows.row_ptr[i + 1];
    const std::int64_t* const others = rows.index;
    within.resize(static_cast<std::size_t>(end - begin));
    FilterEdge<T>* e = within.data();
    for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t edge = edge_at(rows, k);
        const T distance = r[edge];
        if (!(distance < table.cutoff)) continue;
        T t;
        const std::int64_t g = interval_of(table, distance, t);
        *e++ = {table.coefficients + 4 * table.width * g, others[k], edge, t};
    }
    within.resize(static_cast<std::size_t>(e - within.data()));
}

// The edges of a row that are shorter than the cutoff, in order, as arrays: places in the table are found in vectors.
// The memory is reused.
template <class T>
struct FilterRow {
    std::int64_t n = 0;
    const std::int64_t* other = nullptr;  // the atom at the other end
    const T* t = nullptr;
    const std::int32_t* interval = nullptr;

    std::int64_t edge(std::int64_t k) const { return numbers ? numbers[k] : first + k; }

    std::int64_t first = 0;
    const std::int64_t* numbers = nullptr;  // null: from `first` on
    std::vector<T> distances_memory, t_memory;
    std::vector<std::int32_t> interval_memory;
    std::vector<std::int64_t> other_memory, number_memory;
};

template <class T>
MDGNN_INLINE T* room_for(std::int64_t n, std::vector<T>& memory) {
    if (memory.size() < static_cast<std::size_t>(n)) memory.resize(static_cast<std::size_t>(n));
    return memory.data();
}

// Copies those edges of row i that are shorter than the cutoff; returns their lengths.
template <class T>
MDGNN_INLINE const T* copy_edges(const Rows& rows, T cutoff, const T* r, std::int64_t i, FilterRow<T>& row) {
    const std::int64_t begin = rows.row_ptr[i], end = rows.row_ptr[i + 1];
    T* const distances = room_for(end - begin, row.distances_memory);
    std::int64_t* const others = room_for(end - begin, row.other_memory);
    std::int64_t* const numbers = room_for(end - begin, row.number_memory);
    std::int64_t n = 0;
    for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t edge = edge_at(rows, k);
        distances[n] = r[edge], others[n] = rows.index[k], numbers[n] = edge;
        n += r[edge] < cutoff;
    }
    row.n = n, row.other = others, row.numbers = numbers;
    return distances;
}

// Sets `row` to row i.
template <class T>
MDGNN_INLINE void find_row(const Rows& rows, const RadialTable<T>& table, const T* r, std::int64_t i,
                           FilterRow<T>& row) {
    const std::int64_t begin = rows.row_ptr[i];
    const T cutoff = table.cutoff, per_unit = table.per_unit;
    std::int64_t n = rows.row_ptr[i + 1] - begin;
    row.n = n, row.other = rows.index + begin, row.first = begin, row.numbers = nullptr;
    const T* distances = r + begin;
    int beyond = rows.edge != nullptr;
    if (!beyond)
        for (std::int64_t k = 0; k < n; ++k) beyond |= !(distances[k] < cutoff);
    if (beyond) distances = copy_edges(rows, cutoff, r, i, row), n = row.n;
    T* const t = room_for(n, row.t_memory);
    std::int32_t* const interval = room_for(n, row.interval_memory);  // a table of more would take 32 GB
    const std::int32_t last = static_cast<std::int32_t>(table.n_intervals - 1);
    for (std::int64_t k = 0; k < n; ++k) {
        const T u = distances[k] * per_unit;
        const std::int32_t whole = static_cast<std::int32_t>(u), g = whole < last ? whole : last;
        interval[k] = g, t[k] = u - static_cast<T>(g);
    }
    row.t = t, row.interval = interval;
}

// The filter at t for one feature or a vector of them; `at` points into the table. Nothing is left to the compiler that
// contracts: the bits are the same wherever this stands.
template <class V, class T>
MDGNN_INLINE void cubic(const T* at, std::int64_t width, T t, V& filter) {
    V a, b, c, d;
    load(at, a), load(at + width, b), load(at + 2 * width, c), load(at + 3 * width, d);
    filter = ((d * t + c) * t + b) * t + a;
}

template <class V, class T>
MDGNN_INLINE void interpolate_value(const FilterWeights<T>& w, const T* at, std::int64_t width, V& filter) {
    cubic(at, width, w.at[1], filter);
}

// Beside it its derivative for t, whose factors are t2 = 2 t and t3 = 3 t^2: coefficients are loaded once.
template <class V, class T>
MDGNN_INLINE void cubic_with_slope(const T* at, std::int64_t width, T t, T t2, T t3, V& filter, V& slope) {
    V a, b, c, d;
    load(at, a), load(at + width, b), load(at + 2 * width, c), load(at + 3 * width, d);
    filter = ((d * t + c) * t + b) * t + a;
    slope = d * t3 + (c * t2 + b);
}

// And the second derivative, times `factor`; t6 = 6 t.
template <class V, class T>
MDGNN_INLINE void cubic_with_curvature(const T* at, std::int64_t width, T t, T t2, T t3, T t6, T factor, V& filter,
                                       V& slope, V& curvature) {
    V a, b, c, d;
    load(at, a), load(at + width, b), load(at + 2 * width, c), load(at + 3 * width, d);
    filter = ((d * t + c) * t + b) * t + a;
    slope = d * t3 + (c * t2 + b);
    curvature = (d * t6 + (c + c)) * factor;
}

// A derivative of it: the first weight is zero.
template <class V, class T>
MDGNN_INLINE void interpolate_slope(const FilterWeights<T>& w, const T* at, std::int64_t width, V& filter) {
    V b, c, d;
    load(at + width, b), load(at + 2 * width, c), load(at + 3 * width, d);
    filter = b * w.at[1];
    filter = c * w.at[2] + filter;
    filter = d * w.at[3] + filter;
}

// Both, the derivative for t: two multiply-adds more than the value alone, by the sums that this goes through. That is
// what `cubic_with_slope` takes too, with two factors of an edge more; the last bit of the derivative is another one.
template <class V, class T>
MDGNN_INLINE void interpolate_both(T t, const T* at, std::int64_t width, V& filter, V& slope) {
    V a, b, c, d;
    load(at, a), load(at + width, b), load(at + 2 * width, c), load(at + 3 * width, d);
    c = d * t + c;
    slope = d * t + c;
    b = c * t + b;
    slope = slope * t + b;
    filter = b * t + a;
}

// Adds a product to what is there.
template <class V, class T>
MDGNN_INLINE void add_product(const V& a, const V& b, T* to) {
    V sum;
    load(to, sum);
    sum += a * b;
    store(sum, to);
}

// Calls body.operator()<V, n>(f) for pieces of n V's that cover features 0 .. width: first vectors of kBytes, then
// shorter ones, at last single numbers. Sums of a piece then fit into registers.
template <int kBytes, class T, int kMost, class Body>
MDGNN_INLINE void each_piece(std::int64_t width, Body&& body) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t n = Wide<T, kBytes>::n, n32 = Wide<T, 32>::n, n16 = Wide<T, 16>::n;
    std::int64_t f = 0;
    if constexpr (kMost > 1)
        for (; f + kMost * n <= width; f += kMost * n) body.template operator()<V, kMost>(f);
    if constexpr (kMost > 2)
        if (f + kMost / 2 * n <= width) body.template operator()<V, kMost / 2>(f), f += kMost / 2 * n;
    for (; f + n <= width; f += n) body.template operator()<V, 1>(f);
    if constexpr (kBytes > 32)
        if (f + n32 <= width) body.template operator()<typename Wide<T, 32>::type, 1>(f), f += n32;
    if (f + n16 <= width) body.template operator()<typename Wide<T, 16>::type, 1>(f), f += n16;
    for (; f < width; ++f) body.template operator()<T, 1>(f);
}

// Sums over features: `add(sums, f)` adds those from f on, a vector of them or one. Lanes are combined in a fixed
// order.
template <int kBytes, class T, int kSums, class Add>
MDGNN_INLINE void sum_pieces(std::int64_t width, Add&& add, T* sums) {
    using V = typename Wide<T, kBytes>::type;
    constexpr std::int64_t n = Wide<T, kBytes>::n, n32 = Wide<T, 32>::n, n16 = Wide<T, 16>::n;
    V lanes[kSums] = {};
    std::int64_t f = 0;
    for (; f + n <= width; f += n) add(lanes, f);
    for (int m = 0; m < kSums; ++m) sum_of_lanes(lanes[m], sums[m]);
    const auto add_shorter = [&]<class S>(S) __attribute__((always_inline)) {
        S shorter[kSums] = {};
        add(shorter, f);
        f += sizeof(S) / sizeof(T);
        for (int m = 0; m < kSums; ++m) {
            T sum;
            sum_of_lanes(shorter[m], sum);
            sums[m] += sum;
        }
    };
    if constexpr (kBytes > 32)
        if (f + n32 <= width) add_shorter(typename Wide<T, 32>::type{});
    if (f + n16 <= width) add_shorter(typename Wide<T, 16>::type{});
    while (f < width) add_shorter(T{});
}

// Rows per piece of work, so that waking a thread pays.
inline std::int64_t filter_grain(const Rows& rows, std::int64_t width) {
    const std::int64_t edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0;
    return 65536 / ((edges / (rows.n_rows + 1) + 1) * (width + 16)) + 1;
}

// out = sum of body(sum, first row, last row) over blocks of rows, each with a sum of `size` numbers of its own. Blocks
// depend on the number of edges alone, and are added in order: the same bits for any number of threads.
template <class T, class Body>
void sum_over_blocks(const Rows& rows, std::int64_t size, T* out, const Context& context, Body&& body) {
    const std::int64_t n_edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0;
    const std::int64_t n_blocks = std::clamp<std::int64_t>(n_edges / 4096, 1, 16);
    std::vector<std::int64_t> first(static_cast<std::size_t>(n_blocks) + 1, rows.n_rows);
    for (std::int64_t b = 0; b < n_blocks; ++b)
        first[b] = std::lower_bound(rows.row_ptr, rows.row_ptr + rows.n_rows, b * n_edges / n_blocks) - rows.row_ptr;
    first[0] = 0;
    std::vector<T> sums(static_cast<std::size_t>((n_blocks - 1) * size), T(0));
    std::fill(out, out + size, T(0));
    parallel_for(n_blocks, 1, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b)
            body(b == 0 ? out : sums.data() + (b - 1) * size, first[b], first[b + 1]);
    });
    parallel_for(size, 16384, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = 1; b < n_blocks; ++b)
            for (std::int64_t k = begin; k < end; ++k) out[k] += sums[static_cast<std::size_t>((b - 1) * size + k)];
    });
}

}  // namespace mdgnn::cpu
