// Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda; both modules offer the same functions.
#include "core/bind.hpp"

#include "ops/concat_message/concat_message.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

#ifdef MDGNN_CUDA_MODULE
namespace device = cuda;
#else
namespace device = cpu;
#endif

// itemsize; then ConcatMessage
using OpTuple = std::tuple<int, RowsTuple, RowsTuple, MatrixTuple, std::int64_t, MatrixTuple, Address>;

template <class T>
ConcatMessage<T> concat_message_of(const OpTuple& t) {
    return {rows(std::get<1>(t)),
            rows(std::get<2>(t)),
            matrix<const T>(std::get<3>(t)),
            std::get<4>(t),
            matrix<const T>(std::get<5>(t)),
            pointer<const T>(std::get<6>(t))};
}

}  // namespace

#ifdef MDGNN_CUDA_MODULE
void bind_concat_message_cuda(py::module_& m) {
#else
void bind_concat_message(py::module_& m) {
#endif
    m.def("concat_message", [](const OpTuple& op, const MatrixTuple& out, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::concat_message<T>(concat_message_of<T>(op), matrix<T>(out), context(where));
        });
    });
    m.def("concat_message_backward", [](const OpTuple& op, const MatrixTuple& grad, const MatrixTuple& grad_edge,
                                        const MatrixTuple& grad_ends, Address grad_weight, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::concat_message_backward<T>(concat_message_of<T>(op), matrix<const T>(grad), matrix<T>(grad_edge),
                                               matrix<T>(grad_ends), pointer<T>(grad_weight), context(where));
        });
    });
    m.def("concat_message_double_backward",
          [](const OpTuple& op, const MatrixTuple& grad, const std::tuple<MatrixTuple, MatrixTuple, Address>& grad2,
             const MatrixTuple& out_grad, const MatrixTuple& out_edge, const MatrixTuple& out_ends, Address out_weight,
             const ContextTuple& where) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  device::concat_message_double_backward<T>(
                      concat_message_of<T>(op), matrix<const T>(grad),
                      {matrix<const T>(std::get<0>(grad2)), matrix<const T>(std::get<1>(grad2)),
                       pointer<const T>(std::get<2>(grad2))},
                      matrix<T>(out_grad), matrix<T>(out_edge), matrix<T>(out_ends), pointer<T>(out_weight),
                      context(where));
              });
          });
}

}  // namespace mdgnn
