#include "engine/reader.hpp"

#include <algorithm>
#include <array>

#include "engine/instructions/all.hpp"
#include "engine/reader_parts.hpp"

namespace mdgnn::engine {
namespace {

Space space_of(const std::string& name, const std::string& what) {
    for (const Space space : {Space::atom, Space::edge})
        if (name == name_of(space)) return space;
    throw std::invalid_argument("expected " + what + " of space 'atom' or 'edge', got '" + printable(name) + "'");
}

std::vector<Array> arrays_of(const JsonValue& from, const std::string& of) {
    std::vector<Array> arrays;
    for (const JsonValue& value : list(from, "the arrays" + of)) {
        const std::string what = "array " + std::to_string(arrays.size()) + of;
        const std::vector<JsonValue> v = value.items(what);
        if (v.size() != 3 && v.size() != 6)
            throw std::invalid_argument("expected " + what + " as a space and two numbers, or five of a range");
        const auto n = [&](std::size_t k) { return v[k].integer("an entry of " + what); };
        Array a{space_of(v[0].string("the space of " + what), what), {n(1), n(2)}};
        if (v.size() == 6)
            a.base = array_number(n(3), "the base of " + what), a.first_component = n(4), a.first_channel = n(5);
        arrays.push_back(a);
    }
    return arrays;
}

template <class T>
class ProgramReader {
  public:
    explicit ProgramReader(const WeightSource<T>& source) : weights_(p_, source) {}

    Model read(const JsonValue& from, std::int64_t version) {
        version == 2 ? check_keys<11>(from) : check_keys<12>(from);
        const auto at = [&](const char* key) { return from.at(key, "the program"); };
        p_.readout = readout_of(at("readout")), p_.cutoff = cutoff_of(at("cutoff"));
        for (const JsonValue& table : list(at("tables"), "the tables")) read_table(table);
        p_.arrays = arrays_of(at("arrays"), "");
        p_.instructions = instructions_of(at("instructions"), "");
        if (version == 2 || !at("energies").is_null())
            p_.energies = array_number(at("energies").integer("the energies"), "the energies");
        p_.scale = numbers(at("scale"), "the scale"), p_.shift = numbers(at("shift"), "the shift");
        p_.element_of = integers(at("element_of"), "the elements");
        if (version == 3) read_properties(at("properties"));
        check(p_);
        return {std::move(p_), std::move(weights_.weights)};
    }

  private:
    // That the first n of these are there, and no others.
    template <std::size_t n>
    static void check_keys(const JsonValue& from) {
        constexpr std::array<const char*, 12> kKeys = {"version", "dtype",        "readout",    "cutoff",
                                                       "arrays",  "instructions", "tables",     "energies",
                                                       "scale",   "shift",        "element_of", "properties"};
        std::array<const char*, n> keys;
        std::copy_n(kKeys.begin(), n, keys.begin());
        from.entries(keys, "the program");
    }

    void read_properties(const JsonValue& from) {
        for (const JsonValue& value : list(from, "the properties")) {
            const std::string what = "property " + std::to_string(p_.properties.size());
            const auto [name, kind, array, scale, shift] =
                value.entries<5>({"name", "kind", "array", "scale", "shift"}, what);
            p_.properties.push_back({name.string("the name of " + what), kind.string("the kind of " + what),
                                     array_number(array.integer("the array of " + what), "the array of " + what),
                                     numbers(scale, "the scale of " + what), numbers(shift, "the shift of " + what)});
        }
        if (p_.properties.empty()) throw std::invalid_argument("expected properties in a program of version 3");
    }

    // Its coefficients' shape is known here, so that messages may be checked.
    void read_table(const JsonValue& from) {
        const std::string number = "table " + std::to_string(p_.tables.size());
        const auto [name, knots, cutoff, arrays, instructions, input, output] =
            from.entries<7>({"name", "knots", "cutoff", "arrays", "instructions", "input", "output"}, number);
        Table table;
        table.name = name.string("the name of " + number);
        const std::string of = " of table '" + printable(table.name) + "'";
        table.knots = knots.integer("the knots" + of), table.cutoff = cutoff.number("the cutoff" + of);
        table.arrays = arrays_of(arrays, of);
        table.input = array_number(input.integer("the input" + of), "the input" + of);
        table.output = array_number(output.integer("the output" + of), "the output" + of);
        if (table.output >= static_cast<int>(table.arrays.size()))
            throw std::invalid_argument("expected the output" + of + " as one of its arrays");
        const int weight = weights_.add_table(table.name, static_cast<int>(p_.tables.size()));
        p_.weights[weight].shape = {table.knots - 1, 4, table.arrays[table.output].shape.channels};
        table.instructions = instructions_of(instructions, of);
        p_.tables.push_back(std::move(table));
    }

    std::vector<Instruction> instructions_of(const JsonValue& from, const std::string& of) {
        std::vector<Instruction> all;
        for (const JsonValue& value : list(from, "the instructions" + of)) {
            const std::string what = "instruction " + std::to_string(all.size()) + of;
            const auto [op, inputs, outputs, weights, constants] =
                value.entries<5>({"op", "inputs", "outputs", "weights", "numbers"}, what);
            Instruction in;
            in.type = within(what, [&] { return &declaration_of(printable(op.string("its op"))); });
            in.inputs = array_numbers(inputs, "the inputs of " + what);
            in.outputs = array_numbers(outputs, "the outputs of " + what);
            in.weights = weights_.read(weights, what);
            in.numbers = numbers(constants, "the numbers of " + what);
            all.push_back(std::move(in));
        }
        return all;
    }

    Program p_;
    WeightReader<T> weights_;
};

}  // namespace

std::vector<JsonValue> list(const JsonValue& value, const std::string& what) {
    std::vector<JsonValue> items = value.items(what);
    if (items.size() > kLongest)
        throw std::invalid_argument("expected " + what + " with at most " + std::to_string(kLongest) +
                                    " entries, got " + std::to_string(items.size()));
    return items;
}

std::vector<std::int64_t> integers(const JsonValue& value, const std::string& what) {
    std::vector<std::int64_t> all;
    for (const JsonValue& item : list(value, what)) all.push_back(item.integer("an entry of " + what));
    return all;
}

std::vector<double> numbers(const JsonValue& value, const std::string& what) {
    std::vector<double> all;
    for (const JsonValue& item : list(value, what)) all.push_back(item.number("an entry of " + what));
    return all;
}

// The number of an array; whether there is one of that number is left to `check`.
int array_number(std::int64_t n, const std::string& what) {
    if (n < 0 || n > std::numeric_limits<int>::max())
        throw std::invalid_argument("expected " + what + " as the number of an array, got " + std::to_string(n));
    return static_cast<int>(n);
}

std::vector<int> array_numbers(const JsonValue& value, const std::string& what) {
    std::vector<int> all;
    for (const std::int64_t n : integers(value, what)) all.push_back(array_number(n, "an entry of " + what));
    return all;
}

double cutoff_of(const JsonValue& value) {
    return value.is_null() ? std::numeric_limits<double>::infinity() : value.number("the cutoff");
}

std::string readout_of(const JsonValue& value) {
    const std::string readout = value.string("the readout");
    if (readout != "sum" && readout != "mean")
        throw std::invalid_argument("expected readout 'sum' or 'mean', got '" + printable(readout) + "'");
    return readout;
}

std::string dtype_of(const JsonValue& from) {
    const std::string dtype = from.at("dtype", "the program").string("the dtype");
    if (dtype != "float32" && dtype != "float64")
        throw std::invalid_argument("expected dtype 'float32' or 'float64', got '" + printable(dtype) + "'");
    return dtype;
}

template <class T>
Model read_program(const JsonValue& from, std::int64_t version, const WeightSource<T>& source) {
    return version == 1 ? read_version_1<T>(from, source) : ProgramReader<T>(source).read(from, version);
}

template Model read_program<float>(const JsonValue&, std::int64_t, const WeightSource<float>&);
template Model read_program<double>(const JsonValue&, std::int64_t, const WeightSource<double>&);

}  // namespace mdgnn::engine
