// The place of (j, i, -S) for every edge (i, j, S) of a full list.
//
// Parallelisation: a warp per row, its lanes along the edges. Memory traffic: a binary search in the sender's row for
// each edge, about eight reads of 16 to 32 bytes, most of them from the cache. Not measured yet.
#include "neighbors/cuda_bins.hpp"

namespace mdgnn::cuda {
namespace {

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
    for (std::int64_t i = first_row(); i < n_rows; i += row_stride())
        for (std::int64_t k = row_ptr[i] + lane_number(); k < row_ptr[i + 1]; k += kWarp) {
            const std::int64_t j = sender_of(list, k);
            const std::int64_t back[3] = {-shift_of(list, k, 0), -shift_of(list, k, 1), -shift_of(list, k, 2)};
            std::int64_t low = row_ptr[j], high = row_ptr[j + 1], found = -1;
            while (low < high && found < 0) {
                const std::int64_t middle = low + (high - low) / 2;
                const int order = compare(list, middle, i, back);
                if (order == 0) found = middle;
                (order < 0 ? low : high) = order < 0 ? middle + 1 : middle;
            }
            if (list.reverse) list.reverse[k] = found;
            if (list.reverse32) list.reverse32[k] = static_cast<std::int32_t>(found);
        }
}

}  // namespace

template <class T>
void find_reverse(std::int64_t n_rows, const std::int64_t* row_ptr, const EdgeArrays<T>& list, const Context& context) {
    launch(reverse_rows<T>, "neighbors: reverse", row_blocks(n_rows), kRowThreads, context, n_rows, row_ptr, list);
}

template void find_reverse<float>(std::int64_t, const std::int64_t*, const EdgeArrays<float>&, const Context&);
template void find_reverse<double>(std::int64_t, const std::int64_t*, const EdgeArrays<double>&, const Context&);

}  // namespace mdgnn::cuda
