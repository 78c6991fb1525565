// Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda; both modules offer the same functions.
#include "core/bind.hpp"

#include "ops/cfconv/cfconv.hpp"
#include "ops/radial_filter/bind.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

#ifdef MDGNN_CUDA_MODULE
namespace device = cuda;
#else
namespace device = cpu;
#endif

// itemsize; then CfConv
using OpTuple = std::tuple<int, RowsTuple, RowsTuple, MatrixTuple, TableTuple, Address, WorkspaceTuple>;

template <class T>
CfConv<T> cfconv_of(const OpTuple& t) {
    return {rows(std::get<1>(t)),
            rows(std::get<2>(t)),
            matrix<const T>(std::get<3>(t)),
            table<T>(std::get<4>(t)),
            pointer<const T>(std::get<5>(t)),
            workspace(std::get<6>(t))};
}

}  // namespace

#ifdef MDGNN_CUDA_MODULE
void bind_cfconv_cuda(py::module_& m) {
#else
void bind_cfconv(py::module_& m) {
#endif
    m.def("cfconv", [](const OpTuple& op, const MatrixTuple& out, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op),
                       [&]<class T>(T) { device::cfconv<T>(cfconv_of<T>(op), matrix<T>(out), context(where)); });
    });
    m.def("cfconv_backward", [](const OpTuple& op, const MatrixTuple& grad, const MatrixTuple& grad_x, Address grad_r,
                                Address grad_coefficients, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::cfconv_backward<T>(cfconv_of<T>(op), matrix<const T>(grad), matrix<T>(grad_x), pointer<T>(grad_r),
                                       pointer<T>(grad_coefficients), context(where));
        });
    });
    m.def("cfconv_double_backward", [](const OpTuple& op, const MatrixTuple& grad, const MatrixTuple& grad2_x,
                                       Address grad2_r, const MatrixTuple& out_grad, const MatrixTuple& out_x,
                                       Address out_r, Address out_coefficients, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::cfconv_double_backward<T>(cfconv_of<T>(op), matrix<const T>(grad), matrix<const T>(grad2_x),
                                              pointer<const T>(grad2_r), matrix<T>(out_grad), matrix<T>(out_x),
                                              pointer<T>(out_r), pointer<T>(out_coefficients), context(where));
        });
    });
}

}  // namespace mdgnn
