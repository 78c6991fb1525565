// Counting sort of an index into compressed rows (CSR).
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn::cpu {

// row_ptr[r] .. row_ptr[r+1] delimits in `order` the positions k with index[k] == r, ascending (the sort is stable).
// index: n_edges values in [0, n_rows); row_ptr: n_rows + 1 values; order: n_edges values.
// Throws std::out_of_range naming the first bad position.
void counting_sort(const std::int64_t* index, std::int64_t n_edges, std::int64_t n_rows, std::int64_t* row_ptr,
                   std::int64_t* order);

// Checks compressed rows before kernels follow them: row_ptr rises from 0 to n_entries, index (or null) holds nothing
// negative, edge (or null) stays below n_entries. Returns the number of values that the index needs, n_entries without
// one. Throws std::invalid_argument with a sentence.
std::int64_t count_values(const Rows& rows, std::int64_t n_entries);

}  // namespace mdgnn::cpu
