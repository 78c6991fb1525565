// The CPU extension. Few files include pybind11, whose headers take several seconds each.
#include <pybind11/stl.h>

#include <array>
#include <utility>
#include <vector>

#include "bindings/ops.hpp"
#include "bindings/pybind.hpp"
#include "ops/adam/adam.hpp"
#include "ops/csr/csr.hpp"
#include "ops/csr/select.hpp"
#include "ops/simple_gnn/simple_gnn.hpp"

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

// Addresses of arrays, 0 where one is absent.
template <class T>
std::vector<T*> pointers(const std::vector<Address>& addresses) {
    std::vector<T*> out;
    for (const Address address : addresses) out.push_back(pointer<T>(address));
    return out;
}

// rows and columns; sizes A, F, E, B; types, embedding, features, envelope, shift, scale.
using NetworkTuple = std::tuple<RowsTuple, RowsTuple, std::array<std::int64_t, 4>, std::array<Address, 6>>;

template <class T>
SimpleGnn<T> simple_gnn_of(const NetworkTuple& given, const std::vector<Address>& weights) {
    const auto& [by_receiver, by_sender, sizes, arrays] = given;
    const auto [n_types, width, n_edges, n_basis] = sizes;
    const auto [types, embedding, features, envelope, shift, scale] = arrays;
    return {rows(by_receiver),
            rows(by_sender),
            pointer<const std::int64_t>(types),
            {pointer<const T>(embedding), n_types, width},
            {pointer<const T>(features), n_edges, n_basis},
            pointer<const T>(envelope),
            pointer<const double>(shift),
            pointer<const double>(scale),
            pointers<const T>(weights)};
}

void bind_simple_gnn(pybind11::module_& m) {
    m.def("simple_gnn_saved", &cpu::simple_gnn_saved);
    m.def("simple_gnn", [](int itemsize, const NetworkTuple& network, const std::vector<Address>& weights, Address h,
                           Address energies, Address saved, bool needs_grad, int n_threads) {
        dispatch_float(itemsize, [&](auto zero) {
            using T = decltype(zero);
            const SimpleGnn<T> op = simple_gnn_of<T>(network, weights);
            const pybind11::gil_scoped_release release;
            cpu::simple_gnn<T>(op, pointer<T>(h), pointer<double>(energies), pointer<T>(saved), needs_grad,
                               Context{n_threads});
        });
    });
    // `results`: h, its gradient and that of the energies; `out`: the gradients of embedding, features and envelope,
    // then those of the weights; each may be absent.
    m.def("simple_gnn_backward",
          [](int itemsize, const NetworkTuple& network, const std::vector<Address>& weights,
             const std::array<Address, 3>& results, Address saved, const std::array<Address, 3>& out,
             const std::vector<Address>& out_weights, int n_threads) {
              dispatch_float(itemsize, [&](auto zero) {
                  using T = decltype(zero);
                  const SimpleGnn<T> op = simple_gnn_of<T>(network, weights);
                  const SimpleGnnGradients<T> gradients{pointer<T>(out[0]), pointer<T>(out[1]), pointer<T>(out[2]),
                                                        pointers<T>(out_weights)};
                  const pybind11::gil_scoped_release release;
                  cpu::simple_gnn_backward<T>(op, pointer<const T>(results[0]), pointer<const T>(results[1]),
                                              pointer<const double>(results[2]), pointer<const T>(saved), gradients,
                                              Context{n_threads});
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
    mdgnn::bind_simple_gnn(m);
    mdgnn::bind_engine(m);
    mdgnn::bind_dynamics(m);
    mdgnn::bind_neighbors(m);
}
