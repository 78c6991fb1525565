// Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda; both modules offer the same functions.
#include "core/bind.hpp"

#include "ops/force_virial/force_virial.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

#ifdef MDGNN_CUDA_MODULE
namespace device = cuda;
#else
namespace device = cpu;
#endif

using OpTuple = std::tuple<int, RowsTuple, RowsTuple, Address>;  // itemsize of the gradients first, then EdgeVectors

EdgeVectors edge_vectors_of(const OpTuple& t) {
    return {rows(std::get<1>(t)), rows(std::get<2>(t)), pointer<const double>(std::get<3>(t))};
}

}  // namespace

#ifdef MDGNN_CUDA_MODULE
void bind_force_virial_cuda(py::module_& m) {
#else
void bind_force_virial(py::module_& m) {
#endif
    m.def("force_virial",
          [](const OpTuple& op, Address gradients, Address forces, Address virials, const ContextTuple& where) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  device::force_virial<T>(edge_vectors_of(op), pointer<const T>(gradients), pointer<double>(forces),
                                          pointer<double>(virials), context(where));
              });
          });
    m.def("force_virial_backward", [](const OpTuple& op, Address grad_forces, Address grad_virials, Address out,
                                      const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            device::force_virial_backward<T>(edge_vectors_of(op), pointer<const double>(grad_forces),
                                             pointer<const double>(grad_virials), pointer<T>(out), context(where));
        });
    });
}

}  // namespace mdgnn
