#include "engine/file.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "engine/json.hpp"
#include "engine/safetensors.hpp"

namespace mdgnn::engine {
namespace {

constexpr std::int64_t kFormat = 2, kProgram = 1;  // versions
// Of a list in a program. Places of arrays are planned in a time that grows with the square of their number.
constexpr std::size_t kLongest = 4096;

// f(), whose complaint is put behind words that say where.
template <class F>
auto within(const std::string& words, F&& f) {
    try {
        return f();
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(words + " (" + error.what() + ")");
    }
}

std::vector<JsonValue> list(const JsonValue& value, const std::string& what) {
    std::vector<JsonValue> items = value.items(what);
    if (items.size() > kLongest)
        throw std::invalid_argument("expected " + what + " with at most " + std::to_string(kLongest) +
                                    " entries, got " + std::to_string(items.size()));
    return items;
}

std::vector<std::int64_t> integers(const JsonValue& value, const std::string& what) {
    std::vector<std::int64_t> found;
    for (const JsonValue& item : list(value, what)) found.push_back(item.integer("an entry of " + what));
    return found;
}

std::vector<double> numbers(const JsonValue& value, const std::string& what) {
    std::vector<double> found;
    for (const JsonValue& item : list(value, what)) found.push_back(item.number("an entry of " + what));
    return found;
}

// The number of an array; whether there is one of that number is left to `check`.
int array_number(std::int64_t n, const std::string& what) {
    if (n < 0 || n > std::numeric_limits<int>::max())
        throw std::invalid_argument("expected " + what + " as the number of an array, got " + std::to_string(n));
    return static_cast<int>(n);
}

std::vector<int> array_numbers(const JsonValue& value, const std::string& what) {
    std::vector<int> found;
    for (const std::int64_t n : integers(value, what)) found.push_back(array_number(n, "an entry of " + what));
    return found;
}

template <class T>
class ProgramReader {
  public:
    explicit ProgramReader(Safetensors& file) : file_(file) {}

    Program<T> read(const JsonValue& from) {
        const auto [version, dtype, readout, cutoff, values, instructions, energies, scale, shift, element_of] =
            from.entries<10>({"version", "dtype", "readout", "cutoff", "values", "instructions", "energies", "scale",
                              "shift", "element_of"},
                             "the program");
        p_.cutoff = cutoff.is_null() ? std::numeric_limits<double>::infinity() : cutoff.number("the cutoff");
        for (const JsonValue& value : list(values, "the arrays")) {
            const std::string what = "array " + std::to_string(p_.values.size());
            const std::vector<std::int64_t> v = integers(value, what);
            if (v.size() != 4) throw std::invalid_argument("expected " + what + " as four numbers");
            p_.values.push_back({v[0], v[1], v[2], v[3]});
        }
        for (const JsonValue& value : list(instructions, "the instructions")) read_instruction(value);
        p_.energies = array_number(energies.integer("the energies"), "the energies");
        p_.scale = numbers(scale, "the scale"), p_.shift = numbers(shift, "the shift");
        p_.element_of = integers(element_of, "the elements");
        check(p_);
        return std::move(p_);
    }

  private:
    void read_instruction(const JsonValue& from) {
        const std::string what = "instruction " + std::to_string(p_.instructions.size());
        const auto [code, inputs, outputs, weights, constant] =
            from.entries<5>({"code", "inputs", "outputs", "weights", "constant"}, what);
        Instruction in;
        in.code = within(what, [&] { return code_of(printable(code.string("its code"))); });
        in.inputs = array_numbers(inputs, "the inputs of " + what);
        in.outputs = array_numbers(outputs, "the outputs of " + what);
        for (const JsonValue& name : list(weights, "the weights of " + what)) {
            in.weights.push_back(static_cast<int>(p_.weights.size()));
            p_.weights.push_back(weight(name.string("a weight of " + what), what));
        }
        in.constant = constant.number("the constant of " + what);
        p_.instructions.push_back(std::move(in));
    }

    Weight<T> weight(const std::string& name, const std::string& what) {
        const std::string tensor_name = "tensor '" + printable(name) + "'";
        const auto found = file_.tensors().find(name);
        if (found == file_.tensors().end())
            throw std::invalid_argument("expected " + tensor_name + " in the file, a weight of " + what);
        // Else a file could ask for many times its size.
        if (!taken_.insert(name).second)
            throw std::invalid_argument("expected every tensor in one place, got " + tensor_name + " again in " + what);
        const char* const dtype = std::is_same_v<T, float> ? "F32" : "F64";
        if (found->second.dtype != dtype)
            throw std::invalid_argument("expected " + tensor_name + " as " + dtype + ", got " + found->second.dtype);
        Weight<T> w{found->second.shape, file_.read<T>(found->second)};
        for (const T x : w.data)
            if (!std::isfinite(x)) throw std::invalid_argument("expected finite numbers in " + tensor_name);
        return w;
    }

    Safetensors& file_;
    Program<T> p_;
    std::set<std::string> taken_;
};

Model program_of(const JsonValue& from, Safetensors& file) {
    Model model;
    model.readout = from.at("readout", "the program").string("the readout");
    if (model.readout != "sum" && model.readout != "mean")
        throw std::invalid_argument("expected readout 'sum' or 'mean', got '" + printable(model.readout) + "'");
    const std::string dtype = from.at("dtype", "the program").string("the dtype");
    if (dtype == "float32") {
        model.program = ProgramReader<float>(file).read(from);
    } else if (dtype == "float64") {
        model.program = ProgramReader<double>(file).read(from);
    } else {
        throw std::invalid_argument("expected dtype 'float32' or 'float64', got '" + printable(dtype) + "'");
    }
    return model;
}

Model read(std::istream& in, std::uint64_t size, const std::string& name) {
    Safetensors file = within(name + " is not a complete safetensors file", [&] { return Safetensors(in, size); });
    const auto entry = file.metadata().find("mdgnn");
    if (entry == file.metadata().end())
        throw std::invalid_argument(name + " is a safetensors file, but not an mdgnn model: it has no mdgnn header");
    const std::string broken = name + " has a broken mdgnn header", bad = name + " has a program that does not fit";
    const Json json = within(broken, [&] { return Json(entry->second); });
    const auto integer = [](const JsonValue& of, const char* key, const char* what) {
        return of.at(key, what).integer(std::string("the ") + key);
    };
    const std::int64_t format = within(broken, [&] { return integer(json.root(), "format_version", "the header"); });
    if (format != kFormat)
        throw std::invalid_argument(name + " has model format " + std::to_string(format) +
                                    ", the engine reads format " + std::to_string(kFormat) +
                                    (format == 1 ? ", which mdgnn.save writes" : ""));
    for (const auto& [key, program] : json.root().members("the header")) {
        if (key != "program" || program.is_null()) continue;
        const std::int64_t version = within(bad, [&] { return integer(program, "version", "the program"); });
        if (version != kProgram)
            throw std::invalid_argument(name + " has a program of version " + std::to_string(version) +
                                        ", this mdgnn reads version " + std::to_string(kProgram));
        return within(bad, [&] { return program_of(program, file); });
    }
    throw std::invalid_argument(name + " holds no program: the engine cannot run its model");
}

}  // namespace

Model read_model(std::istream& in, std::uint64_t size, const std::string& name) {
    try {
        return read(in, size, name);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(name + " " + error.what());
    }
}

Model load_model(const std::string& path) {
    const std::string name = printable(path, path.size());
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) throw std::runtime_error(name + " is not a file");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    std::ifstream in(path, std::ios::binary);
    if (error || !in) throw std::runtime_error(name + " cannot be read");
    return read_model(in, size, name);
}

}  // namespace mdgnn::engine
