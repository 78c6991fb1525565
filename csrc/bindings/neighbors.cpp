// numpy in, numpy out. Dtypes are checked by pybind11 and values by the search; mdgnn/neighbors.py prepares the rest.
#include "neighbors/neighbors.hpp"

#include <unistd.h>

#include <limits>
#include <string>

#include "bindings/pybind.hpp"
#include "core/block.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
void require_shape(const Array<T>& array, const char* name, std::vector<py::ssize_t> shape) {
    bool same = array.ndim() == static_cast<py::ssize_t>(shape.size());
    for (std::size_t d = 0; same && d < shape.size(); ++d) same = shape[d] < 0 || array.shape(d) == shape[d];
    if (!same) {
        std::string expected, got;
        for (auto s : shape)
            expected += (expected.empty() ? "" : ", ") + (s < 0 ? std::string("N") : std::to_string(s));
        for (py::ssize_t d = 0; d < array.ndim(); ++d) got += (d ? ", " : "") + std::to_string(array.shape(d));
        throw std::invalid_argument(std::string("expected ") + name + " of shape (" + expected + "), got (" + got +
                                    ")");
    }
}

// The arguments of a search, kept alive.
template <class T>
struct Input {
    Array<T> positions, cells;
    Array<bool> pbc;
    Array<std::int64_t> first;

    // `first` is empty for one structure, which has a cell (3, 3) and pbc (3).
    Structures<T> structures() {
        require_shape(positions, "positions", {-1, 3});
        const py::ssize_t n_atoms = positions.shape(0), n = first.size() == 0 ? 1 : first.size() - 1;
        if (first.size() == 0) {
            require_shape(cells, "cell", {3, 3});
            require_shape(pbc, "pbc", {3});
            first = Array<std::int64_t>(2);
            first.mutable_at(0) = 0, first.mutable_at(1) = n_atoms;
        } else {
            require_shape(cells, "cells", {n, 3, 3});
            require_shape(pbc, "pbc", {n, 3});
            bool rises = first.at(0) == 0 && first.at(n) == n_atoms;
            for (py::ssize_t s = 0; s < n; ++s) rises = rises && first.at(s) <= first.at(s + 1);
            if (!rises)
                throw std::invalid_argument("expected the first atoms of the structures to rise from 0 to " +
                                            std::to_string(n_atoms));
        }
        return {{positions.data(), n_atoms, 3}, first.data(), n, cells.data(), pbc.data()};
    }
};

std::string gigabytes(double bytes) { return std::to_string(static_cast<std::int64_t>(bytes * 1e-9)) + " GB"; }

[[noreturn]] void throw_memory_error(const std::string& text) {
    PyErr_SetString(PyExc_MemoryError, text.c_str());
    throw py::error_already_set();
}

void require_memory(std::int64_t n_edges, double bytes) {
    const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
    if (bytes > memory)
        throw_memory_error("a list of " + std::to_string(n_edges) + " edges takes " + gigabytes(bytes) +
                           ", more than this machine's memory of " + gigabytes(memory));
}

// The arrays of a result, allocated by numpy in exact size once the number of edges is known.
template <class T>
struct Output {
    Array<std::int64_t> row_ptr;
    py::list arrays;
    EdgeArrays<T> pointers;

    template <class V>
    V* add(std::vector<py::ssize_t> shape) {
        std::size_t bytes = sizeof(V);
        for (auto s : shape) bytes *= static_cast<std::size_t>(s);
        if (bytes < kSmallestBlock) {
            Array<V> array(std::move(shape));
            V* data = array.mutable_data();
            arrays.append(std::move(array));
            return data;
        }
        void* memory = allocate_block(bytes);
        const py::capsule owner(memory, &free_block);
        arrays.append(Array<V>(std::move(shape), static_cast<V*>(memory), owner));
        return static_cast<V*>(memory);
    }

    // p: row pointers, i, j, S, D, d, r: reverse edges (with j); indices of index_bytes, shifts of shift_bytes.
    void allocate(const std::string& quantities, int index_bytes, int shift_bytes) {
        const std::int64_t n = row_ptr.size() - 1, e = row_ptr.at(n);
        double bytes = 0;
        for (char q : quantities)
            bytes += static_cast<double>(e) * (q == 'p'   ? 0
                                               : q == 'S' ? 3 * shift_bytes
                                               : q == 'D' ? 3 * sizeof(T)
                                               : q == 'd' ? sizeof(T)
                                                          : index_bytes);
        if (bytes > 1e8) require_memory(e, bytes);  // asking the system takes a microsecond
        if (index_bytes == 4 && e > std::numeric_limits<std::int32_t>::max())
            throw std::invalid_argument("expected less than 2^31 edges for int32 indices, got " + std::to_string(e));
        for (char q : quantities) {
            if (q == 'p') arrays.append(row_ptr);
            if (q == 'i' && index_bytes == 8) pointers.receivers = add<std::int64_t>({e});
            if (q == 'i' && index_bytes == 4) pointers.receivers32 = add<std::int32_t>({e});
            if (q == 'j' && index_bytes == 8) pointers.senders = add<std::int64_t>({e});
            if (q == 'j' && index_bytes == 4) pointers.senders32 = add<std::int32_t>({e});
            if (q == 'r' && index_bytes == 8) pointers.reverse = add<std::int64_t>({e});
            if (q == 'r' && index_bytes == 4) pointers.reverse32 = add<std::int32_t>({e});
            if (q == 'S' && shift_bytes == 8) pointers.shifts = add<std::int64_t>({e, 3});
            if (q == 'S' && shift_bytes == 4) pointers.shifts32 = add<std::int32_t>({e, 3});
            if (q == 'D') pointers.vectors = add<T>({e, 3});
            if (q == 'd') pointers.distances = add<T>({e});
        }
    }
};

template <class T>
py::tuple search(const std::string& quantities, Input<T>& input, const NeighborOptions<T>& options, int index_bytes,
                 int shift_bytes) {
    const Structures<T> structures = input.structures();
    Output<T> out;
    out.row_ptr = Array<std::int64_t>(structures.positions.rows + 1);
    std::int64_t* row_ptr = out.row_ptr.mutable_data();
    std::unique_ptr<cpu::NeighborSearch<T>> search;
    try {
        py::gil_scoped_release release;
        search = std::make_unique<cpu::NeighborSearch<T>>(structures, options);
        search->count(row_ptr);
    } catch (const std::bad_alloc&) {
        throw_memory_error("too little memory to search the neighbours of " +
                           std::to_string(structures.positions.rows) + " atoms");
    }
    out.allocate(quantities, index_bytes, shift_bytes);
    if (!search->complete())
        throw_memory_error("a search for " + std::to_string(out.row_ptr.at(structures.positions.rows)) +
                           " edges takes more than half of this machine's memory");
    {
        py::gil_scoped_release release;
        search->fill(row_ptr, out.pointers);
        search.reset();
    }
    return py::tuple(out.arrays);
}

template <class T>
py::tuple neighbors(const std::string& quantities, const Array<T>& positions, const Array<T>& cells,
                    const Array<bool>& pbc, const Array<std::int64_t>& first, double cutoff, int n_threads,
                    bool self_interaction, bool half, int index_bytes, int shift_bytes) {
    Input<T> input{positions, cells, pbc, first};
    const NeighborOptions<T> options{static_cast<T>(cutoff), self_interaction, half, n_threads};
    return search(quantities, input, options, index_bytes, shift_bytes);
}

// Of one structure. `kinds` (N) with a `table` of cutoffs (K, K); or without kinds the radii (N) in its place.
template <class T>
py::tuple neighbors_by_pair(const std::string& quantities, const Array<T>& positions, const Array<T>& cell,
                            const Array<bool>& pbc, const Array<std::int32_t>& kinds, const Array<double>& table,
                            double cutoff, int n_threads, bool self_interaction) {
    Input<T> input{positions, cell, pbc, Array<std::int64_t>(py::ssize_t{0})};
    NeighborOptions<T> options{static_cast<T>(cutoff), self_interaction, false, n_threads};
    require_shape(positions, "positions", {-1, 3});
    const py::ssize_t n_atoms = positions.shape(0);
    if (table.ndim() == 2) {
        require_shape(kinds, "kinds", {n_atoms});
        require_shape(table, "table", {table.shape(0), table.shape(0)});
        for (py::ssize_t i = 0; i < n_atoms; ++i)
            if (kinds.at(i) < 0 || kinds.at(i) >= table.shape(0))
                throw std::invalid_argument("expected kinds below " + std::to_string(table.shape(0)));
        options.pairs = {nullptr, kinds.data(), table.data(), table.shape(0)};
    } else {
        require_shape(table, "radii", {n_atoms});
        options.pairs.radii = table.data();
    }
    return search(quantities, input, options, 8, 8);
}

// Row pointers, receivers, senders, shifts, vectors and distances.
template <class T>
py::tuple edges_within(const Array<T>& positions, const Array<T>& cell, const Array<bool>& pbc,
                       const Array<std::int64_t>& row_ptr, const Array<std::int64_t>& senders,
                       const Array<std::int32_t>& shifts, double cutoff, int n_threads) {
    Input<T> input{positions, cell, pbc, Array<std::int64_t>(py::ssize_t{0})};
    const Structures<T> structure = input.structures();
    require_shape(row_ptr, "row_ptr", {structure.positions.rows + 1});
    require_shape(senders, "senders", {row_ptr.at(structure.positions.rows)});
    require_shape(shifts, "shifts", {senders.shape(0), 3});
    const NeighborOptions<T> options{static_cast<T>(cutoff), false, false, n_threads};
    const cpu::ListView list{row_ptr.data(), senders.data(), shifts.data()};
    Output<T> out;
    out.row_ptr = Array<std::int64_t>(structure.positions.rows + 1);
    std::int64_t* row_ptr_within = out.row_ptr.mutable_data();
    {
        py::gil_scoped_release release;
        cpu::count_within(structure, options, list, row_ptr_within);
    }
    out.allocate("pijSDd", 8, 4);
    {
        py::gil_scoped_release release;
        cpu::fill_within(structure, options, list, row_ptr_within, out.pointers);
    }
    return py::tuple(out.arrays);
}

// What tells how to search has a name in every call.
template <class T>
void bind_for(py::module_& m) {
    m.def("neighbors", &neighbors<T>, py::arg("quantities"), py::arg("positions").noconvert(),
          py::arg("cells").noconvert(), py::arg("pbc").noconvert(), py::arg("first").noconvert(), py::kw_only(),
          py::arg("cutoff"), py::arg("n_threads"), py::arg("self_interaction") = false, py::arg("half") = false,
          py::arg("index_bytes") = 8, py::arg("shift_bytes") = 8);
    m.def("neighbors_by_pair", &neighbors_by_pair<T>, py::arg("quantities"), py::arg("positions").noconvert(),
          py::arg("cell").noconvert(), py::arg("pbc").noconvert(), py::arg("kinds").noconvert(),
          py::arg("table").noconvert(), py::kw_only(), py::arg("cutoff"), py::arg("n_threads"),
          py::arg("self_interaction") = false);
    m.def("edges_within", &edges_within<T>, py::arg("positions").noconvert(), py::arg("cell").noconvert(),
          py::arg("pbc").noconvert(), py::arg("row_ptr"), py::arg("senders"), py::arg("shifts"), py::kw_only(),
          py::arg("cutoff"), py::arg("n_threads"));
}

}  // namespace

void bind_neighbors(py::module_& m) {
    bind_for<double>(m);
    bind_for<float>(m);
}

}  // namespace mdgnn
