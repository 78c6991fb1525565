// Edges sorted by the interval of a radial table that they fall into.
//
// Parallelisation: a stable counting sort. The list is cut into blocks, of each of which a warp counts the edges of
// every interval, 32 edges at a time; lanes with the same interval find each other and one of them counts for all. Two
// scans turn counts into places, by interval and then by block; then the same warps walk their blocks again and put
// every edge in its place, behind those of its interval before it. The order is that of a stable sort, whatever the
// number of blocks.
// Memory traffic: distances are read twice, 16 bytes an edge are written, in half sectors; counts take 8 bytes an
// interval and block, which are written, read twice and written by the scan, and read.
// Alternatives that lost by their bytes (benchmarks/results/gpu_traffic.md): counts of an interval side by side, which
// are read once by the scan, but of which the warps that walk the blocks move a sector for each count; a scan of the
// intervals by one warp, whose lanes have a run of them each. Times are not measured yet.
#include "ops/radial_filter/cuda_table.hpp"

namespace mdgnn::cuda {
namespace {

constexpr std::int64_t kMaxParts = 1024, kShortestPart = 256;
constexpr int kRuns = 32;                   // warps of a block that scans
constexpr std::int64_t kMostShared = 2048;  // counters of a warp that stay in shared memory; more of them are in global

MDGNN_HD inline std::int64_t parts_for(std::int64_t n_edges) {
    const std::int64_t parts = (n_edges + kShortestPart - 1) / kShortestPart;
    return parts < 1 ? 1 : parts < kMaxParts ? parts : kMaxParts;
}

struct Sort {
    SortedEntry* entries;
    std::int64_t* first;   // n_intervals + 1
    std::int64_t* counts;  // parts x n_intervals
};

// The row that entry k belongs to.
__device__ std::int64_t row_of(const Rows& rows, std::int64_t k) {
    std::int64_t low = 0, high = rows.n_rows - 1;  // row_ptr[low] <= k < row_ptr[high + 1]
    while (low < high) {
        const std::int64_t middle = (low + high) / 2;
        if (rows.row_ptr[middle + 1] <= k)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// kPlace: puts entries in their places, of which counters then hold the next. Otherwise counts.
template <class T, bool kPlace>
__global__ void __launch_bounds__(kWarp) walk_part(Rows rows, RadialTable<T> table, const T* r, Sort sort) {
    __shared__ std::int64_t in_shared[kMostShared];
    const int lane = lane_of_warp();
    const std::int64_t part = blockIdx.x, n = rows.row_ptr[rows.n_rows], parts = parts_for(n);
    if (part >= parts) return;
    const bool fits = table.n_intervals <= kMostShared;
    std::int64_t* const counts = sort.counts + part * table.n_intervals;
    std::int64_t* const counters = fits ? in_shared : counts;
    for (std::int64_t g = lane; g < table.n_intervals; g += kWarp) counters[g] = kPlace ? counts[g] + sort.first[g] : 0;
    __syncwarp();
    const std::int64_t length = (n + parts - 1) / parts, begin = part * length;
    const std::int64_t end = begin + length < n ? begin + length : n;
    std::int64_t row = kPlace && begin + lane < end ? row_of(rows, begin + lane) : 0;
    for (std::int64_t base = begin; base < end; base += kWarp) {
        const std::int64_t k = base + lane;
        int g = -1;
        if (k < end) {
            const T distance = r[rows.edge ? rows.edge[k] : k];
            T t;
            if (distance < table.cutoff) g = static_cast<int>(interval_of(table, distance, t));
        }
        const unsigned same = __match_any_sync(kAllLanes, g), before = same & ((1u << lane) - 1);
        const std::int64_t place = g < 0 ? 0 : counters[g] + __popc(before);
        __syncwarp();
        if (g >= 0 && before == 0) counters[g] += __popc(same);
        __syncwarp();
        if constexpr (kPlace) {
            if (g < 0) continue;  // to the next turn, where all lanes meet
            while (rows.row_ptr[row + 1] <= k) ++row;
            sort.entries[place] = {k, row};
        }
    }
    if constexpr (!kPlace) {
        if (!fits) return;
        for (std::int64_t g = lane; g < table.n_intervals; g += kWarp) counts[g] = in_shared[g];
    }
}

__device__ std::int64_t sum_of_lanes_before(std::int64_t value, std::int64_t* total) {
    std::int64_t sum = value;
    for (int apart = 1; apart < kWarp; apart *= 2) {
        const std::int64_t other = __shfl_up_sync(kAllLanes, sum, apart);
        if (lane_of_warp() >= apart) sum += other;
    }
    *total = __shfl_sync(kAllLanes, sum, kWarp - 1);
    return sum - value;
}

// Counts of an interval become places behind its first; first gets their sum. A block takes 32 intervals, a lane one of
// them and a warp a run of parts.
__global__ void __launch_bounds__(kWarp* kRuns) scan_parts(Rows rows, std::int64_t n_intervals, Sort sort) {
    __shared__ std::int64_t sums[kRuns][kWarp];
    const std::int64_t parts = parts_for(rows.row_ptr[rows.n_rows]), length = (parts + kRuns - 1) / kRuns;
    const int lane = lane_of_warp(), run = warp_of_block();
    const std::int64_t g = static_cast<std::int64_t>(blockIdx.x) * kWarp + lane, begin = run * length;
    const std::int64_t end = g >= n_intervals ? begin : begin + length < parts ? begin + length : parts;
    std::int64_t sum = 0;
#pragma unroll 8
    for (std::int64_t part = begin; part < end; ++part) sum += sort.counts[part * n_intervals + g];
    sums[run][lane] = sum;
    __syncthreads();
    std::int64_t place = 0, total = 0;
    for (int r = 0; r < kRuns; ++r) {
        if (r == run) place = total;
        total += sums[r][lane];
    }
    for (std::int64_t part = begin; part < end; ++part) {
        std::int64_t& count = sort.counts[part * n_intervals + g];
        const std::int64_t next = place + count;
        count = place;
        place = next;
    }
    if (run == 0 && g < n_intervals) sort.first[g] = total;
}

// One block; a thread an interval.
__global__ void __launch_bounds__(kWarp* kRuns) scan_intervals(std::int64_t n_intervals, std::int64_t* first) {
    __shared__ std::int64_t sums[kRuns];
    std::int64_t before = 0;
    for (std::int64_t base = 0; base < n_intervals; base += kWarp * kRuns) {
        const std::int64_t g = base + threadIdx.x;
        std::int64_t total, all = 0;
        std::int64_t place = before + sum_of_lanes_before(g < n_intervals ? first[g] : 0, &total);
        if (lane_of_warp() == 0) sums[warp_of_block()] = total;
        __syncthreads();
        for (int r = 0; r < kRuns; ++r) {
            if (r == warp_of_block()) place += all;
            all += sums[r];
        }
        if (g < n_intervals) first[g] = place;
        before += all;
        __syncthreads();  // the sums have been read
    }
    if (threadIdx.x == 0) first[n_intervals] = before;
}

// Pieces of the workspace, one after the other.
class Pieces {
  public:
    explicit Pieces(void* memory) : memory_(static_cast<char*>(memory)) {}
    template <class U>
    U* take(std::int64_t n) {
        char* const piece = memory_ ? memory_ + bytes : nullptr;
        bytes += (static_cast<std::size_t>(n) * sizeof(U) + 255) / 256 * 256;
        return reinterpret_cast<U*>(piece);
    }
    std::size_t bytes = 0;

  private:
    char* memory_;
};

// Where everything is; bytes: how many it takes.
template <class T>
Sort divide(void* memory, std::int64_t n_edges, const RadialTable<T>& table, SortedEdges* sorted, std::size_t* bytes) {
    Pieces pieces(memory);
    Sort sort;
    sort.first = pieces.take<std::int64_t>(table.n_intervals + 1);
    sort.counts = pieces.take<std::int64_t>(table.n_intervals * parts_for(n_edges));
    sort.entries = pieces.take<SortedEntry>(n_edges);
    *sorted = {sort.entries, sort.first, pieces.take<T>(most_chunks(n_edges) * 4 * table.width)};
    *bytes = pieces.bytes;
    return sort;
}

}  // namespace

template <class T>
std::size_t table_workspace(std::int64_t n_edges, std::int64_t n_intervals, std::int64_t width) {
    RadialTable<T> table;
    table.n_intervals = n_intervals, table.width = width;
    SortedEdges sorted;
    std::size_t bytes;
    divide(nullptr, n_edges, table, &sorted, &bytes);
    return bytes;
}

template <class T>
SortedEdges sort_edges(const Rows& rows, const RadialTable<T>& table, const T* r, const TableWorkspace& workspace,
                       const Context& context) {
    SortedEdges sorted;
    std::size_t bytes;
    const Sort sort = divide(workspace.memory, workspace.n_edges, table, &sorted, &bytes);
    const std::int64_t parts = parts_for(workspace.n_edges), n = table.n_intervals;
    launch(walk_part<T, false>, "edges by interval: count", parts, kWarp, context, rows, table, r, sort);
    launch(scan_parts, "edges by interval: scan of blocks", (n + kWarp - 1) / kWarp, kWarp * kRuns, context, rows, n,
           sort);
    launch(scan_intervals, "edges by interval: scan", 1, kWarp * kRuns, context, n, sort.first);
    launch(walk_part<T, true>, "edges by interval: place", parts, kWarp, context, rows, table, r, sort);
    return sorted;
}

#define MDGNN_INSTANTIATE(T)                                                                                \
    template std::size_t table_workspace<T>(std::int64_t, std::int64_t, std::int64_t);                      \
    template SortedEdges sort_edges<T>(const Rows&, const RadialTable<T>&, const T*, const TableWorkspace&, \
                                       const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
