// Counting sort: one serial pass to count, one to place. It moves 8 bytes in and 16 out per edge, with random writes;
// at the sizes seen so far it is a few percent of a message passing step, so it has no threads.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/csr/csr.hpp"

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

std::int64_t count_values(const Rows& rows, std::int64_t n_entries) {
    bool rises = rows.row_ptr[0] == 0 && rows.row_ptr[rows.n_rows] == n_entries;
    for (std::int64_t r = 0; r < rows.n_rows; ++r) rises = rises && rows.row_ptr[r] <= rows.row_ptr[r + 1];
    if (!rises)
        throw std::invalid_argument("expected rows.row_ptr to rise from 0 to the number of entries, " +
                                    std::to_string(n_entries));
    if (rows.edge)
        for (std::int64_t k = 0; k < n_entries; ++k)
            if (rows.edge[k] < 0 || rows.edge[k] >= n_entries)
                throw std::invalid_argument("expected rows.edge from 0 to " + std::to_string(n_entries - 1) + ", got " +
                                            std::to_string(rows.edge[k]));
    if (!rows.index) return n_entries;
    std::int64_t low = 0, high = -1;
    for (std::int64_t k = 0; k < n_entries; ++k) {
        low = std::min(low, rows.index[k]);
        high = std::max(high, rows.index[k]);
    }
    if (low < 0) throw std::invalid_argument("expected rows.index of at least 0, got " + std::to_string(low));
    return high + 1;
}

}  // namespace mdgnn::cpu
