// Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda; both modules offer the same functions.
#include "core/bind.hpp"

#include "ops/scatter_add/scatter_add.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

#ifdef MDGNN_CUDA_MODULE
namespace device = cuda;
#else
namespace device = cpu;
#endif

using OpTuple = std::tuple<int, RowsTuple, RowsTuple, MatrixTuple, Address, int>;  // itemsize first, then ScatterAdd

template <class T>
ScatterAdd<T> scatter_add_of(const OpTuple& t) {
    return {rows(std::get<1>(t)), rows(std::get<2>(t)), matrix<const T>(std::get<3>(t)),
            pointer<const T>(std::get<4>(t)), static_cast<Reduce>(std::get<5>(t))};
}

}  // namespace

#ifdef MDGNN_CUDA_MODULE
void bind_scatter_add_cuda(py::module_& m) {
#else
void bind_scatter_add(py::module_& m) {
#endif
    m.def("scatter_add", [](const OpTuple& op, const MatrixTuple& out, Address argmax, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::scatter_add<T>(scatter_add_of<T>(op), matrix<T>(out), pointer<std::int64_t>(argmax),
                                   context(where));
        });
    });
    m.def("scatter_add_backward", [](const OpTuple& op, const MatrixTuple& grad, Address argmax,
                                     const MatrixTuple& grad_values, Address grad_weight, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::scatter_add_backward<T>(scatter_add_of<T>(op), matrix<const T>(grad),
                                            pointer<const std::int64_t>(argmax), matrix<T>(grad_values),
                                            pointer<T>(grad_weight), context(where));
        });
    });
    m.def(
        "scatter_add_double_backward",
        [](const OpTuple& op, const MatrixTuple& grad, const MatrixTuple& grad2_values, Address grad2_weight,
           const MatrixTuple& out_grad, const MatrixTuple& out_values, Address out_weight, const ContextTuple& where) {
            py::gil_scoped_release release;
            dispatch_float(std::get<0>(op), [&]<class T>(T) {
                device::scatter_add_double_backward<T>(scatter_add_of<T>(op), matrix<const T>(grad),
                                                       matrix<const T>(grad2_values), pointer<const T>(grad2_weight),
                                                       matrix<T>(out_grad), matrix<T>(out_values),
                                                       pointer<T>(out_weight), context(where));
            });
        });
}

}  // namespace mdgnn
