#include "core/bind.hpp"

#include "ops/csr/csr.hpp"

namespace py = pybind11;

namespace mdgnn {

void bind_csr(py::module_& m) {
    m.def(
        "counting_sort",
        [](Address index, std::int64_t n_edges, std::int64_t n_rows, Address row_ptr, Address order) {
            py::gil_scoped_release release;
            cpu::counting_sort(pointer<const std::int64_t>(index), n_edges, n_rows, pointer<std::int64_t>(row_ptr),
                               pointer<std::int64_t>(order));
        },
        py::arg("index"), py::arg("n_edges"), py::arg("n_rows"), py::arg("row_ptr"), py::arg("order"));
    m.def("count_values",
          [](const RowsTuple& of, std::int64_t n_entries) { return cpu::count_values(rows(of), n_entries); });
}

}  // namespace mdgnn
