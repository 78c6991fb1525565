// The neighbour list of the CUDA module: its kernels by named arguments, as those of ops.
#include "bindings/call.hpp"
#include "bindings/pybind.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn {

void bind_neighbors_cuda(pybind11::module_& m) {
    const bindings::Shapes shapes = {
        {"positions", "N 3"}, {"first", "S+1"},    {"n_structures", "S"}, {"cells", "S 3 3"},
        {"pbc", "S 3"},       {"row_ptr", "N+1"},  {"status", "3"},       {"receivers", "E"},
        {"senders", "E"},     {"reverse", "E"},    {"receivers32", "E"},  {"senders32", "E"},
        {"reverse32", "E"},   {"shifts32", "E 3"}, {"vectors", "E 3"},    {"distances", "E"}};
    bindings::add<&cuda::neighbors_count<float>, &cuda::neighbors_count<double>>(
        m.ptr(), "neighbors_count", {"", "", "workspace", "capacity", "row_ptr", "status"}, shapes);
    bindings::add<&cuda::neighbors_fill<float>, &cuda::neighbors_fill<double>>(
        m.ptr(), "neighbors_fill", {"", "", "workspace", "row_ptr", ""}, shapes);
    m.def("neighbor_workspace", [](int itemsize, std::int64_t n_atoms, std::int64_t n_structures) {
        std::int64_t bytes = 0;
        dispatch_float(itemsize, [&]<class T>(T) { bytes = cuda::neighbor_workspace<T>(n_atoms, n_structures); });
        return bytes;
    });
    // What a status says; the kernels do not bring the offending numbers along.
    m.def("neighbor_error", [](std::int64_t code, std::int64_t where, double cutoff) {
        const auto reason = static_cast<NeighborCode>(code);
        return neighbor_error(reason, where, cutoff,
                              reason == NeighborCode::position ? "infinity or nan" : "more than a hundred million");
    });
}

}  // namespace mdgnn
