// Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda; both modules offer the same functions.
#include "core/bind.hpp"

#include "ops/painn_message/painn_message.hpp"
#include "ops/radial_filter/bind.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

#ifdef MDGNN_CUDA_MODULE
namespace device = cuda;
#else
namespace device = cpu;
#endif

// itemsize; then PainnMessage
using OpTuple =
    std::tuple<int, RowsTuple, RowsTuple, MatrixTuple, MatrixTuple, TableTuple, Address, Address, WorkspaceTuple>;
using ResultTuple = std::tuple<MatrixTuple, MatrixTuple>;
using GradientsTuple = std::tuple<MatrixTuple, MatrixTuple, Address, Address, Address>;

template <class T>
PainnMessage<T> op_of(const OpTuple& t) {
    return {rows(std::get<1>(t)),
            rows(std::get<2>(t)),
            matrix<const T>(std::get<3>(t)),
            matrix<const T>(std::get<4>(t)),
            table<T>(std::get<5>(t)),
            pointer<const T>(std::get<6>(t)),
            pointer<const T>(std::get<7>(t)),
            workspace(std::get<8>(t))};
}

template <class T>
PainnResult<T> result_of(const ResultTuple& t) {
    return {matrix<T>(std::get<0>(t)), matrix<T>(std::get<1>(t))};
}

template <class T>
PainnGradients<T> gradients_of(const GradientsTuple& t) {
    return {matrix<T>(std::get<0>(t)), matrix<T>(std::get<1>(t)), pointer<T>(std::get<2>(t)),
            pointer<T>(std::get<3>(t)), pointer<T>(std::get<4>(t))};
}

}  // namespace

#ifdef MDGNN_CUDA_MODULE
void bind_painn_message_cuda(py::module_& m) {
#else
void bind_painn_message(py::module_& m) {
#endif
    m.def("painn_message", [](const OpTuple& op, const ResultTuple& out, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op),
                       [&]<class T>(T) { device::painn_message<T>(op_of<T>(op), result_of<T>(out), context(where)); });
    });
    m.def("painn_message_backward",
          [](const OpTuple& op, const ResultTuple& grad, const GradientsTuple& out, const ContextTuple& where) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  device::painn_message_backward<T>(op_of<T>(op), result_of<const T>(grad), gradients_of<T>(out),
                                                    context(where));
              });
          });
    m.def("painn_message_double_backward",
          [](const OpTuple& op, const ResultTuple& grad, const GradientsTuple& grad2, const ResultTuple& out_grad,
             const GradientsTuple& out, const ContextTuple& where) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  device::painn_message_double_backward<T>(op_of<T>(op), result_of<const T>(grad),
                                                           gradients_of<const T>(grad2), result_of<T>(out_grad),
                                                           gradients_of<T>(out), context(where));
              });
          });
}

}  // namespace mdgnn
