#include "core/bind.hpp"

#include "ops/polar/polar.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

using OpTuple = std::tuple<int, Address, std::int64_t>;  // itemsize, vectors, n_edges
using Pair = std::tuple<Address, Address>;               // of lengths and directions

template <class T>
cpu::PolarPair<T> pair_of(const Pair& pair) {
    return {pointer<T>(std::get<0>(pair)), pointer<T>(std::get<1>(pair))};
}

}  // namespace

void bind_polar(py::module_& m) {
    m.def("polar", [](const OpTuple& op, const Pair& out, int n_threads) {
        py::gil_scoped_release release;
        const auto [itemsize, vectors, n_edges] = op;
        dispatch_float(itemsize, [&, vectors = vectors, n_edges = n_edges]<class T>(T) {
            const auto results = pair_of<T>(out);
            cpu::polar<T>(pointer<const T>(vectors), n_edges, results.lengths, results.directions, {n_threads});
        });
    });
    m.def("polar_backward", [](const OpTuple& op, const Pair& grad, Address out, int n_threads) {
        py::gil_scoped_release release;
        const auto [itemsize, vectors, n_edges] = op;
        dispatch_float(itemsize, [&, vectors = vectors, n_edges = n_edges]<class T>(T) {
            cpu::polar_backward<T>(pointer<const T>(vectors), n_edges, pair_of<const T>(grad), pointer<T>(out),
                                   {n_threads});
        });
    });
    m.def("polar_double_backward", [](const OpTuple& op, Address grad2, const Pair& grad, const Pair& out_grad,
                                      Address out, int n_threads) {
        py::gil_scoped_release release;
        const auto [itemsize, vectors, n_edges] = op;
        dispatch_float(itemsize, [&, vectors = vectors, n_edges = n_edges]<class T>(T) {
            cpu::polar_double_backward<T>(pointer<const T>(vectors), n_edges, pointer<const T>(grad2),
                                          pair_of<const T>(grad), pair_of<T>(out_grad), pointer<T>(out), {n_threads});
        });
    });
}

}  // namespace mdgnn
