// The CPU extension. Few files include pybind11, whose headers take several seconds each.
#include <utility>
#include <vector>

#include "bindings/ops.hpp"
#include "bindings/pybind.hpp"
#include "ops/adam/adam.hpp"
#include "ops/csr/csr.hpp"
#include "ops/csr/select.hpp"

namespace mdgnn {

void bind_dynamics(pybind11::module_&);
void bind_engine(pybind11::module_&);
void bind_neighbors(pybind11::module_&);

namespace {

void bind_csr(pybind11::module_& m) {
    m.def("counting_sort",
          [](Address index, std::int64_t n_edges, std::int64_t n_rows, Address row_ptr, Address order) {
              pybind11::gil_scoped_release release;
              cpu::counting_sort(pointer<const std::int64_t>(index), n_edges, n_rows, pointer<std::int64_t>(row_ptr),
                                 pointer<std::int64_t>(order));
          });
    m.def("count_values",
          [](const RowsTuple& of, std::int64_t n_entries) { return cpu::count_values(rows(of), n_entries); });
}

// The structures of a batch: first atoms, their number, rows, columns; what was chosen of them: numbers, how many.
using StructuresTuple = std::tuple<Address, std::int64_t, RowsTuple, RowsTuple>;
using ChosenTuple = std::tuple<Address, std::int64_t>;

cpu::Structures structures(const StructuresTuple& t) {
    return {pointer<const std::int64_t>(std::get<0>(t)), std::get<1>(t), rows(std::get<2>(t)), rows(std::get<3>(t))};
}

cpu::Chosen chosen(const ChosenTuple& t) { return {pointer<const std::int64_t>(std::get<0>(t)), std::get<1>(t)}; }

void bind_selection(pybind11::module_& m) {
    m.def("selection_size", [](const StructuresTuple& all, const ChosenTuple& some) {
        return cpu::selection_size(structures(all), chosen(some));
    });
    // The arrays of the result follow upon each other in `out`, in the order of cpu::Selection.
    m.def("select_structures", [](const StructuresTuple& all, const ChosenTuple& some, std::int64_t n_atoms,
                                  std::int64_t n_edges, Address out) {
        auto* place = pointer<std::int64_t>(out);
        const auto next = [&](std::int64_t n) { return std::exchange(place, place + n); };
        cpu::Selection to;
        to.first_atom = next(std::get<1>(some) + 1);
        to.atoms = next(n_atoms), to.structure = next(n_atoms), to.edges = next(n_edges);
        to.row_ptr = next(n_atoms + 1), to.senders = next(n_edges);
        to.col_ptr = next(n_atoms + 1), to.receivers = next(n_edges), to.edge = next(n_edges);
        cpu::select_structures(structures(all), chosen(some), to);
    });
}

// `table`: of each parameter the addresses of AdamParameter, in its order, and its size; int64, one after another.
void bind_adam(pybind11::module_& m) {
    m.def("adam_step", [](int itemsize, Address table, std::size_t n_parameters, double lr, double beta_1,
                          double beta_2, double eps, double weight_decay, bool decoupled) {
        dispatch_float(itemsize, [&](auto zero) {
            using T = decltype(zero);
            const auto* given = pointer<const std::int64_t>(table);
            std::vector<cpu::AdamParameter<T>> parameters(n_parameters);
            const auto next = [&] { return static_cast<Address>(*given++); };
            for (auto& p : parameters) {
                p.values = pointer<T>(next()), p.grad = pointer<const T>(next());
                p.mean = pointer<T>(next()), p.mean_square = pointer<T>(next());
                p.max_mean_square = pointer<T>(next());
                p.step = pointer<float>(next()), p.size = *given++;
            }
            cpu::adam_step(parameters, {lr, beta_1, beta_2, eps, weight_decay, decoupled});
        });
    });
}

}  // namespace
}  // namespace mdgnn

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled kernels of mdgnn for the CPU";
    mdgnn::bindings::add_ops(m.ptr());
    mdgnn::bind_csr(m);
    mdgnn::bind_selection(m);
    mdgnn::bind_adam(m);
    mdgnn::bind_engine(m);
    mdgnn::bind_dynamics(m);
    mdgnn::bind_neighbors(m);
}
