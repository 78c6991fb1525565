// The CPU extension. Few files include pybind11, whose headers take several seconds each.
#include "bindings/ops.hpp"
#include "bindings/pybind.hpp"
#include "ops/csr/csr.hpp"

namespace mdgnn {

void bind_dynamics(pybind11::module_&);
void bind_engine(pybind11::module_&);
void bind_neighbors(pybind11::module_&);

namespace {

void bind_csr(pybind11::module_& m) {
    m.def("counting_sort",
          [](Address index, std::int64_t n_edges, std::int64_t n_rows, Address row_ptr, Address order) {
              pybind11::gil_scoped_release release;
              cpu::counting_sort(pointer<const std::int64_t>(index), n_edges, n_rows, pointer<std::int64_t>(row_ptr),
                                 pointer<std::int64_t>(order));
          });
    m.def("count_values",
          [](const RowsTuple& of, std::int64_t n_entries) { return cpu::count_values(rows(of), n_entries); });
}

}  // namespace
}  // namespace mdgnn

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled kernels of mdgnn for the CPU";
    mdgnn::bindings::add_ops(m.ptr());
    mdgnn::bind_csr(m);
    mdgnn::bind_engine(m);
    mdgnn::bind_dynamics(m);
    mdgnn::bind_neighbors(m);
}
