// Writing the edges of one row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "neighbors/candidates.hpp"
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

// Writes the n edges of row i to the start of the arrays. J and S are the integer types of senders and shifts, void for
// none: one loop without branches for every choice, so that each candidate is read once.
template <class T, class J, class S, bool kVectors, bool kDistances>
void write_row(const Candidates<T>& c, std::int64_t i, const T* ri, std::int64_t n, const EdgeArrays<T>& out) {
    if (out.receivers) std::fill(out.receivers, out.receivers + n, i);
    if (out.receivers32) std::fill(out.receivers32, out.receivers32 + n, static_cast<std::int32_t>(i));
    const std::uint32_t *const match = c.matches.data(), *const senders = c.j.data(), *const move_of = c.move.data();
    const Place<T>* const places = c.places.data();
    const Move<T>* const moves = c.moves.data();
    const typename Four<T>::type origin = {ri[0], ri[1], ri[2], T(0)};
    const auto write = [&](std::int64_t m, bool last) __attribute__((always_inline)) {
        const std::uint32_t k = match[m];
        [[maybe_unused]] const Move<T>& move = moves[move_of[k]];
        if constexpr (std::is_same_v<J, std::int64_t>) out.senders[m] = senders[k];
        if constexpr (std::is_same_v<J, std::int32_t>) out.senders32[m] = static_cast<std::int32_t>(senders[k]);
        if constexpr (!std::is_void_v<S>) {
            typename Four<S>::type shift;
            load_four<S>(move.shift, shift);
            if constexpr (std::is_same_v<S, std::int64_t>) store_triple(out.shifts, m, shift, last);
            if constexpr (std::is_same_v<S, std::int32_t>) store_triple(out.shifts32, m, shift, last);
        }
        if constexpr (kVectors || kDistances) {
            typename Four<T>::type r, offset;
            load_four<T>(places[k].r, r), load_four<T>(move.offset, offset);
            const typename Four<T>::type d = (r - origin) + offset;
            if constexpr (kVectors) store_triple(out.vectors, m, d, last);
            if constexpr (kDistances) out.distances[m] = std::sqrt(squared<T>(d[0], d[1], d[2]));
        }
    };
    for (std::int64_t m = 0; m + 1 < n; ++m) write(m, false);
    if (n > 0) write(n - 1, true);
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
