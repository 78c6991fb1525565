// Some structures of a batch as a batch of their own.
#pragma once

#include <cstdint>
#include <utility>

#include "core/view.hpp"

namespace mdgnn::cpu {

// Structures whose atoms, and so whose edges, follow upon each other.
struct Structures {
    const std::int64_t* first_atom = nullptr;  // n + 1
    std::int64_t n = 0;
    Rows rows;     // edges by receiver: row_ptr, index
    Rows columns;  // by sender: row_ptr, index, edge
};

// Numbers of structures; one may come more than once.
struct Chosen {
    const std::int64_t* structures = nullptr;
    std::int64_t n = 0;
};

// Arrays for the atoms and edges of what was chosen, in that order.
struct Selection {
    std::int64_t* first_atom = nullptr;                   // Chosen::n + 1
    std::int64_t *atoms = nullptr, *structure = nullptr;  // each one's number before, and its structure now
    std::int64_t* edges = nullptr;                        // each one's number before
    std::int64_t *row_ptr = nullptr, *senders = nullptr;
    std::int64_t *col_ptr = nullptr, *receivers = nullptr, *edge = nullptr;
};

// The numbers of its atoms and edges. Throws std::out_of_range for a structure that is not there.
std::pair<std::int64_t, std::int64_t> selection_size(const Structures& all, const Chosen& chosen);

void select_structures(const Structures& all, const Chosen& chosen, const Selection& out);

}  // namespace mdgnn::cpu
