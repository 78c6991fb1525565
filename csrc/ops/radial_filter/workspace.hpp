// The memory in which CUDA kernels sort edges by their interval of a table, for the table's gradient.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mdgnn::cuda {

// Bytes for at most so many edges: 16 an edge, some 8 KB an interval and up to 4096 rows of a table.
template <class T>
std::size_t table_workspace(std::int64_t n_edges, std::int64_t n_intervals, std::int64_t width);

}  // namespace mdgnn::cuda
