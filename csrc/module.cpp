// The CPU extension: one line per op.
#include <pybind11/pybind11.h>

namespace mdgnn {
void bind_cfconv(pybind11::module_&);
void bind_concat_message(pybind11::module_&);
void bind_concat_message_table(pybind11::module_&);
void bind_csr(pybind11::module_&);
void bind_edge_basis(pybind11::module_&);
void bind_engine(pybind11::module_&);
void bind_force_virial(pybind11::module_&);
void bind_neighbors(pybind11::module_&);
void bind_painn_message(pybind11::module_&);
void bind_polar(pybind11::module_&);
void bind_scatter_add(pybind11::module_&);
void bind_silu(pybind11::module_&);
}  // namespace mdgnn

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled kernels of mdgnn for the CPU";
    mdgnn::bind_cfconv(m);
    mdgnn::bind_concat_message(m);
    mdgnn::bind_concat_message_table(m);
    mdgnn::bind_csr(m);
    mdgnn::bind_edge_basis(m);
    mdgnn::bind_engine(m);
    mdgnn::bind_force_virial(m);
    mdgnn::bind_neighbors(m);
    mdgnn::bind_painn_message(m);
    mdgnn::bind_polar(m);
    mdgnn::bind_scatter_add(m);
    mdgnn::bind_silu(m);
}
