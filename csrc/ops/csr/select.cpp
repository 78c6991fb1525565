// Parallelisation: none. Memory traffic: each array of what was chosen once in, once out, in order within a structure.
#include "ops/csr/select.hpp"

#include <stdexcept>
#include <string>

namespace mdgnn::cpu {

std::pair<std::int64_t, std::int64_t> selection_size(const Structures& all, const Chosen& chosen) {
    std::int64_t n_atoms = 0, n_edges = 0;
    for (std::int64_t k = 0; k < chosen.n; ++k) {
        const std::int64_t s = chosen.structures[k];
        if (s < 0 || s >= all.n)
            throw std::out_of_range("expected structures from 0 to " + std::to_string(all.n - 1) + ", got " +
                                    std::to_string(s));
        const std::int64_t begin = all.first_atom[s], end = all.first_atom[s + 1];
        n_atoms += end - begin, n_edges += all.rows.row_ptr[end] - all.rows.row_ptr[begin];
    }
    return {n_atoms, n_edges};
}

void select_structures(const Structures& all, const Chosen& chosen, const Selection& out) {
    std::int64_t n_atoms = 0, n_edges = 0;
    out.first_atom[0] = out.row_ptr[0] = out.col_ptr[0] = 0;
    for (std::int64_t k = 0; k < chosen.n; ++k) {
        const std::int64_t first = all.first_atom[chosen.structures[k]];
        const std::int64_t last = all.first_atom[chosen.structures[k] + 1];
        const std::int64_t begin = all.rows.row_ptr[first], end = all.rows.row_ptr[last];
        const std::int64_t atoms_on = n_atoms - first, edges_on = n_edges - begin;
        for (std::int64_t i = first; i < last; ++i) {
            out.atoms[i + atoms_on] = i;
            out.structure[i + atoms_on] = k;
            out.row_ptr[i + atoms_on + 1] = all.rows.row_ptr[i + 1] + edges_on;
            out.col_ptr[i + atoms_on + 1] = all.columns.row_ptr[i + 1] + edges_on;
        }
        for (std::int64_t e = begin; e < end; ++e) {
            out.edges[e + edges_on] = e;
            out.senders[e + edges_on] = all.rows.index[e] + atoms_on;
            out.receivers[e + edges_on] = all.columns.index[e] + atoms_on;
            out.edge[e + edges_on] = all.columns.edge[e] + edges_on;
        }
        n_atoms += last - first, n_edges += end - begin;
        out.first_atom[k + 1] = n_atoms;
    }
}

}  // namespace mdgnn::cpu
