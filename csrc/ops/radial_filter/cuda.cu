// Edges sorted by the interval of a radial table that they fall into.
//
// Parallelisation: a stable counting sort. The list is cut into blocks, of each of which a warp counts the edges of
// every interval, 32 edges at a time; lanes with the same interval find each other and one of them counts for all. Two
// scans turn counts into places, by interval and then by block; then the same warps walk their blocks again and put
// every edge in its place, behind those of its interval before it. The order is that of a stable sort, whatever the
// number of blocks.
// Memory traffic: distances are read twice, 16 bytes an edge are written; counts take 8 bytes an interval and block.
// Not measured yet.
#include "ops/radial_filter/cuda_table.hpp"

namespace mdgnn::cuda {
namespace {

constexpr std::int64_t kMaxParts = 1024, kShortestPart = 256;
constexpr std::int64_t kKept = 2048;  // counters of a warp that stay in shared memory; more of them are in global

MDGNN_HD inline std::int64_t parts_for(std::int64_t n_edges) {
    const std::int64_t parts = (n_edges + kShortestPart - 1) / kShortestPart;
    return parts < 1 ? 1 : parts < kMaxParts ? parts : kMaxParts;
}

struct Sort {
    SortedEntry* entries;
    std::int64_t* first;   // n_intervals + 1
    std::int64_t* counts;  // n_intervals x parts
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
    __shared__ std::int64_t kept[kKept];
    const int lane = lane_of_warp();
    const std::int64_t part = blockIdx.x, n = rows.row_ptr[rows.n_rows], parts = parts_for(n);
    if (part >= parts) return;
    const bool keeps = table.n_intervals <= kKept;
    std::int64_t* const counters = keeps ? kept : sort.counts + part;
    const std::int64_t apart = keeps ? 1 : parts;
    for (std::int64_t g = lane; g < table.n_intervals; g += kWarp)
        counters[g * apart] = kPlace ? sort.counts[g * parts + part] + sort.first[g] : 0;
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
        const std::int64_t place = g < 0 ? 0 : counters[g * apart] + __popc(before);
        __syncwarp();
        if (g >= 0 && before == 0) counters[g * apart] += __popc(same);
        __syncwarp();
        if constexpr (kPlace) {
            if (g < 0) continue;  // to the next turn, where all lanes meet
            while (rows.row_ptr[row + 1] <= k) ++row;
            sort.entries[place] = {k, row};
        }
    }
    if constexpr (!kPlace) {
        if (!keeps) return;
        for (std::int64_t g = lane; g < table.n_intervals; g += kWarp) sort.counts[g * parts + part] = kept[g];
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

// Counts of an interval become places behind its first; first gets their sum. One warp an interval.
__global__ void __launch_bounds__(kWarp* kWarps) scan_parts(Rows rows, std::int64_t n_intervals, Sort sort) {
    const std::int64_t parts = parts_for(rows.row_ptr[rows.n_rows]);
    for (Task task(n_intervals); task; ++task) {
        std::int64_t* const counts = sort.counts + task.at * parts;
        std::int64_t before = 0;
        for (std::int64_t base = 0; base < parts; base += kWarp) {
            const std::int64_t part = base + lane_of_warp();
            std::int64_t total;
            const std::int64_t place = before + sum_of_lanes_before(part < parts ? counts[part] : 0, &total);
            if (part < parts) counts[part] = place;
            before += total;
        }
        if (lane_of_warp() == 0) sort.first[task.at] = before;
    }
}

// One warp, whose lanes take a run of intervals each.
__global__ void __launch_bounds__(kWarp) scan_intervals(std::int64_t n_intervals, std::int64_t* first) {
    const std::int64_t length = (n_intervals + kWarp - 1) / kWarp, begin = lane_of_warp() * length;
    const std::int64_t end = begin + length < n_intervals ? begin + length : n_intervals;
    std::int64_t sum = 0, total;
#pragma unroll 8
    for (std::int64_t g = begin; g < end; ++g) sum += first[g];
    std::int64_t place = sum_of_lanes_before(sum, &total);
    for (std::int64_t g = begin; g < end; ++g) {
        const std::int64_t count = first[g];
        first[g] = place;
        place += count;
    }
    if (lane_of_warp() == 0) first[n_intervals] = total;
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
    launch_warps(scan_parts, "edges by interval: scan of blocks", n, context, rows, n, sort);
    launch(scan_intervals, "edges by interval: scan", 1, kWarp, context, n, sort.first);
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
