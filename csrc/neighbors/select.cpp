// Distances are compared in float32, relative to the bin; only what lies within rounding of the cutoff is decided by
// the exact edge vector. SIMD over candidates; a liquid has 3.5 to 5 of them per edge.
#include "neighbors/select.hpp"

#include <algorithm>
#include <bit>

#include "core/simd.hpp"
#include "neighbors/math.hpp"

namespace mdgnn::cpu {
namespace {

// What the loops see of Candidates: they are compiled for several instruction sets, which templates cannot be.
struct Rough {
    const float *x, *y, *z;
    float at[3], inside, outside;
};

// Of the candidates of a word: bits of those that are edges for certain or perhaps, and of those that are perhaps.
struct Bits {
    std::uint64_t possible, doubtful;
};

// Eight bytes of 0 or 1 to eight bits.
inline std::uint64_t pack(const std::uint8_t* bytes) {
    std::uint64_t x = 0;
    for (int l = 0; l < 8; ++l) x |= static_cast<std::uint64_t>(bytes[l]) << (8 * l);
    return (x * 0x0102040810204080u) >> 56;
}

MDGNN_SIMD_CLONES Bits compare_anywhere(const Rough& given, std::int64_t begin) {
    const Rough c = given;  // a copy, which the bytes cannot change: else nothing is vectorised
    std::uint8_t possible[kWord], doubtful[kWord];
    for (std::int64_t l = 0; l < kWord; ++l) {
        const float d2 = squared(c.x[begin + l] - c.at[0], c.y[begin + l] - c.at[1], c.z[begin + l] - c.at[2]);
        const bool near = d2 <= c.outside, inside = d2 < c.inside;
        possible[l] = near, doubtful[l] = near && !inside;
    }
    Bits bits{};
    for (int l = 0; l < kWord; l += 8) {
        bits.possible |= pack(possible + l) << l;
        bits.doubtful |= pack(doubtful + l) << l;
    }
    return bits;
}

#ifdef MDGNN_AVX512
__attribute__((target("avx512f"))) inline Bits compare_avx512(const Rough& c, std::int64_t begin) {
    const __m512 x0 = _mm512_set1_ps(c.at[0]), y0 = _mm512_set1_ps(c.at[1]), z0 = _mm512_set1_ps(c.at[2]);
    const __m512 inside = _mm512_set1_ps(c.inside), outside = _mm512_set1_ps(c.outside);
    Bits bits{};
    for (int l = 0; l < kWord; l += 16) {
        const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(c.x + begin + l), x0);
        const __m512 y = _mm512_sub_ps(_mm512_loadu_ps(c.y + begin + l), y0);
        const __m512 z = _mm512_sub_ps(_mm512_loadu_ps(c.z + begin + l), z0);
        const __m512 d2 = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(y, y)), _mm512_mul_ps(z, z));
        const unsigned near = _mm512_cmp_ps_mask(d2, outside, _CMP_LE_OQ);
        const unsigned sure = _mm512_cmp_ps_mask(d2, inside, _CMP_LT_OQ);
        bits.possible |= static_cast<std::uint64_t>(near) << l;
        bits.doubtful |= static_cast<std::uint64_t>(near & ~sure) << l;
    }
    return bits;
}
#endif

// Sets the words of a mask from `first` on.
template <class Compare, class Decide>
__attribute__((always_inline)) inline std::int64_t mark(const Compare& compare, const Decide& decide,
                                                        std::int64_t n_words, std::int64_t first, std::int64_t skip,
                                                        std::uint64_t* mask) {
    std::int64_t n = 0;
    std::fill(mask, mask + first / kWord, std::uint64_t{0});
    for (std::int64_t w = first / kWord; w < n_words; ++w) {
        const std::int64_t begin = w * kWord;
        Bits bits = compare(begin);
        if (first > begin) bits.possible &= ~std::uint64_t{0} << (first - begin);
        if (skip >= begin && skip < begin + kWord) bits.possible &= ~(std::uint64_t{1} << (skip - begin));
        for (std::uint64_t left = bits.doubtful & bits.possible; left; left &= left - 1)
            if (!decide(begin + std::countr_zero(left))) bits.possible &= ~(left & -left);
        mask[w] = bits.possible;
        n += std::popcount(bits.possible);
    }
    return n;
}

#ifdef MDGNN_AVX512
template <class Decide>
__attribute__((target("avx512f,popcnt"))) std::int64_t mark_avx512(const Rough& c, const Decide& decide,
                                                                   std::int64_t n_words, std::int64_t first,
                                                                   std::int64_t skip, std::uint64_t* mask) {
    const auto compare = [&](std::int64_t begin)
                             __attribute__((target("avx512f,popcnt"))) { return compare_avx512(c, begin); };
    return mark(compare, decide, n_words, first, skip, mask);
}
#endif

}  // namespace

template <class T>
std::int64_t select(const Bins<T>& bins, const Cell<T>& cell, Candidates& c, std::int64_t self, T limit,
                    std::int64_t first, std::int64_t skip) {
    const Rough rough{c.x.data(), c.y.data(), c.z.data(), {c.x[self], c.y[self], c.z[self]}, c.inside, c.outside};
    const std::int64_t receiver = c.at[self];
    const auto decide = [&](std::int64_t k) { return square_to(bins, cell, c, k, receiver) <= limit; };
#ifdef MDGNN_AVX512
    if (has_avx512()) return mark_avx512(rough, decide, c.words(), first, skip, c.mask.data());
#endif
    const auto compare = [&](std::int64_t begin) { return compare_anywhere(rough, begin); };
    return mark(compare, decide, c.words(), first, skip, c.mask.data());
}

template std::int64_t select<float>(const Bins<float>&, const Cell<float>&, Candidates&, std::int64_t, float,
                                    std::int64_t, std::int64_t);
template std::int64_t select<double>(const Bins<double>&, const Cell<double>&, Candidates&, std::int64_t, double,
                                     std::int64_t, std::int64_t);

}  // namespace mdgnn::cpu
