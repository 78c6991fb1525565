#include "bindings/pybind.hpp"

#include <pybind11/stl.h>

#include <variant>

#include "ops/csr/csr.hpp"
#include "engine/engine.hpp"
#include "engine/file.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

using namespace engine;

using ValueTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;  // blocks, cols, base, first
using InstructionTuple =
    std::tuple<std::string, std::vector<int>, std::vector<int>, std::vector<int>, double>;  // ..., constant
// energies, scale, shift, element_of, cutoff
using ReadOutTuple = std::tuple<int, std::vector<double>, std::vector<double>, std::vector<std::int64_t>, double>;

template <class T>
Program<T> program_of(const std::vector<ValueTuple>& values, const std::vector<InstructionTuple>& instructions,
                      const std::vector<py::array>& weights, const ReadOutTuple& read_out) {
    Program<T> p;
    for (const auto& [blocks, cols, base, first] : values) p.values.push_back({blocks, cols, base, first});
    for (const auto& [name, inputs, outputs, of, constant] : instructions)
        p.instructions.push_back({code_of(name), inputs, outputs, of, constant});
    for (const py::array& given : weights) {
        const auto w = py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(given);
        if (!w) throw std::invalid_argument("expected weights that are numbers");
        p.weights.push_back({{w.shape(), w.shape() + w.ndim()}, {w.data(), w.data() + w.size()}});
    }
    std::tie(p.energies, p.scale, p.shift, p.element_of, p.cutoff) = read_out;
    return p;
}

// For float32 or float64.
class AnyEngine {
  public:
    AnyEngine(int itemsize, const std::vector<ValueTuple>& values, const std::vector<InstructionTuple>& instructions,
              const std::vector<py::array>& weights, const ReadOutTuple& read_out) {
        dispatch_float(itemsize, [&]<class T>(T) {
            engine_ = std::make_unique<Engine<T>>(program_of<T>(values, instructions, weights, read_out));
        });
    }

    explicit AnyEngine(std::variant<Program<float>, Program<double>> program) {
        std::visit([&]<class T>(Program<T>& p) { engine_ = std::make_unique<Engine<T>>(std::move(p)); }, program);
    }

    // What the file holds, and the readout.
    static std::pair<std::unique_ptr<AnyEngine>, std::string> load(const std::string& path) {
        py::gil_scoped_release release;
        Model model = load_model(path);
        return {std::make_unique<AnyEngine>(std::move(model.program)), std::move(model.readout)};
    }

    // What the first constructor takes.
    py::tuple program() const {
        return std::visit([](const auto& engine) { return arguments(engine->program()); }, engine_);
    }

    // energies (N), forces (N, 3) or None, virials (N, 3, 3) or None. Addresses of columns and share may be 0.
    py::tuple run(const py::array_t<std::int64_t, py::array::c_style>& numbers,
                  const py::array_t<std::int64_t, py::array::c_style>& row_ptr,
                  const py::array_t<std::int64_t, py::array::c_style>& senders, const RowsTuple& columns,
                  const py::array_t<double, py::array::c_style>& vectors, Address share, bool forces, bool virials,
                  int n_threads, const py::object& exchange) {
        const std::int64_t n = numbers.size(), n_edges = senders.size();
        Structure structure;
        structure.atomic_numbers = numbers.data();
        structure.rows = {row_ptr.data(), senders.data(), nullptr, n};
        structure.columns = rows(columns);
        structure.vectors = vectors.data(), structure.share = pointer<const double>(share);
        if (!exchange.is_none())
            structure.exchange = [&](std::int64_t number, bool backwards, void* rows, std::int64_t cols) {
                py::gil_scoped_acquire acquire;
                exchange(number, backwards, numbers_at(rows, n, cols));
            };
        if (row_ptr.size() != n + 1 || vectors.size() != 3 * n_edges || numbers.ndim() != 1 ||
            cpu::count_values(structure.rows, n_edges) > n)
            throw std::invalid_argument("expected edges of " + std::to_string(n) + " atoms");
        if (virials && !forces) throw std::invalid_argument("expected forces to be wanted where virials are");
        py::array_t<double> e(n), f, v;
        Outputs out{e.mutable_data(), nullptr, nullptr};
        if (forces) f = py::array_t<double>({n, std::int64_t{3}}), out.forces = f.mutable_data();
        if (virials) v = py::array_t<double>({n, std::int64_t{3}, std::int64_t{3}}), out.virials = v.mutable_data();
        {
            py::gil_scoped_release release;
            std::visit([&](const auto& engine) { engine->run(structure, out, {n_threads, 0, nullptr}); }, engine_);
        }
        return py::make_tuple(e, forces ? py::object(f) : py::none(), virials ? py::object(v) : py::none());
    }

  private:
    template <class T>
    static py::tuple arguments(const Program<T>& p) {
        std::vector<ValueTuple> values;
        for (const Value& v : p.values) values.emplace_back(v.blocks, v.cols, v.base, v.first);
        std::vector<InstructionTuple> instructions;
        for (const Instruction& in : p.instructions)
            instructions.emplace_back(name_of(in.code), in.inputs, in.outputs, in.weights, in.constant);
        py::list weights;
        for (const Weight<T>& w : p.weights) weights.append(py::array_t<T>(w.shape, w.data.data()));
        return py::make_tuple(sizeof(T), values, instructions, weights,
                              ReadOutTuple{p.energies, p.scale, p.shift, p.element_of, p.cutoff});
    }

    // An array of what stands there.
    py::array numbers_at(void* rows, std::int64_t n, std::int64_t cols) const {
        return std::visit(
            [&]<class T>(const std::unique_ptr<Engine<T>>&) -> py::array {
                return py::array_t<T>({n, cols}, static_cast<T*>(rows), py::none());
            },
            engine_);
    }

    std::variant<std::unique_ptr<Engine<float>>, std::unique_ptr<Engine<double>>> engine_;
};

}  // namespace

void bind_engine(py::module_& m) {
    py::class_<AnyEngine>(m, "Engine")
        .def(py::init<int, const std::vector<ValueTuple>&, const std::vector<InstructionTuple>&,
                      const std::vector<py::array>&, const ReadOutTuple&>())
        .def_static("load", &AnyEngine::load, py::arg("path"))
        .def("program", &AnyEngine::program)
        .def("run", &AnyEngine::run, py::arg("numbers"), py::arg("row_ptr"), py::arg("senders"), py::arg("columns"),
             py::arg("vectors"), py::arg("share"), py::arg("forces"), py::arg("virials"), py::arg("n_threads"),
             py::arg("exchange") = py::none());
}

}  // namespace mdgnn
