// What CUDA kernels with a radial table share: how a warp walks the edges of a row.
//
// Parallelisation: a warp takes a row, or a piece of a wide row's features. Its lanes form groups of a power of two; a
// lane takes 16 bytes of features (one number where a width or an address does not allow it) and a group an edge, so
// that narrow rows keep the whole warp busy: 64 float32 features are 16 lanes, and two edges of a row are summed at
// once. Groups are added by a fixed tree: the order of a sum depends on the width and the row alone, so results have
// the same bits on every run and every GPU.
// The places of 32 edges in the table are worked out by the 32 lanes, at once, and wait in shared memory: features then
// cost no chain of loads (edge, distance, interval), edges beyond the cutoff are left out there, and what follows holds
// no shuffle that groups of different length could disagree about.
// Memory traffic per edge: 4 C numbers of the table (1 MB for 64 features and 1024 knots: in the L2 cache, in part in
// L1) and those that the op gathers.
// Alternatives, not measured: a slice of 8 features of the whole table in shared memory (128 KB), which saves most
// reads of L2 but reads edges and their ends once for each slice; the shuffles above instead of shared memory.
#pragma once

#include <algorithm>

#include "core/cuda.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::cuda {

constexpr int kWarp = 32, kWarps = 8;  // lanes of a warp, warps of a block
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr std::int64_t kMaxBlocks = 1 << 20;  // tasks are strided: any number of them fits

// Some numbers of a row, which travel as one word.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
    T at[V];
};

template <class T>
constexpr int kPack = 16 / sizeof(T);

#define MDGNN_PACK_OPERATOR(OP)                                                       \
    template <class T, int V>                                                         \
    MDGNN_HD MDGNN_INLINE Pack<T, V> operator OP(Pack<T, V> a, const Pack<T, V>& b) { \
        for (int v = 0; v < V; ++v) a.at[v] = a.at[v] OP b.at[v];                     \
        return a;                                                                     \
    }                                                                                 \
    template <class T, int V>                                                         \
    MDGNN_HD MDGNN_INLINE Pack<T, V> operator OP(Pack<T, V> a, T b) {                 \
        for (int v = 0; v < V; ++v) a.at[v] = a.at[v] OP b;                           \
        return a;                                                                     \
    }
MDGNN_PACK_OPERATOR(+)
MDGNN_PACK_OPERATOR(*)
#undef MDGNN_PACK_OPERATOR

template <class T, int V>
MDGNN_HD MDGNN_INLINE Pack<T, V>& operator+=(Pack<T, V>& a, const Pack<T, V>& b) {
    return a = a + b;
}

template <int V, class T>
MDGNN_HD MDGNN_INLINE Pack<T, V> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <class T, int V>
MDGNN_HD MDGNN_INLINE void store_pack(const Pack<T, V>& from, T* to) {
    *reinterpret_cast<Pack<T, V>*>(to) = from;
}

// Whether rows of so many numbers can be moved in packs; absent arrays do not mind.
template <class T, class... P>
bool fits_packs(std::int64_t width, const P*... arrays) {
    const auto fits = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
    return width % kPack<T> == 0 && (fits(arrays) && ...);
}

// The lanes of a group, and the pieces that a row's features are cut into when a group does not cover them.
struct Layout {
    int group = 1;
    std::int64_t tiles = 1;
};

template <int V>
Layout layout_for(std::int64_t width) {
    Layout layout;
    while (layout.group < kWarp && layout.group * V < width) layout.group *= 2;
    layout.tiles = std::max<std::int64_t>((width + layout.group * V - 1) / (layout.group * V), 1);
    return layout;
}

// Starts a warp for each of n tasks, which it finds by a loop `for (Task task(n); task; ++task)`.
template <class... P, class... A>
void launch_warps(void (*kernel)(P...), const char* what, std::int64_t n, const Context& context,
                  const A&... arguments) {
    if (n == 0) return;
    launch(kernel, what, std::min((n + kWarps - 1) / kWarps, kMaxBlocks), kWarp * kWarps, context, arguments...);
}

// The same number in all lanes of a warp.
class Task {
  public:
    __device__ explicit Task(std::int64_t n)
        : at(static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp), n_(n) {}
    __device__ explicit operator bool() const { return at < n_; }
    __device__ void operator++() { at += static_cast<std::int64_t>(gridDim.x) * kWarps; }
    std::int64_t at;

  private:
    std::int64_t n_;
};

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarp; }

// An edge within the cutoff, for all lanes to read.
template <class T>
struct alignas(16) StagedEdge {
    std::int64_t place;  // in the table, of its interval's coefficients: four times `width` numbers
    std::int64_t other;  // the atom at the other end
    std::int64_t edge;
    T t;
};

// The entry's place in the table, its edge and what is at its other end.
template <class T>
__device__ MDGNN_INLINE StagedEdge<T> staged_edge(const Rows& rows, const RadialTable<T>& table, T distance,
                                                  std::int64_t entry, std::int64_t edge) {
    StagedEdge<T> e;
    e.place = 4 * table.width * interval_of(table, distance, e.t);
    e.other = rows.index[entry], e.edge = edge;
    return e;
}

// Stages those of 32 entries of `rows` from `begin` on that are below `end` and shorter than the cutoff, in order, and
// returns their number; calls beyond(edge) for the others. All lanes of a warp call it together; what it overwrites
// they have read.
template <class T, class Beyond>
__device__ MDGNN_INLINE int stage_edges(const Rows& rows, const RadialTable<T>& table, const T* r, std::int64_t begin,
                                        std::int64_t end, StagedEdge<T>* staged, Beyond&& beyond) {
    const int lane = lane_of_warp();
    const std::int64_t k = begin + lane;
    std::int64_t edge = k;
    T distance = 0;
    bool within = false;
    if (k < end) {
        if (rows.edge) edge = rows.edge[k];
        distance = r[edge];
        within = distance < table.cutoff;
        if (!within) beyond(edge);
    }
    const unsigned lanes_within = __ballot_sync(kAllLanes, within);
    __syncwarp();
    if (within) staged[__popc(lanes_within & ((1u << lane) - 1))] = staged_edge(rows, table, distance, k, edge);
    __syncwarp();
    return __popc(lanes_within);
}

// Calls body(k) for k = first, first + step, .. below n, kAtOnce of them with nothing in between that would keep one's
// loads from being under way together with another's.
template <int kAtOnce, class Int, class Body>
__device__ MDGNN_INLINE void each_edge(Int first, Int n, Int step, Body&& body) {
    Int k = first;
    for (; k + (kAtOnce - 1) * step < n; k += kAtOnce * step)
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) body(k + u * step);
#pragma unroll 1
    for (; k < n; k += step) body(k);
}

// The sum of coefficients times weights, from the coefficient kFrom on: weights below it are zero, and what they would
// multiply is not read.
template <int kFrom, int V, class T>
__device__ MDGNN_INLINE Pack<T, V> interpolate(const FilterWeights<T>& w, const Pack<T, V>* at) {
    Pack<T, V> filter = at[3] * w.at[3];
#pragma unroll
    for (int q = 2; q >= kFrom; --q) filter += at[q] * w.at[q];
    return filter;
}

template <int kFrom, int V, class T>
__device__ MDGNN_INLINE void load_coefficients(const T* from, std::int64_t width, Pack<T, V>* at) {
#pragma unroll
    for (int q = kFrom; q < 4; ++q) at[q] = load_pack<V>(from + q * width);
}

// Adds what the groups of a warp have; every lane gets the sum.
template <class T, int V>
__device__ MDGNN_INLINE void sum_groups(Pack<T, V>& sum, int group) {
    for (int apart = kWarp / 2; apart >= group; apart /= 2)
#pragma unroll
        for (int v = 0; v < V; ++v) sum.at[v] += __shfl_xor_sync(kAllLanes, sum.at[v], apart);
}

// Adds what the lanes of each group have; every lane gets the sum.
template <class T>
__device__ MDGNN_INLINE void sum_lanes(T& sum, int group) {
    for (int apart = group / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(kAllLanes, sum, apart);
}

template <class T, int V>
__device__ MDGNN_INLINE T sum_of_pack(const Pack<T, V>& p) {
    T sum = p.at[0];
#pragma unroll
    for (int v = 1; v < V; ++v) sum += p.at[v];
    return sum;
}

}  // namespace mdgnn::cuda
