// Distances are compared in float32, relative to the bin; only what lies within rounding of the cutoff is decided by
// the exact edge vector. SIMD over candidates; a liquid has 3.5 to 5 of them per edge.
//
// AVX-512 packs the numbers of those that pass with one instruction, 0.4 ns a candidate less than the loop without
// branches that serves every other machine.
#include "neighbors/select.hpp"

#include <algorithm>

#include "core/simd.hpp"
#include "neighbors/math.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(MDGNN_GENERIC)  // for tests of what other machines run
#define MDGNN_AVX512 1
#include <immintrin.h>
#endif

namespace mdgnn::cpu {
namespace {

// What the loops see of Candidates: they are compiled for several instruction sets, which templates cannot be.
struct Rough {
    const float *x, *y, *z;
    std::int64_t first, last;
    float at[3], inside, outside;
};

constexpr std::int64_t kTile = 256;

// 2: an edge for certain, 1: perhaps, 0: none. Returns whether all are certain.
MDGNN_SIMD_CLONES bool classify(const Rough& given, std::int64_t begin, std::int64_t width, std::uint8_t* kinds) {
    const Rough c = given;  // a copy, which bytes written to `kinds` cannot change: else nothing is vectorised
    std::int32_t sure = 0, possible = 0;
    for (std::int64_t l = 0; l < width; ++l) {
        const float d2 = squared(c.x[begin + l] - c.at[0], c.y[begin + l] - c.at[1], c.z[begin + l] - c.at[2]);
        const bool inside = d2 < c.inside, near = d2 <= c.outside;
        sure += inside, possible += near;
        kinds[l] = static_cast<std::uint8_t>(near) + static_cast<std::uint8_t>(inside && near);
    }
    return sure == possible;
}

template <class Decide>
std::int64_t select_anywhere(const Rough& c, std::int64_t skip, std::uint32_t* found, const Decide& decide) {
    std::int64_t n = 0;
    std::uint8_t kinds[kTile];
    for (std::int64_t begin = c.first; begin < c.last; begin += kTile) {
        const std::int64_t width = std::min(kTile, c.last - begin);
        if (!classify(c, begin, width, kinds))
            for (std::int64_t l = 0; l < width; ++l)
                if (kinds[l] == 1 && !decide(begin + l)) kinds[l] = 0;
        if (skip >= begin && skip < begin + width) kinds[skip - begin] = 0;
        for (std::int64_t l = 0; l < width; ++l) {  // without a branch, which would often be guessed wrong
            found[n] = static_cast<std::uint32_t>(begin + l);
            n += kinds[l] != 0;
        }
    }
    return n;
}

#ifdef MDGNN_AVX512
template <class Decide>
__attribute__((target("avx512f,popcnt"))) std::int64_t select_avx512(const Rough& c, std::int64_t skip,
                                                                     std::uint32_t* found, const Decide& decide) {
    const __m512 x0 = _mm512_set1_ps(c.at[0]), y0 = _mm512_set1_ps(c.at[1]), z0 = _mm512_set1_ps(c.at[2]);
    const __m512 inside = _mm512_set1_ps(c.inside), outside = _mm512_set1_ps(c.outside);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    std::int64_t n = 0;
    for (std::int64_t k = c.first; k < c.last; k += 16) {
        const auto valid = static_cast<__mmask16>(c.last - k >= 16 ? 0xffff : (1 << (c.last - k)) - 1);
        const __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(valid, c.x + k), x0);
        const __m512 y = _mm512_sub_ps(_mm512_maskz_loadu_ps(valid, c.y + k), y0);
        const __m512 z = _mm512_sub_ps(_mm512_maskz_loadu_ps(valid, c.z + k), z0);
        const __m512 d2 = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(y, y)), _mm512_mul_ps(z, z));
        unsigned edges = _mm512_mask_cmp_ps_mask(valid, d2, outside, _CMP_LE_OQ);
        unsigned doubtful = edges & ~static_cast<unsigned>(_mm512_cmp_ps_mask(d2, inside, _CMP_LT_OQ));
        while (doubtful) {
            const int l = __builtin_ctz(doubtful);
            if (!decide(k + l)) edges &= ~(1u << l);
            doubtful &= doubtful - 1;
        }
        if (skip >= k && skip < k + 16) edges &= ~(1u << (skip - k));
        const __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(k)), lanes);
        _mm512_storeu_si512(found + n, _mm512_maskz_compress_epi32(static_cast<__mmask16>(edges), numbers));
        n += __builtin_popcount(edges);
    }
    return n;
}

bool has_avx512() {
    static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("popcnt");
    return has;
}
#endif

}  // namespace

template <class T>
std::int64_t select(const Bins<T>& bins, const Cell<T>& cell, const Candidates& c, std::int64_t self, T limit,
                    std::int64_t first, std::int64_t skip, std::uint32_t* found) {
    const Rough rough{c.x.data(), c.y.data(), c.z.data(), first, c.size(), {c.x[self], c.y[self], c.z[self]},
                      c.inside,   c.outside};
    const std::int64_t receiver = c.at[self];
    const auto decide = [&](std::int64_t k) { return square_to(bins, cell, c, k, receiver) <= limit; };
#ifdef MDGNN_AVX512
    if (has_avx512()) return select_avx512(rough, skip, found, decide);
#endif
    return select_anywhere(rough, skip, found, decide);
}

template std::int64_t select<float>(const Bins<float>&, const Cell<float>&, const Candidates&, std::int64_t, float,
                                    std::int64_t, std::int64_t, std::uint32_t*);
template std::int64_t select<double>(const Bins<double>&, const Cell<double>&, const Candidates&, std::int64_t, double,
                                     std::int64_t, std::int64_t, std::uint32_t*);

}  // namespace mdgnn::cpu
