// Counting sort: one serial pass to count, one to place. It moves 8 bytes in and 16 out per edge, with random writes;
// at the sizes seen so far it is a few percent of a message passing step, so it has no threads.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "csr/csr.hpp"

namespace mdgnn::cpu {

void counting_sort(const std::int64_t* index, std::int64_t n_edges, std::int64_t n_rows, std::int64_t* row_ptr,
                   std::int64_t* order) {
    std::fill(row_ptr, row_ptr + n_rows + 1, 0);
    for (std::int64_t k = 0; k < n_edges; ++k) {
        if (index[k] < 0 || index[k] >= n_rows)
            throw std::out_of_range("index[" + std::to_string(k) + "] is " + std::to_string(index[k]) +
                                    ", expected 0 <= index < " + std::to_string(n_rows));
        ++row_ptr[index[k] + 1];
    }
    for (std::int64_t r = 0; r < n_rows; ++r) row_ptr[r + 1] += row_ptr[r];
    std::vector<std::int64_t> cursor(row_ptr, row_ptr + n_rows);
    for (std::int64_t k = 0; k < n_edges; ++k) order[cursor[index[k]]++] = k;
}

}  // namespace mdgnn::cpu
