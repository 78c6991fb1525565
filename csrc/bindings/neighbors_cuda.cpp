// The neighbour list of the CUDA module. Arrays are addresses in device memory, checked in Python.
#include "bindings/pybind.hpp"
#include "neighbors/neighbors.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

// itemsize, positions, n_atoms, first, n_structures, cells, pbc
using StructuresTuple = std::tuple<int, Address, std::int64_t, Address, std::int64_t, Address, Address>;
using OptionsTuple = std::tuple<double, bool, bool>;  // cutoff, self_interaction, half
// bytes of indices and of shifts; receivers, senders, shifts, vectors, distances, reverse (0: not wanted)
using EdgesTuple = std::tuple<int, int, Address, Address, Address, Address, Address, Address>;

template <class T>
Structures<T> structures_of(const StructuresTuple& t) {
    return {{pointer<const T>(std::get<1>(t)), std::get<2>(t), 3},
            pointer<const std::int64_t>(std::get<3>(t)),
            std::get<4>(t),
            pointer<const T>(std::get<5>(t)),
            pointer<const bool>(std::get<6>(t))};
}

template <class T>
NeighborOptions<T> options_of(const OptionsTuple& t) {
    return {static_cast<T>(std::get<0>(t)), std::get<1>(t), std::get<2>(t), 1};
}

template <class T>
EdgeArrays<T> edges_of(const EdgesTuple& t) {
    const auto [index_bytes, shift_bytes, receivers, senders, shifts, vectors, distances, reverse] = t;
    if ((index_bytes != 4 && index_bytes != 8) || (shift_bytes != 4 && shift_bytes != 8))
        throw std::invalid_argument("expected indices and shifts of 4 or 8 bytes");
    EdgeArrays<T> out;
    if (index_bytes == 8) {
        out.receivers = pointer<std::int64_t>(receivers);
        out.senders = pointer<std::int64_t>(senders);
        out.reverse = pointer<std::int64_t>(reverse);
    } else {
        out.receivers32 = pointer<std::int32_t>(receivers);
        out.senders32 = pointer<std::int32_t>(senders);
        out.reverse32 = pointer<std::int32_t>(reverse);
    }
    if (shift_bytes == 8)
        out.shifts = pointer<std::int64_t>(shifts);
    else
        out.shifts32 = pointer<std::int32_t>(shifts);
    out.vectors = pointer<T>(vectors);
    out.distances = pointer<T>(distances);
    return out;
}

}  // namespace

void bind_neighbors_cuda(py::module_& m) {
    m.def("neighbor_workspace", [](int itemsize, std::int64_t n_atoms, std::int64_t n_structures) {
        std::int64_t bytes = 0;
        dispatch_float(itemsize, [&]<class T>(T) { bytes = cuda::neighbor_workspace<T>(n_atoms, n_structures); });
        return bytes;
    });
    m.def("neighbors_count", [](const StructuresTuple& structures, const OptionsTuple& options, Address workspace,
                                std::int64_t capacity, Address row_ptr, Address status, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(structures), [&]<class T>(T) {
            cuda::neighbors_count<T>(structures_of<T>(structures), options_of<T>(options), pointer<void>(workspace),
                                     capacity, pointer<std::int64_t>(row_ptr), pointer<cuda::NeighborStatus>(status),
                                     context(where));
        });
    });
    m.def("neighbors_fill", [](const StructuresTuple& structures, const OptionsTuple& options, Address workspace,
                               Address row_ptr, const EdgesTuple& edges, const ContextTuple& where) {
        py::gil_scoped_release release;
        dispatch_float(std::get<0>(structures), [&]<class T>(T) {
            cuda::neighbors_fill<T>(structures_of<T>(structures), options_of<T>(options), pointer<void>(workspace),
                                    pointer<const std::int64_t>(row_ptr), edges_of<T>(edges), context(where));
        });
    });
    // What a status says; the kernels do not bring the offending numbers along.
    m.def("neighbor_error", [](std::int64_t code, std::int64_t where, double cutoff) {
        const auto reason = static_cast<NeighborCode>(code);
        return neighbor_error(reason, where, cutoff,
                              reason == NeighborCode::position ? "infinity or nan" : "more than a hundred million");
    });
}

}  // namespace mdgnn
