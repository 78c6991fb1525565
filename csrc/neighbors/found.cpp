// What is kept takes 2 bytes an edge, and 6 a candidate, of which a liquid has one in five edges.
#include "neighbors/found.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include "neighbors/select.hpp"

namespace mdgnn::cpu {
namespace {

template <class Number>
const void* keep_as(Arena& arena, const std::uint32_t* numbers, std::size_t n) {
    Number* const to = arena.room<Number>(n);
    for (std::size_t k = 0; k < n; ++k) to[k] = static_cast<Number>(numbers[k]);
    arena.take<Number>(n);
    return to;
}

// Of a candidate that lies outside of the cell S depends on its own cell too: pairs of image and cell get numbers after
// those of the images, the same pair always the same one.
template <class T>
void add_wraps(const Bins<T>& bins, Candidates& c) {
    const std::size_t n = c.at.size();
    std::size_t slots = 0;
    for (std::size_t k = 0; k < n; ++k) {
        const Shift& wrap = bins.wraps[c.at[k]];
        if ((wrap[0] | wrap[1] | wrap[2]) == 0) continue;
        if (slots == 0) {
            for (slots = 16; slots < 2 * (n - k);) slots *= 2;
            c.scratch.assign(slots, 0);  // a hash table of numbers; 0 is free, because every bin has an image
        }
        Shift s = c.images[c.image_of[k]];
        for (int a = 0; a < 3; ++a) s[a] -= wrap[a];
        const std::int64_t place[3] = {s[0], s[1], s[2]};
        std::size_t h = hash_of(0, place) & (slots - 1);
        while (c.scratch[h] != 0 && c.images[c.scratch[h]] != s) h = (h + 1) & (slots - 1);
        if (c.scratch[h] == 0) {
            c.scratch[h] = static_cast<std::uint32_t>(c.images.size());
            c.images.push_back(s);
        }
        c.image_of[k] = c.scratch[h];
    }
}

}  // namespace

const void* keep(Arena& arena, const std::uint32_t* numbers, std::size_t n, bool wide) {
    return wide ? keep_as<std::uint32_t>(arena, numbers, n) : keep_as<std::uint16_t>(arena, numbers, n);
}

template <class T>
FoundBin<T> keep_candidates(Arena& arena, const Bins<T>& bins, const Cell<T>& cell, Candidates& c) {
    if (!bins.wraps.empty()) add_wraps(bins, c);
    FoundBin<T> kept;
    const std::size_t n = c.at.size(), n_moves = c.images.size();
    kept.wide = std::max(n, n_moves) > std::numeric_limits<std::uint16_t>::max();
    std::uint32_t* const places = arena.room<std::uint32_t>(n);
    std::copy(c.at.begin(), c.at.end(), places);
    arena.take<std::uint32_t>(n);
    kept.places = places;
    kept.move_of = keep(arena, c.image_of.data(), n, kept.wide);
    Move<T>* const moves = arena.room<Move<T>>(n_moves);
    for (std::size_t m = 0; m < n_moves; ++m) new (moves + m) Move<T>(c.images[m], cell);
    arena.take<Move<T>>(n_moves);
    kept.moves = moves;
    return kept;
}

template FoundBin<float> keep_candidates<float>(Arena&, const Bins<float>&, const Cell<float>&, Candidates&);
template FoundBin<double> keep_candidates<double>(Arena&, const Bins<double>&, const Cell<double>&, Candidates&);

}  // namespace mdgnn::cpu
