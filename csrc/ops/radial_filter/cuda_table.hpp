// The gradient of a radial table: each interval sums what the edges in it contribute.
//
// Parallelisation: edges are sorted by interval (stable counting sort, cuda.cu), and the sorted list is cut into chunks
// of equal length. A warp sums a chunk, interval after interval, in registers, and writes an interval when it ends; one
// that goes on in the chunks that follow gets their parts, in order, from a last kernel. Sorted order and chunks depend
// on the graph alone: no atomics, the same bits on every run.
// Memory traffic: a contribution is read once and every coefficient written once; 16 bytes an edge for the sorted list,
// written and read, and two passes over the distances.
// Why not a table for each of some blocks of edges, added in the end, as on the CPU: an edge would read and write 4 C
// numbers there, one edge after the other, since two in a row may share an interval; 64 blocks do not fill a GPU, and
// more would cost a table each. Equal chunks, not a block for each interval: in a crystal all edges lie in a few.
// Not measured yet. A list could be sorted once for all layers of a network with the same cutoff.
#pragma once

#include "ops/radial_filter/cuda.hpp"
#include "ops/radial_filter/workspace.hpp"

namespace mdgnn::cuda {

constexpr std::int64_t kMaxChunks = 4096, kShortestChunk = 32;

// An entry of `rows` with its receiver.
struct alignas(16) SortedEntry {
    std::int64_t entry, receiver;
};

// The entries within the cutoff by interval: those of interval g are first[g] .. first[g + 1].
struct SortedEdges {
    const SortedEntry* entries = nullptr;
    const std::int64_t* first = nullptr;  // n_intervals + 1
    void* parts = nullptr;                // 4 * width numbers a chunk: of the interval that began in a chunk before
};

template <class T>
SortedEdges sort_edges(const Rows& rows, const RadialTable<T>& table, const T* r, const TableWorkspace& workspace,
                       const Context& context);

MDGNN_HD inline std::int64_t chunk_length(std::int64_t n_edges) {
    const std::int64_t length = (n_edges + kMaxChunks - 1) / kMaxChunks;
    return length < kShortestChunk ? kShortestChunk : length;
}

// Of so many edges or fewer.
inline std::int64_t most_chunks(std::int64_t n_edges) {
    return std::min((n_edges + kShortestChunk - 1) / kShortestChunk, kMaxChunks);
}

// What follows is for `Op`, a functor with: kBlocks, the parts of a row of the table that a lane treats together, each
// width / kBlocks features after the one before; kValues and kSlopes, whether the filter and its slope are multiplied
// by anything; contribute(edge, receiver, f, value, slope), which sets by what, for each of the parts and a pack of
// features from f on; and factor(edge), by what slopes are multiplied besides.

template <class T>
struct StagedEntry {
    StagedEdge<T> edge;
    std::int64_t receiver, interval;
};

template <class T, int V, int kBlocks>
using TableSums = Pack<T, V>[kBlocks][4];

// Adds up and writes the sums of an interval, and starts anew.
template <class T, int V, int kBlocks>
__device__ MDGNN_INLINE void write_sums(TableSums<T, V, kBlocks>& sums, int group, bool writes, std::int64_t width,
                                        T* to) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            sum_groups(sums[b][q], group);
            if (writes) store_pack(sums[b][q], to + q * width + b * (width / kBlocks));
            sums[b][q] = {};
        }
}

template <class T, int V, class Op>
__device__ MDGNN_INLINE void add_edge(const Op& op, const RadialTable<T>& table, const StagedEntry<T>& e,
                                      std::int64_t f, TableSums<T, V, Op::kBlocks>& sums) {
    Pack<T, V> value[Op::kBlocks], slope[Op::kBlocks];
    op.contribute(e.edge, e.receiver, f, value, slope);
    const FilterWeights<T> by_value = filter_value(e.edge.t);
    FilterWeights<T> by_slope;
    if constexpr (Op::kSlopes) by_slope = filter_slope(e.edge.t, table.per_unit, op.factor(e.edge.edge));
#pragma unroll
    for (int b = 0; b < Op::kBlocks; ++b)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            if (Op::kValues) sums[b][q] += value[b] * by_value.at[q];
            if (Op::kSlopes && q > 0) sums[b][q] += slope[b] * by_slope.at[q];
        }
}

// A lane's entry of the sorted list, into shared memory; returns its interval.
template <class T>
__device__ MDGNN_INLINE std::int64_t stage_entry(const Rows& rows, const RadialTable<T>& table, const T* r,
                                                 const SortedEntry& from, StagedEntry<T>& to) {
    const std::int64_t edge = rows.edge ? rows.edge[from.entry] : from.entry;
    StagedEntry<T> e;
    e.edge = staged_edge(rows, table, r[edge], from.entry, edge);
    e.receiver = from.receiver;
    e.interval = e.edge.place / (4 * table.width);
    to = e;
    return e.interval;
}

// One warp for a chunk and a tile of features.
template <class T, int V, class Op>
__global__ void __launch_bounds__(kWarp* kWarps, 2)
    sum_chunks(Op op, Rows rows, RadialTable<T> table, const T* r, SortedEdges sorted, Layout layout, T* out) {
    __shared__ StagedEntry<T> staged_of_warps[kWarps][kWarp];
    StagedEntry<T>* const staged = staged_of_warps[warp_of_block()];
    const int lane = lane_of_warp(), member = lane % layout.group, group = lane / layout.group;
    const int groups = kWarp / layout.group;
    const std::int64_t n = sorted.first[table.n_intervals], length = chunk_length(n);
    for (Task task((n + length - 1) / length * layout.tiles); task; ++task) {
        const std::int64_t chunk = task.at / layout.tiles, begin = chunk * length;
        const std::int64_t f = (task.at % layout.tiles * layout.group + member) * V;
        const std::int64_t end = begin + length < n ? begin + length : n;
        const bool within = f < table.width / Op::kBlocks;
        TableSums<T, V, Op::kBlocks> sums = {};
        std::int64_t current = -1;
        const auto write = [&] {
            T* const parts = static_cast<T*>(sorted.parts);
            T* const to =
                sorted.first[current] < begin ? parts + chunk * 4 * table.width : out + current * 4 * table.width;
            write_sums<T, V, Op::kBlocks>(sums, layout.group, within && group == 0, table.width, to + f);
        };
        for (std::int64_t base = begin; base < end; base += kWarp) {
            const int count = end - base < kWarp ? static_cast<int>(end - base) : kWarp;
            std::int64_t mine = -1;
            __syncwarp();
            if (lane < count) mine = stage_entry(rows, table, r, sorted.entries[base + lane], staged[lane]);
            __syncwarp();
            for (int a = 0; a < count;) {  // a run of edges of one interval; all lanes agree about it
                const std::int64_t interval = staged[a].interval;
                const unsigned others = __ballot_sync(kAllLanes, lane > a && lane < count && mine != interval);
                const int b = others ? __ffs(static_cast<int>(others)) - 1 : count;
                if (current >= 0 && interval != current) write();
                current = interval;
                if (within)
                    each_edge<Op::kBlocks == 1 ? 2 : 1>(a + group, b, groups,
                                                        [&](int k) { add_edge<T, V>(op, table, staged[k], f, sums); });
                a = b;
            }
        }
        if (current >= 0) write();
    }
}

// Adds the parts of intervals that go over several chunks; those without edges get zeros. One warp an interval.
template <class T>
__global__ void __launch_bounds__(kWarp* kWarps) add_parts(RadialTable<T> table, SortedEdges sorted, T* out) {
    const std::int64_t length = chunk_length(sorted.first[table.n_intervals]), size = 4 * table.width;
    const T* const parts = static_cast<const T*>(sorted.parts);
    for (Task task(table.n_intervals); task; ++task) {
        const std::int64_t begin = sorted.first[task.at], end = sorted.first[task.at + 1];
        const std::int64_t first = begin / length, last = (end - 1) / length;
        T* const to = out + task.at * size;
        if (begin < end && first == last) continue;
        for (std::int64_t f = lane_of_warp(); f < size; f += kWarp) {
            T sum = begin < end ? to[f] : T(0);
            if (begin < end)
                for (std::int64_t chunk = first + 1; chunk <= last; ++chunk) sum += parts[chunk * size + f];
            to[f] = sum;
        }
    }
}

// out (n_intervals, 4, width) = the gradient of the table.
template <class T, int V, class Op>
void sum_over_intervals(const Op& op, const Rows& rows, const RadialTable<T>& table, const T* r,
                        const TableWorkspace& workspace, T* out, const char* what, const Context& context) {
    if (table.width == 0) return;
    const SortedEdges sorted = sort_edges(rows, table, r, workspace, context);
    const Layout layout = layout_for<V>(table.width / Op::kBlocks);
    launch_warps(sum_chunks<T, V, Op>, what, most_chunks(workspace.n_edges) * layout.tiles, context, op, rows, table, r,
                 sorted, layout, out);
    launch_warps(add_parts<T>, what, table.n_intervals, context, table, sorted, out);
}

}  // namespace mdgnn::cuda
