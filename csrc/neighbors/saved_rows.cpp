// What is saved takes a bit for every candidate of an atom, less than a byte an edge, and 8 bytes for every candidate
// of a bin, of which a liquid has one in five edges. A row with few neighbours among many candidates keeps few words.
#include "neighbors/saved_rows.hpp"

#include <algorithm>
#include <bit>

#include "core/simd.hpp"

namespace mdgnn::cpu {
namespace {

// Of a candidate that lies outside of the cell S depends on its own cell too: pairs of image and cell get numbers after
// those of the images, the same pair always the same one. False where that makes a long table, which would be a tenth
// of what the result takes.
template <class T>
bool number_shifts(const Bins<T>& bins, Candidates& c) {
    const std::size_t n = c.at.size(), most = c.images.size() + n / 8;
    std::size_t slots = 0;
    c.shifts = c.images, c.shift_of = c.image_of;
    for (std::size_t k = 0; k < n; ++k) {
        if (same(bins.wraps[c.at[k]], {})) continue;
        if (slots == 0) {
            for (slots = 16; slots < 2 * (most + 1);) slots *= 2;
            c.scratch.assign(slots, 0);  // a hash table of numbers; 0 is free, because every bin has an image
        }
        Shift s = c.images[c.image_of[k]];
        for (int a = 0; a < 3; ++a) s[a] -= bins.wraps[c.at[k]][a];
        const std::int64_t place[3] = {s[0], s[1], s[2]};
        std::size_t h = hash_of(0, place) & (slots - 1);
        while (c.scratch[h] != 0 && !same(c.shifts[c.scratch[h]], s)) h = (h + 1) & (slots - 1);
        if (c.scratch[h] == 0) {
            if (c.shifts.size() > most) return false;
            c.scratch[h] = static_cast<std::uint32_t>(c.shifts.size());
            c.shifts.push_back(s);
        }
        c.shift_of[k] = c.scratch[h];
    }
    return true;
}

// Calls list(word, its first candidate) for the words of a row that are not zero.
template <class List>
__attribute__((always_inline)) inline void for_words(const SavedBin& bin, const SavedRow& row, const List& list) {
    const std::int64_t n_marks = words_of(words_of(bin.n));
    const std::uint64_t* word = row.words + n_marks;
    for (std::int64_t m = 0; m < n_marks; ++m)
        for (std::uint64_t marks = row.words[m]; marks; marks &= marks - 1)
            list(*word++, static_cast<std::uint32_t>((m * kWord + std::countr_zero(marks)) * kWord));
}

#ifdef MDGNN_AVX512
__attribute__((target("avx512f,popcnt"))) void list_avx512(const SavedBin& bin, const SavedRow& row,
                                                           std::uint32_t* numbers) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for_words(bin, row, [&](std::uint64_t word, std::uint32_t first) __attribute__((target("avx512f,popcnt"))) {
        for (std::uint32_t l = 0; l < kWord; l += 16) {
            const auto bits = static_cast<__mmask16>(word >> l);
            const __m512i places = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first + l)), lanes);
            _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(bits, places));
            numbers += __builtin_popcount(bits);
        }
    });
}
#endif

}  // namespace

template <class T>
SavedBin save_candidates(Arena& arena, const Bins<T>& bins, Candidates& c) {
    const bool numbered = bins.wraps && number_shifts(bins, c);
    const auto& of = numbered ? c.shift_of : c.image_of;
    const auto& shifts = numbered ? c.shifts : c.images;
    std::uint32_t* const places = arena.array<std::uint32_t>(2 * c.at.size());
    std::uint32_t* const shift_of = std::copy(c.at.begin(), c.at.end(), places);
    std::copy(of.begin(), of.end(), shift_of);
    Shift* const saved_shifts = arena.array<Shift>(shifts.size());
    std::copy(shifts.begin(), shifts.end(), saved_shifts);
    return {places,
            shift_of,
            saved_shifts,
            static_cast<std::uint32_t>(c.at.size()),
            static_cast<std::uint32_t>(shifts.size()),
            bins.wraps && !numbered};
}

template SavedBin save_candidates<float>(Arena&, const Bins<float>&, Candidates&);
template SavedBin save_candidates<double>(Arena&, const Bins<double>&, Candidates&);

const std::uint64_t* save_neighbors(Arena& arena, const Candidates& c) {
    const std::int64_t n = c.words(), n_marks = words_of(n);
    std::uint64_t* const marks = arena.room<std::uint64_t>(static_cast<std::size_t>(n_marks + n));
    std::fill(marks, marks + n_marks, std::uint64_t{0});
    std::uint64_t* end = marks + n_marks;
    for (std::int64_t w = 0; w < n; ++w) {
        *end = c.mask[w];
        marks[w / kWord] |= static_cast<std::uint64_t>(c.mask[w] != 0) << w % kWord;
        end += c.mask[w] != 0;
    }
    arena.take<std::uint64_t>(static_cast<std::size_t>(end - marks));
    return marks;
}

void list_neighbors(const SavedBin& bin, const SavedRow& row, std::uint32_t* numbers) {
#ifdef MDGNN_AVX512
    if (has_avx512()) return list_avx512(bin, row, numbers);
#endif
    for_words(bin, row, [&](std::uint64_t word, std::uint32_t first) {
        for (; word; word &= word - 1) *numbers++ = first + static_cast<std::uint32_t>(std::countr_zero(word));
    });
}

}  // namespace mdgnn::cpu
