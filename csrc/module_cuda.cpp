// The CUDA extension, loaded when the first CUDA tensor comes: one line per op.
#include <pybind11/pybind11.h>

namespace mdgnn {
void bind_cfconv_cuda(pybind11::module_&);
void bind_concat_message_cuda(pybind11::module_&);
void bind_concat_message_table_cuda(pybind11::module_&);
void bind_force_virial_cuda(pybind11::module_&);
void bind_neighbors_cuda(pybind11::module_&);
void bind_painn_message_cuda(pybind11::module_&);
void bind_radial_filter_cuda(pybind11::module_&);
void bind_scatter_add_cuda(pybind11::module_&);
}  // namespace mdgnn

PYBIND11_MODULE(_C_cuda, m) {
    m.doc() = "Compiled kernels of mdgnn for CUDA";
    mdgnn::bind_cfconv_cuda(m);
    mdgnn::bind_concat_message_cuda(m);
    mdgnn::bind_concat_message_table_cuda(m);
    mdgnn::bind_force_virial_cuda(m);
    mdgnn::bind_neighbors_cuda(m);
    mdgnn::bind_painn_message_cuda(m);
    mdgnn::bind_radial_filter_cuda(m);
    mdgnn::bind_scatter_add_cuda(m);
}
