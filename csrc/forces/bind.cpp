#include "core/bind.hpp"

#include "forces/forces.hpp"

namespace py = pybind11;

namespace mdgnn {

void bind_forces(py::module_& m) {
    m.def("forces", [](int itemsize, const RowsTuple& by_receiver, const RowsTuple& by_sender, Address gradients,
                       Address out, int n_threads) {
        py::gil_scoped_release release;
        dispatch_float(itemsize, [&]<class T>(T) {
            cpu::forces<T>(rows(by_receiver), rows(by_sender), pointer<const T>(gradients), pointer<double>(out),
                           {n_threads});
        });
    });
}

}  // namespace mdgnn
