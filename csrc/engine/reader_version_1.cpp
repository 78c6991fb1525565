// Programs of version 1, which model files of format 2 have, translated to version 2. There,
//   values        [[blocks, cols, base, first], ...]: arrays of one or three components, and columns of others
//   instructions  [{"code", "inputs", "outputs", "weights", "constant"}, ...]
// take the places of arrays, instructions and tables: coefficients of tables are weights. Results are the same to
// rounding: a root, which adds its constant first, becomes add_constant and sqrt.
#include <map>
#include <set>

#include "engine/instructions/all.hpp"
#include "engine/reader_parts.hpp"

namespace mdgnn::engine {
namespace {

// Names that have changed since, and instructions that took a constant.
const std::map<std::string, std::string> kRenamed = {
    {"plus", "add_constant"}, {"at_least", "clamp_min"}, {"root", "sqrt"}, {"scale_vectors", "multiply"}};
const std::set<std::string> kOthers = {
    "embed",  "zeros", "linear",           "add",    "multiply",      "dot",
    "divide", "silu",  "shifted_softplus", "cfconv", "painn_message", "concat_message_table"};

template <class T>
class Version1Reader {
  public:
    explicit Version1Reader(const WeightSource<T>& source) : weights_(p_, source) {}

    Model read(const JsonValue& from) {
        const auto [version, dtype, readout, cutoff, values, instructions, energies, scale, shift, element_of] =
            from.entries<10>({"version", "dtype", "readout", "cutoff", "values", "instructions", "energies", "scale",
                              "shift", "element_of"},
                             "the program");
        p_.readout = readout_of(readout), p_.cutoff = cutoff_of(cutoff);
        for (const JsonValue& value : list(values, "the arrays")) read_array(value);
        n_arrays_ = p_.arrays.size();
        for (const JsonValue& value : list(instructions, "the instructions")) read_instruction(value);
        p_.energies = array_number(energies.integer("the energies"), "the energies");
        p_.scale = numbers(scale, "the scale"), p_.shift = numbers(shift, "the shift");
        p_.element_of = integers(element_of, "the elements");
        check(p_);
        check_saved();
        return {std::move(p_), std::move(weights_.weights)};
    }

  private:
    void read_array(const JsonValue& from) {
        const std::string what = "array " + std::to_string(p_.arrays.size());
        const std::vector<std::int64_t> v = integers(from, what);
        if (v.size() != 4) throw std::invalid_argument("expected " + what + " as four numbers");
        const bool good = (v[0] == 1 || v[0] == 3) && v[2] >= -1 && v[2] <= static_cast<std::int64_t>(kLongest) &&
                          (v[2] != -1 || v[3] == 0);
        if (!good) throw std::invalid_argument(what + " of the model's program has a bad shape");
        p_.arrays.push_back({Space::atom, {v[0], v[1]}, static_cast<int>(v[2]), 0, v[3]});
    }

    void read_instruction(const JsonValue& from) {
        const std::string what = "instruction " + std::to_string(n_instructions_++);
        const auto [code, inputs, outputs, weights, constant] =
            from.entries<5>({"code", "inputs", "outputs", "weights", "constant"}, what);
        const std::string name = code.string("its code");
        const auto renamed = kRenamed.find(name);
        Instruction in;
        in.type = within(what, [&] {
            if (renamed == kRenamed.end() && !kOthers.count(name))
                throw std::invalid_argument("expected an instruction that this engine knows, got '" + printable(name) +
                                            "'");
            return &declaration_of(renamed == kRenamed.end() ? name : renamed->second);
        });
        in.inputs = array_numbers(inputs, "the inputs of " + what);
        in.outputs = array_numbers(outputs, "the outputs of " + what);
        in.weights = weights_.read(weights, what);
        const double number = constant.number("the constant of " + what);
        if (name == "plus" || name == "at_least") in.numbers = {number};
        if (name == "root") add_before_root(in, number);
        if (name == "concat_message_table" && in.outputs.size() == 3)
            saved_.push_back(in.outputs[2]), in.outputs.pop_back();
        p_.instructions.push_back(std::move(in));
    }

    // A root adds its constant first.
    void add_before_root(Instruction& root, double number) {
        if (root.inputs.size() != 1 || root.inputs[0] >= static_cast<int>(n_arrays_)) return;  // `check` refuses it
        const int sum = static_cast<int>(p_.arrays.size());
        p_.arrays.push_back({Space::atom, p_.arrays[root.inputs[0]].shape});
        p_.instructions.push_back({&declaration_of("add_constant"), root.inputs, {sum}, {}, {number}, {}});
        root.inputs = {sum};
    }

    // A third output of concat_message_table, for its way back, was an array of its own.
    void check_saved() const {
        std::set<int> taken;
        for (const Instruction& in : p_.instructions) taken.insert(in.outputs.begin(), in.outputs.end());
        for (const int v : saved_)
            if (v >= static_cast<int>(n_arrays_) || !taken.insert(v).second)
                throw std::invalid_argument("an instruction of the model's program: expected outputs of its own");
    }

    Program p_;
    WeightReader<T> weights_;
    std::size_t n_arrays_ = 0, n_instructions_ = 0;
    std::vector<int> saved_;
};

}  // namespace

template <class T>
Model read_version_1(const JsonValue& from, const WeightSource<T>& source) {
    return Version1Reader<T>(source).read(from);
}

template Model read_version_1<float>(const JsonValue&, const WeightSource<float>&);
template Model read_version_1<double>(const JsonValue&, const WeightSource<double>&);

}  // namespace mdgnn::engine
