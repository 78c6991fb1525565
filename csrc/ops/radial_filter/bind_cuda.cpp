// The size of the memory in which CUDA kernels sort edges: Python allocates it.
#include "core/bind.hpp"
#include "ops/radial_filter/workspace.hpp"

namespace py = pybind11;

namespace mdgnn {

void bind_radial_filter_cuda(py::module_& m) {
    m.def("table_workspace", [](int itemsize, std::int64_t n_edges, std::int64_t n_intervals, std::int64_t width) {
        std::size_t bytes = 0;
        dispatch_float(itemsize, [&]<class T>(T) { bytes = cuda::table_workspace<T>(n_edges, n_intervals, width); });
        return bytes;
    });
}

}  // namespace mdgnn
