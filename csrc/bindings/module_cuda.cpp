// The CUDA extension, loaded when the first CUDA tensor comes.
#include "bindings/ops.hpp"
#include "bindings/pybind.hpp"
#include "ops/radial_filter/workspace.hpp"

namespace mdgnn {

void bind_neighbors_cuda(pybind11::module_&);

namespace {

// The size of the memory in which kernels sort edges: Python allocates it.
std::size_t table_workspace(int itemsize, std::int64_t n_edges, std::int64_t n_intervals, std::int64_t width) {
    std::size_t bytes = 0;
    dispatch_float(itemsize, [&]<class T>(T) { bytes = cuda::table_workspace<T>(n_edges, n_intervals, width); });
    return bytes;
}

}  // namespace
}  // namespace mdgnn

PYBIND11_MODULE(_C_cuda, m) {
    m.doc() = "Compiled kernels of mdgnn for CUDA";
    mdgnn::bindings::add_ops(m.ptr());
    mdgnn::bind_neighbors_cuda(m);
    m.def("table_workspace", &mdgnn::table_workspace);
}
