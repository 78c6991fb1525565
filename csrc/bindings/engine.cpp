#include "bindings/engine.hpp"

#include <pybind11/stl.h>

#include <variant>

#include "bindings/pybind.hpp"
#include "engine/engine.hpp"
#include "engine/file.hpp"
#include "engine/reader_parts.hpp"
#include "ops/csr/csr.hpp"

namespace py = pybind11;

namespace mdgnn {
namespace {

using namespace engine;

// Arrays of a dict as weights.
template <class T>
WeightSource<T> arrays_of(const py::dict& weights) {
    return [&weights](const std::string& name, const std::string& what) {
        if (!weights.contains(name.c_str()))
            throw std::invalid_argument("expected weight '" + printable(name) + "', of " + what);
        const auto w = py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(weights[name.c_str()]);
        if (!w) throw std::invalid_argument("expected weight '" + printable(name) + "' as numbers");
        return std::pair{std::vector<std::int64_t>(w.shape(), w.shape() + w.ndim()),
                         AlignedVector<T>(w.data(), w.data() + w.size())};
    };
}

Model model_of(const std::string& text, const py::dict& weights) {
    const Json json(text);
    const std::int64_t version = json.root().at("version", "the program").integer("the version");
    if (version < 1 || version > 3)
        throw std::invalid_argument("expected a program of version 1, 2 or 3, got " + std::to_string(version));
    return dtype_of(json.root()) == "float32" ? read_program<float>(json.root(), version, arrays_of<float>(weights))
                                              : read_program<double>(json.root(), version, arrays_of<double>(weights));
}

// For float32 or float64.
class AnyEngine {
  public:
    AnyEngine(const std::string& text, const py::dict& weights, int n_threads)
        : AnyEngine(model_of(text, weights), n_threads) {}

    AnyEngine(Model model, int n_threads) : program_(model.program) {
        std::visit(
            [&]<class T>(Weights<T>& weights) {
                engine_ = std::make_unique<Engine<T>>(std::move(model.program), std::move(weights), n_threads);
            },
            model.weights);
    }

    static std::unique_ptr<AnyEngine> load(const std::string& path, int n_threads) {
        py::gil_scoped_release release;
        return made(load_model(path), path, n_threads);
    }

    static std::unique_ptr<AnyEngine> load_content(std::string content, const std::string& path, int n_threads) {
        py::gil_scoped_release release;
        return made(model_in(std::move(content), path), path, n_threads);
    }

    // What the constructor takes: the text of the program, and its weights by name.
    py::tuple program() const {
        return py::make_tuple(write_program(program_, dtype()), named([](const Weight& w) { return w.table < 0; }));
    }

    const std::string& readout() const { return program_.readout; }
    double cutoff() const { return program_.cutoff; }
    bool has_energy() const { return program_.energies >= 0; }

    // Name and kind of each.
    std::vector<std::pair<std::string, std::string>> properties() const {
        std::vector<std::pair<std::string, std::string>> all;
        for (const Property& p : program_.properties) all.push_back({p.name, p.kind});
        return all;
    }
    const char* dtype() const {
        return std::holds_alternative<std::unique_ptr<Engine<float>>>(engine_) ? "float32" : "float64";
    }

    // Coefficients of tables by name.
    py::dict tables() const {
        return named([](const Weight& w) { return w.table >= 0; });
    }

    void run(const Structure& structure, const Outputs& out, const Context& context) const {
        std::visit([&](const auto& engine) { engine->run(structure, out, context); }, engine_);
    }

    // energies (N) or None, where the model has learnt none, forces (N, 3) or None, virials (N, 3, 3) or None.
    // Addresses of columns and share may be 0. `properties`: None, or (P, N), which is written.
    py::tuple evaluate(const py::array_t<std::int64_t, py::array::c_style>& numbers,
                       const py::array_t<std::int64_t, py::array::c_style>& row_ptr,
                       const py::array_t<std::int64_t, py::array::c_style>& senders, const RowsTuple& columns,
                       const py::array_t<double, py::array::c_style>& vectors, Address share, bool forces, bool virials,
                       int n_threads, const py::object& exchange, const py::object& properties) {
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
        if (virials && !forces) throw std::invalid_argument("expected forces to be asked for where virials are");
        if (forces && !has_energy()) throw std::invalid_argument("the model has learnt no energies");
        Outputs out;
        py::array_t<double> e, f, v;
        if (has_energy()) e = py::array_t<double>(n), out.energies = e.mutable_data();
        if (forces) f = py::array_t<double>({n, std::int64_t{3}}), out.forces = f.mutable_data();
        if (virials) v = py::array_t<double>({n, std::int64_t{3}, std::int64_t{3}}), out.virials = v.mutable_data();
        if (!properties.is_none()) out.properties = room_for_properties(properties, n);
        {
            py::gil_scoped_release release;
            run(structure, out, {n_threads, 0, nullptr});
        }
        return py::make_tuple(has_energy() ? py::object(e) : py::none(), forces ? py::object(f) : py::none(),
                              virials ? py::object(v) : py::none());
    }

  private:
    static std::unique_ptr<AnyEngine> made(Model model, const std::string& path, int n_threads) {
        return within(printable(path, path.size()) + " holds weights that make no finite table",
                      [&] { return std::make_unique<AnyEngine>(std::move(model), n_threads); });
    }

    double* room_for_properties(const py::object& given, std::int64_t n) const {
        using Array = py::array_t<double, py::array::c_style>;
        const std::int64_t n_properties = static_cast<std::int64_t>(program_.properties.size());
        if (!Array::check_(given)) throw std::invalid_argument("expected properties as an array of float64 in C order");
        Array array = py::reinterpret_borrow<Array>(given);
        if (array.ndim() != 2 || array.shape(0) != n_properties || array.shape(1) != n)
            throw std::invalid_argument("expected an array of shape (" + std::to_string(n_properties) + ", " +
                                        std::to_string(n) + ") for properties");
        return array.mutable_data();
    }

    template <class Filter>
    py::dict named(const Filter& filter) const {
        py::dict out;
        std::visit(
            [&]<class T>(const std::unique_ptr<Engine<T>>& engine) {
                for (std::size_t w = 0; w < program_.weights.size(); ++w)
                    if (filter(program_.weights[w]))
                        out[py::str(program_.weights[w].name)] =
                            py::array_t<T>(program_.weights[w].shape, engine->weights()[w].data());
            },
            engine_);
        return out;
    }

    // An array of what stands there.
    py::array numbers_at(void* rows, std::int64_t n, std::int64_t cols) const {
        return std::visit(
            [&]<class T>(const std::unique_ptr<Engine<T>>&) -> py::array {
                return py::array_t<T>({n, cols}, static_cast<T*>(rows), py::none());
            },
            engine_);
    }

    Program program_;  // as given
    std::variant<std::unique_ptr<Engine<float>>, std::unique_ptr<Engine<double>>> engine_;
};

}  // namespace

RunEngine run_of(const py::object& engine) {
    const AnyEngine& any = engine.cast<const AnyEngine&>();
    if (!any.has_energy()) throw std::invalid_argument("the model has learnt no energies");
    return [&any](const Structure& structure, const Outputs& out, const Context& context) {
        any.run(structure, out, context);
    };
}

void bind_engine(py::module_& m) {
    py::class_<AnyEngine>(m, "Engine")
        .def(py::init<const std::string&, const py::dict&, int>(), py::arg("program"), py::arg("weights"),
             py::arg("n_threads") = 1)
        .def_static("load", &AnyEngine::load, py::arg("path"), py::arg("n_threads") = 1)
        .def_static("load_content", &AnyEngine::load_content, py::arg("content"), py::arg("path"),
                    py::arg("n_threads") = 1)
        .def_property_readonly("readout", &AnyEngine::readout)
        .def_property_readonly("cutoff", &AnyEngine::cutoff)
        .def_property_readonly("dtype", &AnyEngine::dtype)
        .def_property_readonly("has_energy", &AnyEngine::has_energy)
        .def_property_readonly("properties", &AnyEngine::properties)
        .def("program", &AnyEngine::program)
        .def("tables", &AnyEngine::tables)
        .def("run", &AnyEngine::evaluate, py::arg("numbers"), py::arg("row_ptr"), py::arg("senders"),
             py::arg("columns"), py::arg("vectors"), py::arg("share"), py::arg("forces"), py::arg("virials"),
             py::arg("n_threads"), py::arg("exchange") = py::none(), py::arg("properties") = py::none());
}

}  // namespace mdgnn
