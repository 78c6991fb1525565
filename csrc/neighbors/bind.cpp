// numpy in, numpy out. Shapes and dtypes are checked by pybind11 and by mdgnn/neighbors.py.
#include "core/bind.hpp"

#include <type_traits>

#include "neighbors/neighbors.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
using Pbc = std::tuple<bool, bool, bool>;

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

template <class T>
Structure<T> structure_of(const Array<T>& positions, const Array<T>& cell, const Pbc& pbc) {
    require_shape(positions, "positions", {-1, 3});
    require_shape(cell, "cell", {3, 3});
    Structure<T> structure;
    structure.positions = {positions.data(), positions.shape(0), 3};
    for (int k = 0; k < 3; ++k)
        for (int c = 0; c < 3; ++c) structure.cell.rows[k][c] = cell.at(k, c);
    structure.pbc[0] = std::get<0>(pbc), structure.pbc[1] = std::get<1>(pbc), structure.pbc[2] = std::get<2>(pbc);
    return structure;
}

template <class T>
py::tuple neighbors(const Array<T>& positions, const Array<T>& cell, const Pbc& pbc, double cutoff,
                    bool self_interaction, int n_threads) {
    const auto structure = structure_of(positions, cell, pbc);
    EdgeList list;
    {
        py::gil_scoped_release release;
        list = cpu::neighbors<T>(structure, static_cast<T>(cutoff), self_interaction, n_threads);
    }
    const auto n_edges = static_cast<py::ssize_t>(list.senders.size());
    const auto n_rows = static_cast<py::ssize_t>(list.row_ptr.size());
    return py::make_tuple(to_numpy(std::move(list.row_ptr), {n_rows}), to_numpy(std::move(list.senders), {n_edges}),
                          to_numpy(std::move(list.shifts), {n_edges, 3}));
}

template <class T>
py::tuple edges_within(const Array<T>& positions, const Array<T>& cell, const Pbc& pbc, double cutoff,
                       const Array<std::int64_t>& row_ptr, const Array<std::int64_t>& senders,
                       const Array<std::int32_t>& shifts) {
    const auto structure = structure_of(positions, cell, pbc);
    require_shape(row_ptr, "row_ptr", {structure.positions.rows + 1});
    require_shape(senders, "senders", {row_ptr.at(structure.positions.rows)});
    require_shape(shifts, "shifts", {senders.shape(0), 3});
    EdgeList list;
    EdgeVectors<T> edges;
    {
        py::gil_scoped_release release;
        list = cpu::edges_within<T>(structure, row_ptr.data(), senders.data(), shifts.data(), static_cast<T>(cutoff),
                                    edges);
    }
    const auto n_edges = static_cast<py::ssize_t>(list.senders.size());
    const auto n_rows = static_cast<py::ssize_t>(list.row_ptr.size());
    return py::make_tuple(to_numpy(std::move(list.row_ptr), {n_rows}), to_numpy(std::move(edges.receivers), {n_edges}),
                          to_numpy(std::move(list.senders), {n_edges}), to_numpy(std::move(list.shifts), {n_edges, 3}),
                          to_numpy(std::move(edges.vectors), {n_edges, 3}),
                          to_numpy(std::move(edges.distances), {n_edges}));
}

template <class T>
void bind_for(py::module_& m) {
    m.def("neighbors", &neighbors<T>, py::arg("positions").noconvert(), py::arg("cell").noconvert(), py::arg("pbc"),
          py::arg("cutoff"), py::arg("self_interaction"), py::arg("n_threads"));
    m.def("edges_within", &edges_within<T>, py::arg("positions").noconvert(), py::arg("cell").noconvert(),
          py::arg("pbc"), py::arg("cutoff"), py::arg("row_ptr"), py::arg("senders"), py::arg("shifts"));
}

}  // namespace

void bind_neighbors(py::module_& m) {
    bind_for<float>(m);
    bind_for<double>(m);
}

}  // namespace mdgnn
