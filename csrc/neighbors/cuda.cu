// Rows of the neighbour list on the GPU: the same edges, order and bits as on the CPU. Bins propose candidates, and the
// exact edge vector decides (no contraction in this file, see CMakeLists.txt).
//
// Parallelisation: a warp per row; rows that run together are those of atoms in one bin, so that their candidates are
// in the cache. The lanes look up the bins around the atom, 32 at a time, and share their atoms evenly. One call
// counts, the other finds the edges again as keys (sender, number of the visited bin), which are in the order of
// (j, S); it sorts them in shared memory and writes. A row that does not fit is written in several rounds, each of
// which finds its smallest keys that are not yet written: any length is right, but its cost grows with the square.
// Memory traffic: candidates (27 bins an atom in a liquid, some six for an edge) from the caches, in both calls; what
// is written is written once. The scan of the counts reads and writes row_ptr once.
// Alternatives that lost: none, not measured yet.
#include "neighbors/cuda_bins.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kKeys = 512;  // of a row that is sorted in one go; a power of two

// What a warp knows of its row.
template <class T>
struct Row {
    std::int64_t i = 0;
    std::int32_t structure = 0;
    std::int64_t place[3] = {};
    Wrap wrap = {};
    T r[3] = {};
    Cell<T> cell;
    const Grid* grid = nullptr;
};

template <class T>
__device__ Row<T> row_of(const Workspace<T>& w, std::int64_t place_in_bins) {
    const Atom<T>& atom = w.atoms[place_in_bins];
    Row<T> row;
    row.i = atom.j;
    row.structure = w.bins[row.i].structure;
    for (int k = 0; k < 3; ++k) row.place[k] = w.bins[row.i].place[k], row.r[k] = atom.r[k];
    row.wrap = atom.wrap;
    row.cell = w.structures.cell(row.structure);
    row.grid = w.grids + row.structure;
    return row;
}

// The bins around a place are visited in the order of their numbers: the images of an atom in that of their shifts.
__device__ void visited_place(const Grid& grid, const std::int64_t* place, std::uint32_t visit, std::int64_t* wanted,
                              std::int32_t* image) {
    std::int64_t at[3];
    for (int k = 2; k >= 0; --k) {
        const auto range = static_cast<std::uint32_t>(grid.range[k]);
        at[k] = static_cast<std::int64_t>(visit % (2 * range + 1)) - range;
        visit /= 2 * range + 1;
    }
    neighbor_place(grid, place, at, wanted, image);
}

__device__ void shift_of(const std::int32_t* image, const Wrap& from, const Wrap& to, std::int32_t* shift) {
    for (int k = 0; k < 3; ++k) shift[k] = image[k] - from.cells[k] + to.cells[k];
}

// Whether (i, j, S) belongs into the list.
template <class T>
__device__ bool is_edge(const Workspace<T>& w, const Row<T>& row, const Atom<T>& other, const std::int32_t* shift) {
    T d[3];
    edge_vector(row.r, other.r, shift, row.cell, d);
    if (!(squared(d[0], d[1], d[2]) <= w.limit)) return false;
    if (other.j != row.i) return !w.options.half || other.j > row.i;
    const std::int32_t leading = shift[0] != 0 ? shift[0] : shift[1] != 0 ? shift[1] : shift[2];
    return leading == 0 ? w.options.self_interaction : !w.options.half || leading > 0;
}

// Calls f(is an edge, key) for every candidate of a row and for idle lanes, by all lanes together.
template <class T, class F>
__device__ void each_candidate(const Workspace<T>& w, const Row<T>& row, F&& f) {
    const int lane = lane_number();
    const auto n_visits = static_cast<std::uint32_t>(count_visits(*row.grid));
    for (std::uint32_t visit = 0; visit < n_visits; visit += kWarp) {
        std::int32_t image[3] = {}, b = -1;
        if (visit + lane < n_visits) {
            std::int64_t place[3];
            visited_place(*row.grid, row.place, visit + lane, place, image);
            b = find_bin(w, row.structure, place);
        }
        const std::int64_t count = b < 0 ? 0 : w.bins[b].count, end = sum_up_to_lane(count);
        const std::int64_t total = __shfl_sync(kAll, end, kWarp - 1);
        // Candidate c of these visits has the place c + origin. Sums may wrap around; places do not.
        const std::uint32_t origin = (b < 0 ? 0 : w.bins[b].first) - static_cast<std::uint32_t>(end - count);
        for (std::int64_t c = 0; c < total; c += kWarp) {
            // Candidate c + lane is in the bin of the first lane that ends behind it.
            const std::int64_t left = end - c;
            const int ends = left < 0 ? 0 : left > kWarp ? kWarp : static_cast<int>(left);
            int from = 0;
            for (int step = kWarp / 2; step > 0; step /= 2)
                if (__shfl_sync(kAll, ends, from + step - 1) <= lane) from += step;
            const std::uint32_t at = __shfl_sync(kAll, origin, from) + static_cast<std::uint32_t>(c) + lane;
            std::int32_t moved[3], shift[3];
            for (int k = 0; k < 3; ++k) moved[k] = __shfl_sync(kAll, image[k], from);
            bool edge = false;
            Word key = 0;
            if (c + lane < total) {
                const Atom<T>& other = w.atoms[at];
                shift_of(moved, other.wrap, row.wrap, shift);
                edge = is_edge(w, row, other, shift);
                key = static_cast<Word>(other.j) << 32 | (visit + from);
            }
            f(edge, key);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(kRowThreads) count_rows(Workspace<T> w, std::int64_t* row_ptr) {
    if (failed(w)) return;
    for (std::int64_t p = first_row(); p < w.structures.positions.rows; p += row_stride()) {
        const Row<T> row = row_of(w, p);
        std::int64_t n = 0;
        each_candidate(w, row, [&](bool edge, Word) { n += edge; });
        n = sum_up_to_lane(n);
        if (lane_number() != kWarp - 1) continue;
        row_ptr[row.i + 1] = n;
        atomicAdd(&w.tile_sums[row.i / w.tile_rows], static_cast<Word>(n));
    }
}

// The sum over the threads of a block up to this one, and over all of them.
__device__ Word sum_up_to_thread(Word value, Word* total) {
    __shared__ Word warps[kScanThreads / kWarp];
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    value = sum_up_to_lane(value);
    __syncthreads();  // the sums of the call before have been read
    if (lane_number() == kWarp - 1) warps[warp] = value;
    __syncthreads();
    *total = 0;
    for (int k = 0; k < kScanThreads / kWarp; ++k) {
        if (k < warp) value += warps[k];
        *total += warps[k];
    }
    return value;
}

// Counts become row pointers: a block per tile of rows, which begins behind the sum of the tiles before.
template <class T>
__global__ void __launch_bounds__(kScanThreads)
    scan_rows(Workspace<T> w, std::int64_t capacity, std::int64_t* row_ptr, NeighborStatus* status) {
    const std::int64_t n = w.structures.positions.rows, begin = blockIdx.x * w.tile_rows;
    const bool refused = failed(w);
    Word before = 0, total = 0;
    for (std::int64_t k = threadIdx.x; k < blockIdx.x; k += kScanThreads) before += w.tile_sums[k];
    sum_up_to_thread(before, &total);
    before = total;
    const std::int64_t limit = refused ? 0 : capacity;
    for (std::int64_t base = begin; base < begin + w.tile_rows && base < n; base += kScanThreads) {
        const std::int64_t i = base + threadIdx.x;
        const Word count = i < n && !refused ? static_cast<Word>(row_ptr[i + 1]) : 0;
        const auto end = static_cast<std::int64_t>(before + sum_up_to_thread(count, &total));
        if (i < n) row_ptr[i + 1] = end < limit ? end : limit;
        before += total;
    }
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) row_ptr[0] = 0;
    if (blockIdx.x + 1 < gridDim.x) return;
    NeighborStatus result;
    if (refused) {
        const Word error = w.progress->error;
        result.code = static_cast<std::int64_t>(error >> 32);
        result.where = static_cast<std::int64_t>(error & 0xffffffffu);
        const auto code = static_cast<NeighborCode>(result.code);
        const bool of_atom = code == NeighborCode::position || code == NeighborCode::far_atom;
        if (!of_atom && w.structures.n == 1) result.where = -1;
    } else {
        result.n_edges = static_cast<std::int64_t>(before);
    }
    *status = result;
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
__device__ int smallest_keys(const Workspace<T>& w, const Row<T>& row, Word least, Word* keys) {
    const unsigned before_me = (1u << lane_number()) - 1;
    int n = 0;
    Word below = ~Word{0};
    each_candidate(w, row, [&](bool edge, Word key) {
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

template <class T>
__device__ void write_edge(const Workspace<T>& w, const Row<T>& row, Word key, std::int64_t k,
                           const EdgeArrays<T>& out) {
    const auto j = static_cast<std::int64_t>(key >> 32);
    write_to(out.receivers, k, row.i);
    write_to(out.receivers32, k, row.i);
    write_to(out.senders, k, j);
    write_to(out.senders32, k, j);
    std::int64_t place[3];
    std::int32_t image[3], shift[3];
    visited_place(*row.grid, row.place, static_cast<std::uint32_t>(key), place, image);
    shift_of(image, w.wraps[j], row.wrap, shift);
    T d[3];
    edge_vector(row.r, w.structures.positions.row(j), shift, row.cell, d);
    for (int c = 0; c < 3; ++c) {
        write_to(out.shifts, 3 * k + c, shift[c]);
        write_to(out.shifts32, 3 * k + c, shift[c]);
        if (out.vectors) out.vectors[3 * k + c] = d[c];
    }
    if (out.distances) out.distances[k] = std::sqrt(squared(d[0], d[1], d[2]));
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    fill_rows(Workspace<T> w, const std::int64_t* row_ptr, EdgeArrays<T> out) {
    __shared__ Word shared[kRowWarps][kKeys];
    Word* const keys = shared[threadIdx.x / kWarp];
    if (failed(w)) return;
    for (std::int64_t p = first_row(); p < w.structures.positions.rows; p += row_stride()) {
        const Row<T> row = row_of(w, p);
        const std::int64_t end = row_ptr[row.i + 1];
        Word least = 0;
        for (std::int64_t to = row_ptr[row.i]; to < end;) {
            const int n = smallest_keys(w, row, least, keys);
            if (n == 0) break;  // positions changed after the count
            for (int m = lane_number(); m < n && to + m < end; m += kWarp) write_edge(w, row, keys[m], to + m, out);
            least = keys[n - 1] + 1;
            to += n;
            __syncwarp();  // the keys have been read
        }
    }
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
        throw std::invalid_argument("expected a positive cutoff, got " + std::to_string(options.cutoff));
    if (n >= kMost || structures.n >= kMost)
        throw std::invalid_argument("expected less than 2^31 atoms and structures");
    if (n > 0 && structures.n < 1) throw std::invalid_argument("expected a structure for the atoms");
    if (capacity < 0) throw std::invalid_argument("expected a capacity of at least 0 edges");
    const DeviceGuard guard(context.device);
    const Workspace<T> w = workspace_for(structures, options, workspace);
    build_bins(w, context);
    if (n > 0) launch(count_rows<T>, "neighbors: count", row_blocks(n), kRowThreads, context, w, row_ptr);
    launch(scan_rows<T>, "neighbors: scan", w.n_tiles, kScanThreads, context, w, capacity, row_ptr, status);
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
    launch(fill_rows<T>, "neighbors: fill", row_blocks(n), kRowThreads, context, w, row_ptr, out);
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
