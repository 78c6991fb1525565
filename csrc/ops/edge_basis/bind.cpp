#include "core/bind.hpp"

#include "ops/edge_basis/edge_basis.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

// itemsize, vectors, n_edges, centers, n_basis, sharpness
using OpTuple = std::tuple<int, Address, std::int64_t, Address, std::int64_t, double>;

template <class T>
EdgeBasis<T> edge_basis_of(const OpTuple& t) {
    return {pointer<const T>(std::get<1>(t)), std::get<2>(t), pointer<const T>(std::get<3>(t)), std::get<4>(t),
            static_cast<T>(std::get<5>(t))};
}

}  // namespace

void bind_edge_basis(py::module_& m) {
    m.def("edge_basis", [](const OpTuple& op, Address distances, Address basis, int n_threads) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(op), [&]<class T>(T) {
            cpu::edge_basis<T>(edge_basis_of<T>(op), pointer<T>(distances), pointer<T>(basis), {n_threads});
        });
    });
    m.def("edge_basis_backward",
          [](const OpTuple& op, Address grad_distances, Address grad_basis, Address grad_vectors, int n_threads) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  cpu::edge_basis_backward<T>(edge_basis_of<T>(op), pointer<const T>(grad_distances),
                                              pointer<const T>(grad_basis), pointer<T>(grad_vectors), {n_threads});
              });
          });
    m.def("edge_basis_double_backward",
          [](const OpTuple& op, Address grad2, Address grad_distances, Address grad_basis, Address out_distances,
             Address out_basis, Address out_vectors, int n_threads) {
              py::gil_scoped_release release;
              dispatch_float(std::get<0>(op), [&]<class T>(T) {
                  cpu::edge_basis_double_backward<T>(edge_basis_of<T>(op), pointer<const T>(grad2),
                                                     pointer<const T>(grad_distances), pointer<const T>(grad_basis),
                                                     pointer<T>(out_distances), pointer<T>(out_basis),
                                                     pointer<T>(out_vectors), {n_threads});
              });
          });
}

}  // namespace mdgnn
