// What the CUDA kernels of the neighbour list share: the arrays of the workspace, the table of bins, and helpers for
// the 32 lanes of a warp.
#pragma once

#include "core/cuda.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cuda {

using Word = unsigned long long;  // the 64-bit type of CUDA's atomics

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;                             // lanes
constexpr int kRowThreads = 128, kRowWarps = kRowThreads / kWarp;  // of a kernel with a warp per row
constexpr int kScanThreads = 1024;                                 // a tile of rows is a multiple

// A record per atom. Place and structure are every atom's own; count and first are those of a bin, kept by the one of
// its atoms that stands for it in the table.
struct Bin {
    std::int64_t place[3];
    std::int32_t structure;
    std::uint32_t first, count;  // of its atoms in BinnedAtoms
};

// What an edge needs of its sender: in float32 one sector of 32 bytes.
template <class T>
struct alignas(16) Atom {
    T r[3];
    std::int32_t wrap[3];  // r = wrapped position + wrap @ cell
};

// The atoms bin by bin. Each component has its array: lanes read candidates that lie side by side.
template <class T>
struct BinnedAtoms {
    std::uint32_t* number;
    T* r[3];
    std::int32_t* wrap[3];
};

// The extent of a structure, as numbers that are in the order of the doubles that they stand for.
struct Bounds {
    long long low[3], high[3], farthest;  // low and high: of axes that are not periodic
};

struct Progress {
    Word error;   // the smallest (code << 32 | where), kNoError if there is none
    Word placed;  // atoms that have got a place in BinnedAtoms
};
constexpr Word kNoError = ~Word{0};

// Everything of a search that a kernel needs; passed to kernels by value.
template <class T>
struct Workspace {
    Structures<T> structures;
    NeighborOptions<T> options;
    T limit = 0;  // of squared distances

    std::int64_t n_slots = 0, n_tiles = 0, tile_rows = 0, rows_per_warp = 1;
    Grid* grids = nullptr;            // by structure
    Bounds* bounds = nullptr;         // by structure
    Bin* bins = nullptr;              // by atom
    Atom<T>* by_number = nullptr;     // by atom
    std::uint32_t* bin_of = nullptr;  // by atom
    std::uint32_t* rank = nullptr;    // by atom: its place in the bin
    BinnedAtoms<T> atoms = {};
    std::int32_t* table = nullptr;  // open addressing, a power of two of slots; -1 is free
    Word* tile_sums = nullptr;      // edges of tile_rows rows
    Progress* progress = nullptr;
    std::int64_t bytes = 0;
};

// The workspace that begins at `memory`; with null, only its size counts.
template <class T>
Workspace<T> lay_out(void* memory, std::int64_t n_atoms, std::int64_t n_structures);

// Puts the atoms into bins: grids, table and bins, and the atoms bin by bin.
template <class T>
void build_bins(const Workspace<T>& w, const Context& context);

// Turns the counts in row_ptr into row pointers, and says what became of the search.
template <class T>
void sum_counts(const Workspace<T>& w, std::int64_t capacity, std::int64_t* row_ptr, NeighborStatus* status,
                const Context& context);

// The place of every edge's partner.
template <class T>
void find_reverse(std::int64_t n_rows, const std::int64_t* row_ptr, const EdgeArrays<T>& list, const Context& context);

// For rows that are strided over warps: any number of them fits.
inline std::int64_t row_blocks(std::int64_t n_warps) {
    constexpr std::int64_t kMost = std::int64_t{1} << 20;
    const std::int64_t blocks = (n_warps + kRowWarps - 1) / kRowWarps;
    return blocks < kMost ? blocks : kMost;
}
__device__ inline std::int64_t warp_number() {
    return static_cast<std::int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
}
__device__ inline std::int64_t warp_stride() { return static_cast<std::int64_t>(gridDim.x) * kRowWarps; }

__device__ inline int lane_number() { return static_cast<int>(threadIdx.x) % kWarp; }

// The sum over the lanes up to this one.
template <class V>
__device__ V sum_up_to_lane(V value) {
    for (int step = 1; step < kWarp; step *= 2) {
        const V before = __shfl_up_sync(kAll, value, step);
        if (lane_number() >= step) value += before;
    }
    return value;
}

// Whether there is an error with a smaller code than this one. Those are settled before a kernel that can find `code`
// begins, so that what it finds does not depend on the order of threads.
template <class T>
__device__ bool failed_before(const Workspace<T>& w, NeighborCode code) {
    return *static_cast<const volatile Word*>(&w.progress->error) < static_cast<Word>(code) << 32;
}

template <class T>
__device__ bool failed(const Workspace<T>& w) {
    return w.progress->error != kNoError;
}

__device__ inline bool same_bin(const Bin& bin, std::int32_t structure, const std::int64_t* place) {
    return bin.structure == structure && bin.place[0] == place[0] && bin.place[1] == place[1] &&
           bin.place[2] == place[2];
}

// The atom that stands for the bin there, or -1 where no atom is.
template <class T>
__device__ std::int32_t find_bin(const Workspace<T>& w, std::int32_t structure, const std::int64_t* place) {
    const std::uint64_t mask = static_cast<std::uint64_t>(w.n_slots) - 1;
    for (std::uint64_t slot = hash_of(structure, place) & mask;; slot = (slot + 1) & mask) {
        const std::int32_t b = w.table[slot];
        if (b < 0 || same_bin(w.bins[b], structure, place)) return b;
    }
}

}  // namespace mdgnn::cuda
