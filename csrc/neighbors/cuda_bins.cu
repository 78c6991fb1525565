// Bins on the GPU: a hash table with an entry for each bin that holds atoms, so that memory grows with atoms alone.
//
// Parallelisation: a thread per atom (or slot, or structure), in eight phases. A phase is a kernel; few atoms are done
// by one block in one kernel, where a launch would cost more than its phase. Which atom stands for a bin, where the bin
// lies and the order of its atoms depend on atomics; the edges that come of it do not, because rows are sorted.
// Memory traffic: some 250 bytes an atom, coalesced but for the table and the last scatter.
// Not measured yet.
#include "neighbors/cuda_bins.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kThreads = 256, kBlockThreads = 512;
constexpr std::int64_t kOneBlock = 2048;  // atoms and structures that one block does
constexpr std::int64_t kMaxBlocks = std::int64_t{1} << 20;
constexpr std::int64_t kMostTiles = 4096;
constexpr std::int64_t kManyRows = 16384, kShare = 4;  // so many rows keep the GPU busy when each warp takes a share

// This thread's number, and how many there are.
struct Threads {
    std::int64_t number, count;
};

// Integers in the order of the numbers, and back.
__device__ long long ordered(double x) {
    const long long bits = __double_as_longlong(x);
    return bits < 0 ? bits ^ 0x7fffffffffffffffLL : bits;
}
__device__ double number_of(long long bits) {
    return __longlong_as_double(bits < 0 ? bits ^ 0x7fffffffffffffffLL : bits);
}

template <class T>
__device__ void report(const Workspace<T>& w, NeighborCode code, std::int64_t where) {
    atomicMin(&w.progress->error, static_cast<Word>(code) << 32 | static_cast<Word>(where));
}

struct Clear {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        for (std::int64_t k = t.number; k < w.n_slots; k += t.count) w.table[k] = -1;
        for (std::int64_t k = t.number; k < w.n_tiles; k += t.count) w.tile_sums[k] = 0;
        if (t.number == 0) *w.progress = {kNoError, 0};
    }
};

// The axes of the grids.
struct Axes {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        for (std::int64_t s = t.number; s < w.structures.n; s += t.count) {
            Grid grid;
            const Cell<T> cell = w.structures.cell(s);
            for (int k = 0; k < 3; ++k) {
                grid.pbc[k] = w.structures.pbc[3 * s + k];
                for (int c = 0; c < 3; ++c) grid.cell[k][c] = static_cast<double>(cell.rows[k][c]);
                if (grid.pbc[k] && std::isinf(w.options.cutoff)) report(w, NeighborCode::infinite_cutoff, s);
            }
            const NeighborCode code = set_axes(grid);
            if (code != NeighborCode::fine) report(w, code, s);
            w.grids[s] = grid;
            Bounds none;
            for (int k = 0; k < 3; ++k) none.low[k] = ordered(kInfinity), none.high[k] = ordered(-kInfinity);
            none.farthest = 0;
            w.bounds[s] = none;
        }
    }
};

// The structure of an atom: the last that does not begin after it.
template <class T>
__device__ std::int32_t structure_of(const Workspace<T>& w, std::int64_t i) {
    std::int64_t low = 0, high = w.structures.n;
    while (high - low > 1) {
        const std::int64_t middle = (low + high) / 2;
        (w.structures.first[middle] <= i ? low : high) = middle;
    }
    return static_cast<std::int32_t>(low);
}

template <class T>
__device__ Vec position_of(const Workspace<T>& w, std::int64_t i) {
    const T* p = w.structures.positions.row(i);
    return {{static_cast<double>(p[0]), static_cast<double>(p[1]), static_cast<double>(p[2])}};
}

__device__ long long least_of_warp(long long value) {
    for (int step = kWarp / 2; step > 0; step /= 2) {
        const long long other = __shfl_xor_sync(kAll, value, step);
        value = other < value ? other : value;
    }
    return value;
}
__device__ long long most_of_warp(long long value) { return ~least_of_warp(~value); }

// Most warps find that another has got further, and spare the atomic. A number that is not the newest does no harm.
__device__ void lower(long long* least, long long value) {
    if (value < *static_cast<volatile long long*>(least)) atomicMin(least, value);
}
__device__ void raise(long long* most, long long value) {
    if (value > *static_cast<volatile long long*>(most)) atomicMax(most, value);
}

// The extents of the structures. The lanes of a warp combine theirs before they touch memory: for each structure that
// has atoms among them, one after the other.
struct Measure {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        const int lane = lane_number();
        for (std::int64_t base = t.number - lane; base < w.structures.positions.rows; base += t.count) {
            const std::int64_t i = base + lane;
            const bool inside = i < w.structures.positions.rows;
            std::int32_t s = -1;
            Vec r, x;
            if (inside) {
                s = structure_of(w, i);
                w.bins[i].structure = s;
                r = position_of(w, i);
                x = coordinates_of(w.grids[s], r);
                if (!std::isfinite(r[0]) || !std::isfinite(r[1]) || !std::isfinite(r[2]))
                    report(w, NeighborCode::position, i);
            }
            for (unsigned pending = __ballot_sync(kAll, inside); pending != 0;) {
                const int leader = __ffs(static_cast<int>(pending)) - 1;
                const std::int32_t common = __shfl_sync(kAll, s, leader);
                const bool mine = s == common;
                pending &= ~__ballot_sync(kAll, mine);
                for (int k = 0; k < 3; ++k) {
                    if (w.grids[common].pbc[k]) continue;
                    const long long low = least_of_warp(ordered(mine ? x[k] : kInfinity));
                    const long long high = most_of_warp(ordered(mine ? x[k] : -kInfinity));
                    if (lane != leader) continue;
                    lower(&w.bounds[common].low[k], low);
                    raise(&w.bounds[common].high[k], high);
                }
                const long long farthest = most_of_warp(ordered(mine ? distance_bound(r) : 0));
                if (lane == leader) raise(&w.bounds[common].farthest, farthest);
            }
        }
    }
};

struct Grids {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        if (failed_before(w, NeighborCode::overflow)) return;
        for (std::int64_t s = t.number; s < w.structures.n; s += t.count) {
            Extent atoms;
            for (int k = 0; k < 3; ++k) {
                atoms.low[k] = number_of(w.bounds[s].low[k]);
                atoms.high[k] = number_of(w.bounds[s].high[k]);
            }
            atoms.farthest = number_of(w.bounds[s].farthest);
            const NeighborCode code = set_bins(w.grids[s], atoms, w.structures.first[s + 1] - w.structures.first[s],
                                               static_cast<double>(w.options.cutoff), kEpsilon<T>);
            if (code != NeighborCode::fine) report(w, code, s);
        }
    }
};

struct Place {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        if (failed_before(w, NeighborCode::far_atom)) return;
        for (std::int64_t i = t.number; i < w.structures.positions.rows; i += t.count) {
            Bin& bin = w.bins[i];
            const Grid& grid = w.grids[bin.structure];
            bin.first = bin.count = 0;
            Atom<T> atom = {};
            for (int c = 0; c < 3; ++c) atom.r[c] = w.structures.positions.row(i)[c];
            if (!place_of(grid, coordinates_of(grid, position_of(w, i)), bin.place, atom.wrap))
                report(w, NeighborCode::far_atom, i);
            w.by_number[i] = atom;
        }
    }
};

// The first atom to reach a free slot stands for its bin. Places were written by the phase before, so that those of
// other atoms can be read.
struct Insert {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        if (failed(w)) return;
        const std::uint64_t mask = static_cast<std::uint64_t>(w.n_slots) - 1;
        for (std::int64_t i = t.number; i < w.structures.positions.rows; i += t.count) {
            const std::int32_t structure = w.bins[i].structure, me = static_cast<std::int32_t>(i);
            const std::int64_t place[3] = {w.bins[i].place[0], w.bins[i].place[1], w.bins[i].place[2]};
            std::uint64_t slot = hash_of(structure, place) & mask;
            std::int32_t other = atomicCAS(&w.table[slot], -1, me);
            while (other >= 0 && !same_bin(w.bins[other], structure, place)) {
                slot = (slot + 1) & mask;
                other = atomicCAS(&w.table[slot], -1, me);
            }
            const std::int32_t b = other < 0 ? me : other;
            w.bin_of[i] = static_cast<std::uint32_t>(b);
            w.rank[i] = atomicAdd(&w.bins[b].count, 1u);
        }
    }
};

// Where the atoms of a bin begin. Bins of the lanes of a warp lie together, as their atoms often do in space.
struct Ranges {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        if (failed(w)) return;
        const int lane = lane_number();
        for (std::int64_t base = t.number - lane; base < w.structures.positions.rows; base += t.count) {
            const std::int64_t i = base + lane;
            const Word count = i < w.structures.positions.rows ? w.bins[i].count : 0;
            const Word end = sum_up_to_lane(count);
            Word first = 0;
            if (lane == kWarp - 1) first = atomicAdd(&w.progress->placed, end);
            first = __shfl_sync(kAll, first, kWarp - 1) + end - count;
            if (count > 0) w.bins[i].first = static_cast<std::uint32_t>(first);
        }
    }
};

struct Scatter {
    template <class T>
    static __device__ void run(const Workspace<T>& w, Threads t) {
        if (failed(w)) return;
        for (std::int64_t i = t.number; i < w.structures.positions.rows; i += t.count) {
            const std::uint32_t to = w.bins[w.bin_of[i]].first + w.rank[i];
            w.atoms.number[to] = static_cast<std::uint32_t>(i);
            const Atom<T> atom = w.by_number[i];
            for (int c = 0; c < 3; ++c) {
                w.atoms.r[c][to] = atom.r[c];
                w.atoms.wrap[c][to] = atom.wrap[c];
            }
        }
    }
};

// Phases one after the other; several need a grid of one block.
template <class T, class... Phases>
__global__ void __launch_bounds__(kBlockThreads) run_phases(Workspace<T> w) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.x;
    const Threads t{first + threadIdx.x, static_cast<std::int64_t>(gridDim.x) * blockDim.x};
    ((Phases::run(w, t), __syncthreads()), ...);
}

template <class Phase, class T>
void run_phase(const Workspace<T>& w, std::int64_t n, const Context& context) {
    const std::int64_t blocks = n / kThreads + 1;
    launch(run_phases<T, Phase>, "neighbors: bins", blocks < kMaxBlocks ? blocks : kMaxBlocks, kThreads, context, w);
}

// Arrays one after the other, each on a multiple of 256 bytes.
class Carver {
  public:
    explicit Carver(void* memory) : base_(reinterpret_cast<std::uintptr_t>(memory)) {}

    template <class V>
    V* take(std::int64_t n) {
        const std::uintptr_t at = round_up(base_ + used_);
        used_ = at - base_ + static_cast<std::uintptr_t>(n) * sizeof(V);
        return reinterpret_cast<V*>(at);
    }

    // With room for a base that is not aligned.
    std::int64_t bytes() const { return static_cast<std::int64_t>(used_ + kAlignment); }

  private:
    static constexpr std::uintptr_t kAlignment = 256;
    static std::uintptr_t round_up(std::uintptr_t x) { return (x + kAlignment - 1) / kAlignment * kAlignment; }

    std::uintptr_t base_, used_ = 0;
};

}  // namespace

template <class T>
Workspace<T> lay_out(void* memory, std::int64_t n_atoms, std::int64_t n_structures) {
    Workspace<T> w;
    w.n_slots = 16;
    while (w.n_slots < 2 * n_atoms) w.n_slots *= 2;
    const std::int64_t blocks_per_tile = n_atoms / (kScanThreads * kMostTiles) + 1;
    w.tile_rows = kScanThreads * blocks_per_tile;
    w.n_tiles = n_atoms / w.tile_rows + 1;
    w.rows_per_warp = n_atoms < kManyRows ? 1 : kShare;
    Carver carver(memory);
    w.progress = carver.take<Progress>(1);
    w.grids = carver.take<Grid>(n_structures);
    w.bounds = carver.take<Bounds>(n_structures);
    w.tile_sums = carver.take<Word>(w.n_tiles);
    w.bins = carver.take<Bin>(n_atoms);
    w.by_number = carver.take<Atom<T>>(n_atoms);
    w.bin_of = carver.take<std::uint32_t>(n_atoms);
    w.rank = carver.take<std::uint32_t>(n_atoms);
    w.atoms.number = carver.take<std::uint32_t>(n_atoms);
    for (int c = 0; c < 3; ++c) w.atoms.r[c] = carver.take<T>(n_atoms);
    for (int c = 0; c < 3; ++c) w.atoms.wrap[c] = carver.take<std::int32_t>(n_atoms);
    w.table = carver.take<std::int32_t>(w.n_slots);
    w.bytes = carver.bytes();
    return w;
}

template <class T>
void build_bins(const Workspace<T>& w, const Context& context) {
    const std::int64_t n = w.structures.positions.rows;
    if (n <= kOneBlock && w.structures.n <= kOneBlock) {
        launch(run_phases<T, Clear, Axes, Measure, Grids, Place, Insert, Ranges, Scatter>, "neighbors: bins", 1,
               kBlockThreads, context, w);
        return;
    }
    run_phase<Clear>(w, w.n_slots, context);
    run_phase<Axes>(w, w.structures.n, context);
    run_phase<Measure>(w, n, context);
    run_phase<Grids>(w, w.structures.n, context);
    run_phase<Place>(w, n, context);
    run_phase<Insert>(w, n, context);
    run_phase<Ranges>(w, n, context);
    run_phase<Scatter>(w, n, context);
}

#define MDGNN_INSTANTIATE(T)                                             \
    template Workspace<T> lay_out<T>(void*, std::int64_t, std::int64_t); \
    template void build_bins<T>(const Workspace<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
