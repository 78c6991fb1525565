#include "core/bind.hpp"

#include "ops/silu/silu.hpp"

namespace py = pybind11;

namespace mdgnn {

void bind_silu(py::module_& m) {
    m.def("silu", [](int itemsize, std::int64_t n, Address x, Address y, int n_threads) {
        py::gil_scoped_release release;
        dispatch_float(itemsize, [&]<class T>(T) { cpu::silu(n, pointer<const T>(x), pointer<T>(y), {n_threads}); });
    });
    m.def("silu_backward", [](int itemsize, std::int64_t n, Address grad, Address x, Address out, int n_threads) {
        py::gil_scoped_release release;
        dispatch_float(itemsize, [&]<class T>(T) {
            cpu::silu_backward(n, pointer<const T>(grad), pointer<const T>(x), pointer<T>(out), {n_threads});
        });
    });
    m.def("silu_double_backward",
          [](int itemsize, std::int64_t n, Address a, Address grad, Address x, Address out, int n_threads) {
              py::gil_scoped_release release;
              dispatch_float(itemsize, [&]<class T>(T) {
                  cpu::silu_double_backward(n, pointer<const T>(a), pointer<const T>(grad), pointer<const T>(x),
                                            pointer<T>(out), {n_threads});
              });
          });
}

}  // namespace mdgnn
