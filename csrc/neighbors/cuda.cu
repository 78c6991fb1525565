// Rows of the neighbour list on the GPU: the same edges, order and bits as on the CPU. Bins propose candidates, and the
// exact edge vector decides (no contraction in this file, see CMakeLists.txt).
//
// Parallelisation: a warp per row, or for every few rows of a large system. Rows that run together are those of atoms
// in one bin, so that their candidates are in the cache. The lanes look up the bins around the atom, 32 at a time (if
// that are all, once for the rows of a bin), and share their atoms evenly. One call counts, the other finds the edges
// again as keys (sender, number of the visited bin), which are in the order of (j, S); it sorts them in shared memory
// and writes. A row that does not fit is written in several rounds, each of which finds its smallest keys that are not
// yet written: any length is right, but its cost grows with the square.
// Memory traffic: candidates (27 bins an atom in a liquid, 6.4 for an edge if a bin is as wide as the cutoff, 8.4 in
// the box of benchmarks/gpu_traffic.py), of 28 bytes (40 in float64), from the caches, in both calls. An edge gathers
// its sender, 24 bytes (36), and is written once, 44 bytes: numbers of three columns by lanes side by side. Sectors
// over that floor, counted without a GPU: 2.0 for each call. What is over it is that the atoms of a bin, about 20, do
// not begin where sectors do (1.5 times the candidates), and that each row looks up its bins, some 100 bytes an edge.
// Alternatives that lost by their bytes: lanes that write the three columns of their edge, and gather position and cell
// from an array each: 2.6 times the floor to fill.
#include "neighbors/cuda_bins.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kKeys = 512;  // of a row that is sorted in one go; a power of two

// What a warp knows of its row.
template <class T>
struct Row {
    std::int64_t i = 0, bin = 0;
    std::int32_t structure = 0;
    std::int64_t place[3] = {};
    std::int32_t wrap[3] = {};
    T r[3] = {};
    Cell<T> cell;
    const Grid* grid = nullptr;
};

template <class T>
__device__ Row<T> row_of(const Workspace<T>& w, std::int64_t place_in_bins) {
    Row<T> row;
    row.i = w.atoms.number[place_in_bins];
    row.bin = w.bin_of[row.i];
    row.structure = w.bins[row.bin].structure;
    for (int k = 0; k < 3; ++k) {
        row.place[k] = w.bins[row.bin].place[k];
        row.r[k] = w.atoms.r[k][place_in_bins];
        row.wrap[k] = w.atoms.wrap[k][place_in_bins];
    }
    row.cell = w.structures.cell(row.structure);
    row.grid = w.grids + row.structure;
    return row;
}

// The bins around a place are visited in the order of their numbers: the images of an atom in that of their shifts.
__device__ void visited_place(const Grid& grid, const std::int64_t* place, std::uint32_t visit, std::int64_t* target,
                              std::int32_t* image) {
    std::int64_t at[3];
    for (int k = 2; k >= 0; --k) {
        const auto range = static_cast<std::uint32_t>(grid.range[k]);
        at[k] = static_cast<std::int64_t>(visit % (2 * range + 1)) - range;
        visit /= 2 * range + 1;
    }
    neighbor_place(grid, place, at, target, image);
}

// Whether (i, j, S) belongs into the list.
template <class T>
__device__ bool is_edge(const Workspace<T>& w, const Row<T>& row, std::int64_t j, const T* rj,
                        const std::int32_t* shift) {
    T d[3];
    edge_vector(row.r, rj, shift, row.cell, d);
    if (!(squared(d[0], d[1], d[2]) <= w.limit)) return false;
    if (j != row.i) return !w.options.half || j > row.i;
    const std::int32_t leading = shift[0] != 0 ? shift[0] : shift[1] != 0 ? shift[1] : shift[2];
    return leading == 0 ? w.options.self_interaction : !w.options.half || leading > 0;
}

// What the lanes know of the bins around an atom: each of one.
struct Visits {
    std::int64_t bin = -1;            // of the atom, if these are all the bins around
    std::int32_t image[3] = {};       // of the cell that the bin lies in
    std::int64_t end = 0, total = 0;  // candidates of the lanes up to this one, and of all
    std::uint32_t origin = 0;         // candidate c has the place c + origin; sums may wrap around, places do not
};

// Each lane looks for the bin of one visit.
template <class T>
__device__ void look_up(const Workspace<T>& w, const Row<T>& row, std::uint32_t visit, std::uint32_t n_visits,
                        Visits& visits) {
    std::int32_t b = -1;
    if (visit < n_visits) {
        std::int64_t place[3];
        visited_place(*row.grid, row.place, visit, place, visits.image);
        b = find_bin(w, row.structure, place);
    }
    const std::int64_t count = b < 0 ? 0 : w.bins[b].count;
    visits.end = sum_up_to_lane(count);
    visits.total = __shfl_sync(kAll, visits.end, kWarp - 1);
    visits.origin = (b < 0 ? 0 : w.bins[b].first) - static_cast<std::uint32_t>(visits.end - count);
    visits.bin = n_visits <= kWarp ? row.bin : -1;
}

// Calls f(is an edge, key) for every candidate of a row and for idle lanes, by all lanes together. Rows of one bin
// share the visits.
template <class T, class F>
__device__ void each_candidate(const Workspace<T>& w, const Row<T>& row, Visits& visits, F&& f) {
    const int lane = lane_number();
    const auto n_visits = static_cast<std::uint32_t>(count_visits(*row.grid));
    for (std::uint32_t visit = 0; visit < n_visits; visit += kWarp) {
        if (visits.bin != row.bin) look_up(w, row, visit + lane, n_visits, visits);
        for (std::int64_t c = 0; c < visits.total; c += kWarp) {
            // Candidate c + lane is in the bin of the first lane that ends behind it.
            const std::int64_t left = visits.end - c;
            const int ends = left < 0 ? 0 : left > kWarp ? kWarp : static_cast<int>(left);
            int from = 0;
            for (int step = kWarp / 2; step > 0; step /= 2)
                if (__shfl_sync(kAll, ends, from + step - 1) <= lane) from += step;
            const std::uint32_t at = __shfl_sync(kAll, visits.origin, from) + static_cast<std::uint32_t>(c) + lane;
            std::int32_t image[3];
            for (int k = 0; k < 3; ++k) image[k] = __shfl_sync(kAll, visits.image[k], from);
            bool edge = false;
            Word key = 0;
            if (c + lane < visits.total) {
                const std::int64_t j = w.atoms.number[at];
                T rj[3];
                std::int32_t shift[3];
                for (int k = 0; k < 3; ++k) {
                    rj[k] = w.atoms.r[k][at];
                    shift[k] = image[k] - w.atoms.wrap[k][at] + row.wrap[k];
                }
                edge = is_edge(w, row, j, rj, shift);
                key = static_cast<Word>(j) << 32 | (visit + from);
            }
            f(edge, key);
        }
    }
}

// Calls f(row) for the rows of this warp.
template <class T, class F>
__device__ void each_row(const Workspace<T>& w, F&& f) {
    const std::int64_t n = w.structures.positions.rows, share = w.rows_per_warp;
    for (std::int64_t first = warp_number() * share; first < n; first += warp_stride() * share)
        for (std::int64_t p = first; p < first + share && p < n; ++p) f(row_of(w, p));
}

template <class T>
__global__ void __launch_bounds__(kRowThreads) count_rows(Workspace<T> w, std::int64_t* row_ptr) {
    if (failed(w)) return;
    Visits visits;
    each_row(w, [&](const Row<T>& row) {
        std::int64_t n = 0;
        each_candidate(w, row, visits, [&](bool edge, Word) { n += edge; });
        n = sum_up_to_lane(n);
        if (lane_number() != kWarp - 1) return;
        row_ptr[row.i + 1] = n;
        atomicAdd(&w.tile_sums[row.i / w.tile_rows], static_cast<Word>(n));
    });
}

// Ascending, by the lanes of a warp (a bitonic network). There is room up to the next power of two.
__device__ void sort_keys(Word* keys, int n) {
    const int lane = lane_number();
    int size = kWarp;
    while (size < n) size *= 2;
    for (int k = n + lane; k < size; k += kWarp) keys[k] = ~Word{0};
    __syncwarp();
    for (int sorted = 2; sorted <= size; sorted *= 2)
        for (int step = sorted / 2; step > 0; step /= 2) {
            for (int k = lane; k < size / 2; k += kWarp) {
                const int a = 2 * k - (k & (step - 1)), b = a + step;
                const Word low = keys[a], high = keys[b];
                if ((low > high) != ((a & sorted) == 0)) continue;
                keys[a] = high, keys[b] = low;
            }
            __syncwarp();
        }
}

// Finds the smallest keys from `least` on, sorted: all of them, or at least kKeys / 2. Returns how many there are.
template <class T>
__device__ int smallest_keys(const Workspace<T>& w, const Row<T>& row, Visits& visits, Word least, Word* keys) {
    const unsigned before_me = (1u << lane_number()) - 1;
    int n = 0;
    Word below = ~Word{0};
    each_candidate(w, row, visits, [&](bool edge, Word key) {
        bool taken = edge && key >= least && key < below;
        unsigned takers = __ballot_sync(kAll, taken);
        if (n + __popc(takers) > kKeys) {  // what is above the smaller half must wait for another round
            sort_keys(keys, n);
            n = kKeys / 2;
            below = keys[n - 1];
            taken = taken && key < below;
            takers = __ballot_sync(kAll, taken);
        }
        if (taken) keys[n + __popc(takers & before_me)] = key;
        n += __popc(takers);
    });
    sort_keys(keys, n);
    return n;
}

template <class V>
__device__ void write_to(V* array, std::int64_t k, std::int64_t value) {
    if (array) array[k] = static_cast<V>(value);
}

// Writes three numbers of each of the first `count` lanes to array[at ..], lanes side by side.
template <class V, class U>
__device__ void write_threes(V* array, std::int64_t at, int count, const U* mine) {
    if (!array) return;
    for (int m = lane_number(); m < 3 * kWarp; m += kWarp) {
        U number = 0;
        for (int c = 0; c < 3; ++c) {
            const U of_owner = __shfl_sync(kAll, mine[c], m / 3);
            if (m % 3 == c) number = of_owner;
        }
        if (m < 3 * count) array[at + m] = static_cast<V>(number);
    }
}

// Writes `count` edges from place k on, one a lane.
template <class T>
__device__ void write_edges(const Workspace<T>& w, const Row<T>& row, const Word* keys, int count, std::int64_t k,
                            const EdgeArrays<T>& out) {
    const int lane = lane_number();
    std::int32_t shift[3] = {};
    T d[3] = {};
    if (lane < count) {
        const auto j = static_cast<std::int64_t>(keys[lane] >> 32);
        write_to(out.receivers, k + lane, row.i);
        write_to(out.receivers32, k + lane, row.i);
        write_to(out.senders, k + lane, j);
        write_to(out.senders32, k + lane, j);
        std::int64_t place[3];
        std::int32_t image[3];
        visited_place(*row.grid, row.place, static_cast<std::uint32_t>(keys[lane]), place, image);
        const Atom<T> sender = w.by_number[j];
        for (int c = 0; c < 3; ++c) shift[c] = image[c] - sender.wrap[c] + row.wrap[c];
        edge_vector(row.r, sender.r, shift, row.cell, d);
        if (out.distances) out.distances[k + lane] = std::sqrt(squared(d[0], d[1], d[2]));
    }
    write_threes(out.shifts, 3 * k, count, shift);
    write_threes(out.shifts32, 3 * k, count, shift);
    write_threes(out.vectors, 3 * k, count, d);
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    fill_rows(Workspace<T> w, const std::int64_t* row_ptr, EdgeArrays<T> out) {
    __shared__ Word shared[kRowWarps][kKeys];
    Word* const keys = shared[threadIdx.x / kWarp];
    if (failed(w)) return;
    Visits visits;
    each_row(w, [&](const Row<T>& row) {
        const std::int64_t end = row_ptr[row.i + 1];
        Word least = 0;
        for (std::int64_t to = row_ptr[row.i]; to < end;) {
            const int n = smallest_keys(w, row, visits, least, keys);
            if (n == 0) break;  // positions changed after the count
            const std::int64_t n_written = to + n < end ? n : end - to;
            for (std::int64_t m = 0; m < n_written; m += kWarp) {
                const int count = n_written - m < kWarp ? static_cast<int>(n_written - m) : kWarp;
                write_edges(w, row, keys + m, count, to + m, out);
            }
            least = keys[n - 1] + 1;
            to += n;
            __syncwarp();  // the keys have been read
        }
    });
}

template <class T>
Workspace<T> workspace_for(const Structures<T>& structures, const NeighborOptions<T>& options, void* memory) {
    Workspace<T> w = lay_out<T>(memory, structures.positions.rows, structures.n);
    w.structures = structures;
    w.options = options;
    w.limit = largest_square_below(options.cutoff);
    return w;
}

}  // namespace

template <class T>
std::int64_t neighbor_workspace(std::int64_t n_atoms, std::int64_t n_structures) {
    return lay_out<T>(nullptr, n_atoms, n_structures).bytes;
}

template <class T>
void neighbors_count(const Structures<T>& structures, const NeighborOptions<T>& options, void* workspace,
                     std::int64_t capacity, std::int64_t* row_ptr, NeighborStatus* status, const Context& context) {
    constexpr std::int64_t kMost = std::int64_t{1} << 31;
    const std::int64_t n = structures.positions.rows;
    if (!(options.cutoff > 0))
        throw std::invalid_argument("expected a positive cutoff, got " + in_words(options.cutoff));
    if (n >= kMost || structures.n >= kMost)
        throw std::invalid_argument("expected less than 2^31 atoms and structures");
    if (n > 0 && structures.n < 1) throw std::invalid_argument("expected a structure for the atoms");
    if (capacity < 0) throw std::invalid_argument("expected a capacity of at least 0 edges");
    const DeviceGuard guard(context.device);
    const Workspace<T> w = workspace_for(structures, options, workspace);
    build_bins(w, context);
    if (n > 0)
        launch(count_rows<T>, "neighbors: count", row_blocks((n - 1) / w.rows_per_warp + 1), kRowThreads, context, w,
               row_ptr);
    sum_counts(w, capacity, row_ptr, status, context);
}

template <class T>
void neighbors_fill(const Structures<T>& structures, const NeighborOptions<T>& options, void* workspace,
                    const std::int64_t* row_ptr, const EdgeArrays<T>& out, const Context& context) {
    const bool reverse = out.reverse || out.reverse32;
    if (reverse && (options.half || !(out.senders || out.senders32) || !(out.shifts || out.shifts32)))
        throw std::invalid_argument("expected a full list with senders and shifts for the reverse of its edges");
    const std::int64_t n = structures.positions.rows;
    if (n == 0) return;
    const DeviceGuard guard(context.device);
    const Workspace<T> w = workspace_for(structures, options, workspace);
    launch(fill_rows<T>, "neighbors: fill", row_blocks((n - 1) / w.rows_per_warp + 1), kRowThreads, context, w, row_ptr,
           out);
    if (reverse) find_reverse(n, row_ptr, out, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                     \
    template std::int64_t neighbor_workspace<T>(std::int64_t, std::int64_t);                                     \
    template void neighbors_count<T>(const Structures<T>&, const NeighborOptions<T>&, void*, std::int64_t,       \
                                     std::int64_t*, NeighborStatus*, const Context&);                            \
    template void neighbors_fill<T>(const Structures<T>&, const NeighborOptions<T>&, void*, const std::int64_t*, \
                                    const EdgeArrays<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
