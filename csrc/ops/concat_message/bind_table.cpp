// Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda; both modules offer the same functions.
#include "ops/concat_message/table.hpp"
#include "core/bind.hpp"
#include "ops/radial_filter/bind.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

#ifdef MDGNN_CUDA_MODULE
namespace device = cuda;
#else
namespace device = cpu;
#endif

// itemsize; then ConcatMessageTable
using OpTuple =
    std::tuple<int, RowsTuple, RowsTuple, MatrixTuple, TableTuple, Address, Address, WorkspaceTuple, Address>;
using ResultTuple = std::tuple<MatrixTuple, Address, Address>;
using GradientsTuple = std::tuple<MatrixTuple, Address, Address>;

template <class T>
ConcatMessageTable<T> op_of(const OpTuple& t) {
    return {rows(std::get<1>(t)),
            rows(std::get<2>(t)),
            matrix<const T>(std::get<3>(t)),
            table<T>(std::get<4>(t)),
            pointer<const T>(std::get<5>(t)),
            pointer<const T>(std::get<6>(t)),
            workspace(std::get<7>(t)),
            pointer<T>(std::get<8>(t))};
}

template <class T>
ConcatMessageResult<T> result_of(const ResultTuple& t) {
    return {matrix<T>(std::get<0>(t)), pointer<T>(std::get<1>(t)), pointer<T>(std::get<2>(t))};
}

template <class T>
ConcatMessageGradients<T> gradients_of(const GradientsTuple& t) {
    return {matrix<T>(std::get<0>(t)), pointer<T>(std::get<1>(t)), pointer<T>(std::get<2>(t))};
}

}  // namespace

#ifdef MDGNN_CUDA_MODULE
void bind_concat_message_table_cuda(py::module_& m) {
#else
void bind_concat_message_table(py::module_& m) {
#endif
    m.def("concat_message_table", [](const OpTuple& op, const ResultTuple& out, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::concat_message_table<T>(op_of<T>(op), result_of<T>(out), context(where));
        });
    });
    m.def("concat_message_table_backward",
          [](const OpTuple& op, const ResultTuple& grad, const GradientsTuple& out, const ContextTuple& where) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  device::concat_message_table_backward<T>(op_of<T>(op), result_of<const T>(grad), gradients_of<T>(out),
                                                           context(where));
              });
          });
    m.def("concat_message_table_double_backward",
          [](const OpTuple& op, const ResultTuple& grad, const GradientsTuple& grad2, const ResultTuple& out_grad,
             const GradientsTuple& out, const ContextTuple& where) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  device::concat_message_table_double_backward<T>(op_of<T>(op), result_of<const T>(grad),
                                                                  gradients_of<const T>(grad2), result_of<T>(out_grad),
                                                                  gradients_of<T>(out), context(where));
              });
          });
}

}  // namespace mdgnn
