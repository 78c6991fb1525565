// What is done to the rows of a list as a whole: counts become row pointers, and edges find their partners.
//
// Parallelisation: the sum has a block per tile of rows; the counting kernel has left the sums of the tiles. Partners
// are found by a warp per row, its lanes along the edges.
// Memory traffic: the sum reads and writes row_ptr once. A partner takes a binary search in the sender's row. Each step
// of it is one number of a sector of 32 bytes, whatever the lanes of a warp do, since their senders differ: five in a
// row of 64, besides the ends of the row and the shift of its partner, 40 bytes each; 28 bytes are side by side.
// Sectors over that floor of 268 bytes, counted without a GPU: 1.4; the rest is that shifts are read by three loads, of
// which the caches serve two. Not measured yet.
#include "neighbors/cuda_bins.hpp"

namespace mdgnn::cuda {
namespace {

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

// Senders and shifts, of whichever types they have.
template <class T>
__device__ std::int64_t sender_of(const EdgeArrays<T>& list, std::int64_t k) {
    return list.senders ? list.senders[k] : list.senders32[k];
}
template <class T>
__device__ std::int64_t shift_of(const EdgeArrays<T>& list, std::int64_t k, int c) {
    return list.shifts ? list.shifts[3 * k + c] : list.shifts32[3 * k + c];
}

// Whether edge k comes before (i, shift) in its row: -1, 0 or 1 as it is less, equal or greater.
template <class T>
__device__ int compare(const EdgeArrays<T>& list, std::int64_t k, std::int64_t i, const std::int64_t* shift) {
    const std::int64_t j = sender_of(list, k);
    if (j != i) return j < i ? -1 : 1;
    for (int c = 0; c < 3; ++c) {
        const std::int64_t s = shift_of(list, k, c);
        if (s != shift[c]) return s < shift[c] ? -1 : 1;
    }
    return 0;
}

// A warp per row; each lane searches the row of its edge's sender for the way back.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    reverse_rows(std::int64_t n_rows, const std::int64_t* row_ptr, EdgeArrays<T> list) {
    for (std::int64_t i = warp_number(); i < n_rows; i += warp_stride())
        for (std::int64_t k = row_ptr[i] + lane_number(); k < row_ptr[i + 1]; k += kWarp) {
            const std::int64_t j = sender_of(list, k);
            const std::int64_t back[3] = {-shift_of(list, k, 0), -shift_of(list, k, 1), -shift_of(list, k, 2)};
            std::int64_t low = row_ptr[j], high = row_ptr[j + 1], match = -1;
            while (low < high && match < 0) {
                const std::int64_t middle = low + (high - low) / 2;
                const int order = compare(list, middle, i, back);
                if (order == 0) match = middle;
                (order < 0 ? low : high) = order < 0 ? middle + 1 : middle;
            }
            if (list.reverse) list.reverse[k] = match;
            if (list.reverse32) list.reverse32[k] = static_cast<std::int32_t>(match);
        }
}

}  // namespace

template <class T>
void sum_counts(const Workspace<T>& w, std::int64_t capacity, std::int64_t* row_ptr, NeighborStatus* status,
                const Context& context) {
    launch(scan_rows<T>, "neighbors: sum", w.n_tiles, kScanThreads, context, w, capacity, row_ptr, status);
}

template <class T>
void find_reverse(std::int64_t n_rows, const std::int64_t* row_ptr, const EdgeArrays<T>& list, const Context& context) {
    launch(reverse_rows<T>, "neighbors: reverse", row_blocks(n_rows), kRowThreads, context, n_rows, row_ptr, list);
}

#define MDGNN_INSTANTIATE(T)                                                                                        \
    template void sum_counts<T>(const Workspace<T>&, std::int64_t, std::int64_t*, NeighborStatus*, const Context&); \
    template void find_reverse<T>(std::int64_t, const std::int64_t*, const EdgeArrays<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
