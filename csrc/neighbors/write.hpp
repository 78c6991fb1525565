// Writing the edges of one row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "neighbors/found.hpp"
#include "neighbors/math.hpp"

namespace mdgnn::cpu {

// Four numbers that are loaded, computed and stored together; the fourth is ballast.
template <class T>
struct Four {
    typedef T type __attribute__((vector_size(4 * sizeof(T))));
};

template <class To, class From>
inline void load_four(const From* from, typename Four<To>::type& to) {
    typename Four<From>::type v;
    std::memcpy(&v, from, sizeof v);
    if constexpr (std::is_same_v<To, From>)
        to = v;
    else
        to = __builtin_convertvector(v, typename Four<To>::type);
}

// The triple m of an array. Before the last one the fourth number may be written too: the next triple covers it.
template <class T>
inline void store_triple(T* array, std::int64_t m, const typename Four<T>::type& v, bool last) {
    if (last)
        std::memcpy(array + 3 * m, &v, 3 * sizeof(T));
    else
        std::memcpy(array + 3 * m, &v, 4 * sizeof(T));
}

// A row as the first call has found it.
template <class T>
struct Source {
    const Bins<T>& bins;
    const FoundBin<T>& bin;
    const Move<T>* moves;  // for this receiver
    FoundRow row;
};

// Writes the n edges of a row to the start of the arrays. J and S are the integer types of senders and shifts, void for
// none: one loop without branches for every choice, so that each neighbour is read once.
template <class T, class J, class S, bool kVectors, bool kDistances, class Number>
void write_edges(const Source<T>& from, std::int64_t n, const EdgeArrays<T>& out) {
    using V = typename Four<T>::type;
    const auto *const matches = static_cast<const Number*>(from.row.matches), *const move_of =
                                                                                  static_cast<const Number*>(
                                                                                      from.bin.move_of);
    const std::uint32_t *const places = from.bin.places, *const order = from.bins.order.data();
    const Place<T>* const positions = from.bins.positions.data();
    const Move<T>* const moves = from.moves;
    V origin;
    load_four<T>(positions[from.row.place].r, origin);
    const auto write = [&](std::int64_t m, bool last) __attribute__((always_inline)) {
        const Number k = matches[m];
        const std::uint32_t p = places[k];
        [[maybe_unused]] const Move<T>& move = moves[move_of[k]];
        if constexpr (std::is_same_v<J, std::int64_t>) out.senders[m] = order[p];
        if constexpr (std::is_same_v<J, std::int32_t>) out.senders32[m] = static_cast<std::int32_t>(order[p]);
        if constexpr (!std::is_void_v<S>) {
            typename Four<S>::type shift;
            load_four<S>(move.shift, shift);
            if constexpr (std::is_same_v<S, std::int64_t>) store_triple(out.shifts, m, shift, last);
            if constexpr (std::is_same_v<S, std::int32_t>) store_triple(out.shifts32, m, shift, last);
        }
        if constexpr (kVectors || kDistances) {
            V r, offset;
            load_four<T>(positions[p].r, r), load_four<T>(move.offset, offset);
            const V d = (r - origin) + offset;
            if constexpr (kVectors) store_triple(out.vectors, m, d, last);
            if constexpr (kDistances) out.distances[m] = std::sqrt(squared<T>(d[0], d[1], d[2]));
        }
    };
    for (std::int64_t m = 0; m + 1 < n; ++m) write(m, false);
    if (n > 0) write(n - 1, true);
}

template <class T, class J, class S, bool kVectors, bool kDistances>
void write_row(const Source<T>& from, std::int64_t i, std::int64_t n, const EdgeArrays<T>& out) {
    if (out.receivers) std::fill(out.receivers, out.receivers + n, i);
    if (out.receivers32) std::fill(out.receivers32, out.receivers32 + n, static_cast<std::int32_t>(i));
    if (from.bin.wide)
        write_edges<T, J, S, kVectors, kDistances, std::uint32_t>(from, n, out);
    else
        write_edges<T, J, S, kVectors, kDistances, std::uint16_t>(from, n, out);
}

template <class T>
using Writer = decltype(&write_row<T, void, void, false, false>);

template <class T, class J, class S>
Writer<T> writer_of(const EdgeArrays<T>& out) {
    if (out.vectors) return out.distances ? &write_row<T, J, S, true, true> : &write_row<T, J, S, true, false>;
    return out.distances ? &write_row<T, J, S, false, true> : &write_row<T, J, S, false, false>;
}

template <class T, class J>
Writer<T> writer_with(const EdgeArrays<T>& out) {
    if (out.shifts) return writer_of<T, J, std::int64_t>(out);
    return out.shifts32 ? writer_of<T, J, std::int32_t>(out) : writer_of<T, J, void>(out);
}

template <class T>
Writer<T> choose_writer(const EdgeArrays<T>& out) {
    if (out.senders) return writer_with<T, std::int64_t>(out);
    return out.senders32 ? writer_with<T, std::int32_t>(out) : writer_with<T, void>(out);
}

// The arrays from edge k on.
template <class T>
EdgeArrays<T> from_edge(EdgeArrays<T> out, std::int64_t k) {
    const auto move = [k](auto*& array, std::int64_t width) {
        if (array) array += width * k;
    };
    move(out.receivers, 1), move(out.receivers32, 1), move(out.senders, 1), move(out.senders32, 1);
    move(out.shifts, 3), move(out.shifts32, 3), move(out.vectors, 3), move(out.distances, 1);
    return out;
}

}  // namespace mdgnn::cpu
