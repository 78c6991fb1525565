// Writing the edges of one row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "neighbors/math.hpp"
#include "neighbors/saved_rows.hpp"

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

// By what a neighbour is moved.
template <class T>
struct Move {
    T offset[4];            // S @ cell
    std::int32_t shift[4];  // S
};

// A row as the first call has saved it.
template <class T>
struct Source {
    const Bins<T>& bins;
    const SavedBin& bin;
    std::uint32_t place;           // of the atom
    const std::uint32_t* numbers;  // of its neighbours among the candidates
    const Move<T>* moves;          // by edge, or by the shifts of the bin
    bool by_edge;
};

// Writes the n edges of a row to the start of the arrays. J and S are the integer types of senders and shifts, void for
// none: one loop without branches for every choice, so that each neighbour is read once.
template <class T, class J, class S, bool kVectors, bool kDistances>
void write_edges(const Source<T>& from, std::int64_t n, const EdgeArrays<T>& out) {
    using V = typename Four<T>::type;
    const std::uint32_t *const numbers = from.numbers, *const places = from.bin.places,
                               *const shift_of = from.bin.shift_of, *const order = from.bins.order;
    const Place<T>* const positions = from.bins.positions;
    const Move<T>* const moves = from.moves;
    const bool by_edge = from.by_edge;
    V origin;
    load_four<T>(positions[from.place].r, origin);
    const auto write = [&](std::int64_t m, bool last) __attribute__((always_inline)) {
        const std::uint32_t k = numbers[m], p = places[k];
        if constexpr (std::is_same_v<J, std::int64_t>) out.senders[m] = order[p];
        if constexpr (std::is_same_v<J, std::int32_t>) out.senders32[m] = static_cast<std::int32_t>(order[p]);
        [[maybe_unused]] const Move<T>* move = nullptr;
        if constexpr (!std::is_void_v<S> || kVectors || kDistances) move = moves + (by_edge ? m : shift_of[k]);
        if constexpr (!std::is_void_v<S>) {
            typename Four<S>::type shift;
            load_four<S>(move->shift, shift);
            if constexpr (std::is_same_v<S, std::int64_t>) store_triple(out.shifts, m, shift, last);
            if constexpr (std::is_same_v<S, std::int32_t>) store_triple(out.shifts32, m, shift, last);
        }
        if constexpr (kVectors || kDistances) {
            V r, offset;
            load_four<T>(positions[p].r, r), load_four<T>(move->offset, offset);
            const V d = (r - origin) + offset;
            if constexpr (kVectors) store_triple(out.vectors, m, d, last);
            if constexpr (kDistances) out.distances[m] = std::sqrt(squared<T>(d[0], d[1], d[2]));
        }
    };
    for (std::int64_t m = 0; m + 1 < n; ++m) write(m, false);
    if (n > 0) write(n - 1, true);
}

// Moves of rows that are written one after the other.
template <class T>
class Moves {
  public:
    // By the shifts of a bin, for a receiver's wrap. Many rows of a bin share them.
    const Move<T>* of_shifts(const SavedBin& bin, const Shift& wrap, const Cell<T>& cell) {
        if (bin_ == &bin && same(wrap_, wrap)) return moves_.data();
        bin_ = &bin, wrap_ = wrap;
        return make(bin.n_shifts, cell, [&](std::int64_t m) {
            Shift s = bin.shifts[m];
            for (int k = 0; k < 3; ++k) s[k] += wrap[k];
            return s;
        });
    }
    // By edge.
    const Move<T>* of_edges(const Bins<T>& bins, const SavedBin& bin, const std::uint32_t* numbers, std::int64_t n,
                            std::int64_t receiver, const Cell<T>& cell) {
        bin_ = nullptr;
        const Shift wrap = bins.wraps ? bins.wraps[receiver] : Shift{};
        return make(n, cell, [&](std::int64_t m) {
            const std::uint32_t k = numbers[m];
            Shift s = bin.shifts[bin.shift_of[k]];
            if (bin.images) return bins.shift(s, bin.places[k], receiver);
            for (int a = 0; a < 3; ++a) s[a] += wrap[a];
            return s;
        });
    }

  private:
    template <class ShiftOf>
    const Move<T>* make(std::int64_t n, const Cell<T>& cell, const ShiftOf& shift_of) {
        if (moves_.size() < static_cast<std::size_t>(n)) moves_.resize(n);
        using V = typename Four<T>::type;
        V rows[3];
        for (int k = 0; k < 3; ++k) rows[k] = V{cell.rows[k][0], cell.rows[k][1], cell.rows[k][2], T(0)};
        for (std::int64_t m = 0; m < n; ++m) {
            const Shift given = shift_of(m);
            const std::int32_t s[4] = {given[0], given[1], given[2], 0};
            // The order of operations is that of `translation`.
            const V offset =
                (static_cast<T>(s[0]) * rows[0] + static_cast<T>(s[1]) * rows[1]) + static_cast<T>(s[2]) * rows[2];
            std::memcpy(moves_[m].offset, &offset, sizeof offset);
            std::memcpy(moves_[m].shift, s, sizeof s);
        }
        return moves_.data();
    }

    std::vector<Move<T>> moves_;
    const SavedBin* bin_ = nullptr;
    Shift wrap_ = {};
};

template <class T, class J, class S, bool kVectors, bool kDistances>
void write_row(const Source<T>& from, std::int64_t i, std::int64_t n, const EdgeArrays<T>& out) {
    if (out.receivers) std::fill(out.receivers, out.receivers + n, i);
    if (out.receivers32) std::fill(out.receivers32, out.receivers32 + n, static_cast<std::int32_t>(i));
    write_edges<T, J, S, kVectors, kDistances>(from, n, out);
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
