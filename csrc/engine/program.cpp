#include "engine/program.hpp"

#include <array>
#include <cmath>
#include <locale>
#include <set>
#include <sstream>
#include <stdexcept>

#include "engine/instruction.hpp"
#include "engine/json.hpp"

namespace mdgnn::engine {
namespace {

constexpr std::int64_t kMostChannels = 1 << 20, kMostKnots = 1 << 16;
constexpr std::int64_t kMostOfTables = std::int64_t{1} << 26;  // coefficients
constexpr double kLeastCutoff = 1e-24;  // intervals of tables, 2^40 at most, are finitely many per unit of length
constexpr std::array<const char*, 2> kSpaces = {"atom", "edge"};

std::string text_of(const std::vector<std::int64_t>& shape) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    for (std::size_t k = 0; k < shape.size(); ++k) text << (k > 0 ? ", " : "(") << shape[k];
    text << ')';
    return text.str();
}

std::string text_of(const Shape& s) { return text_of(std::vector<std::int64_t>{s.components, s.channels}); }

template <class List>
std::string text_of_all(const List& list) {
    std::ostringstream text;
    for (std::size_t k = 0; k < list.size(); ++k) text << (k > 0 ? ", " : "") << text_of(list[k]);
    return text.str();
}

void check_arrays(const std::vector<Array>& arrays, const std::string& of) {
    const auto within = [](std::int64_t first, std::int64_t n, std::int64_t most) {
        return n > 0 && n <= kMostChannels && first >= 0 && first <= kMostChannels && first + n <= most;
    };
    for (std::size_t v = 0; v < arrays.size(); ++v) {
        const Array& a = arrays[v];
        Shape stored = a.shape;
        bool good = a.base >= -1 && a.base < static_cast<int>(arrays.size());
        if (good && a.base >= 0) {
            stored = arrays[a.base].shape;
            good = arrays[a.base].base == -1 && arrays[a.base].space == a.space;
        }
        good = good && within(a.first_component, a.shape.components, stored.components) &&
               within(a.first_channel, a.shape.channels, stored.channels) && a.shape.size() <= kMostChannels;
        if (!good) throw std::invalid_argument("array " + std::to_string(v) + " of " + of + " has a bad shape");
    }
}

// The instructions of a program or of a table: each takes what is there and gives arrays of its own.
class InstructionChecker {
  public:
    InstructionChecker(const Program& program, const std::vector<Array>& arrays, Space space, std::string of)
        : program_(program), arrays_(arrays), space_(space), of_(std::move(of)), computed_(arrays.size(), false) {
        check_arrays(arrays_, of_);
    }

    bool exists(int v) const { return v >= 0 && v < static_cast<int>(arrays_.size()); }
    bool is_computed(int v) const { return exists(v) && computed_[whole(arrays_, v)]; }
    void set_computed(int v) { computed_[v] = true; }

    void check(std::size_t number, const Instruction& in) {
        number_ = number;
        const Declaration& type = *in.type;
        if (!type.inputs.has(in.inputs.size()) || !type.outputs.has(in.outputs.size()) ||
            !type.weights.has(in.weights.size()) || !type.numbers.has(in.numbers.size()))
            refuse("as many inputs, outputs, weights and numbers as " + std::string(type.name) + " takes");
        for (const int v : in.inputs)
            if (!is_computed(v)) refuse("inputs that have been computed");
        for (const int w : in.weights)
            if (w < 0 || w >= static_cast<int>(program_.weights.size())) refuse("weights that exist");
        for (const double x : in.numbers)
            if (!std::isfinite(x)) refuse("finite numbers");
        for (const int v : in.outputs) {
            if (!exists(v) || arrays_[v].base != -1 || computed_[v]) refuse("outputs of its own");
            computed_[v] = true;
        }
        for (const std::vector<int>* list : {&in.inputs, &in.outputs})
            for (const int v : *list)
                if (arrays_[v].space != space_)
                    refuse("arrays of space '" + std::string(name_of(space_)) + "', the only ones that " + type.name +
                           " has here, got one of space '" + name_of(arrays_[v].space) + "'");
        const Signature s = signature_of(program_, arrays_, in);
        bool fits = type.fits(s);
        for (const int v : in.inputs) fits = fits && !(type.message && arrays_[v].base != -1);
        if (!fits)
            refuse("shapes that fit, got " + std::string(type.name) +
                   (s.inputs.empty() ? "" : " of " + text_of_all(s.inputs)) +
                   (s.weights.empty() ? "" : " with weights " + text_of_all(s.weights)) + " for " +
                   text_of_all(s.outputs));
    }

    [[noreturn]] void refuse(const std::string& what) const {
        throw std::invalid_argument("instruction " + std::to_string(number_) + " of " + of_ + ": expected " + what);
    }

  private:
    const Program& program_;
    const std::vector<Array>& arrays_;
    const Space space_;
    const std::string of_;
    std::vector<bool> computed_;
    std::size_t number_ = 0;
};

void check_weight(const Weight& w) {
    std::int64_t size = 1;
    for (const std::int64_t n : w.shape) {
        if (n <= 0 || n > (std::int64_t{1} << 40) / size)
            throw std::invalid_argument("a weight of the model has a bad shape");
        size *= n;
    }
}

// Returns the number of coefficients.
std::int64_t check_table(const Program& program, const Table& table) {
    const std::string name = "table '" + table.name + "' of the model's program";
    if (table.knots < 2 || table.knots > kMostKnots)
        throw std::invalid_argument("expected " + name + " with 2 to " + std::to_string(kMostKnots) + " knots, got " +
                                    std::to_string(table.knots));
    if (!(table.cutoff > kLeastCutoff && std::isfinite(table.cutoff)))
        throw std::invalid_argument("expected " + name + " with a finite cutoff, above 1e-24");
    InstructionChecker checker(program, table.arrays, Space::edge, name);
    std::int64_t width = 0;
    for (const Array& a : table.arrays) width += a.shape.size();
    if (width > kMostChannels)
        throw std::invalid_argument("expected " + name + " with arrays of at most " + std::to_string(kMostChannels) +
                                    " numbers for a distance");
    const int in = table.input;
    if (!checker.exists(in) || table.arrays[in].base != -1 || table.arrays[in].shape != Shape{1, 1} ||
        table.arrays[in].space != Space::edge)
        throw std::invalid_argument("expected " + name + " with an input of one distance for each edge");
    checker.set_computed(in);
    for (std::size_t k = 0; k < table.instructions.size(); ++k) {
        checker.check(k, table.instructions[k]);
        if (!table.instructions[k].type->float64.tangent)
            checker.refuse("an instruction that tables have, got " + std::string(table.instructions[k].type->name));
    }
    if (!checker.is_computed(table.output) || table.arrays[table.output].shape.components != 1)
        throw std::invalid_argument("expected " + name + " with an output of one component that is computed");
    return (table.knots - 1) * 4 * table.arrays[table.output].shape.channels;
}

void check_tables(const Program& program) {
    std::set<std::string> names;
    for (const Weight& w : program.weights)
        if (!names.insert(w.name).second)
            throw std::invalid_argument("expected weights and tables of different names, got '" + w.name + "' twice");
    std::int64_t total = 0;
    for (const Table& table : program.tables) total += check_table(program, table);
    if (total > kMostOfTables)
        throw std::invalid_argument("expected tables of at most " + std::to_string(kMostOfTables) +
                                    " coefficients in all, got " + std::to_string(total));
}

void check_properties(const Program& p, const InstructionChecker& checker) {
    std::set<std::string> names;
    for (const Property& property : p.properties) {
        bool good = !property.name.empty() && (property.name[0] < '0' || property.name[0] > '9');
        for (const char c : property.name)
            good = good && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_');
        const std::string what = "property '" + printable(property.name) + "' of the model's program";
        if (!good) throw std::invalid_argument("expected letters, digits and underscores as the name of " + what);
        if (!names.insert(property.name).second)
            throw std::invalid_argument("expected properties of different names, got " + what + " twice");
        if (property.kind != "extensive" && property.kind != "intensive" && property.kind != "atomic")
            throw std::invalid_argument("expected " + what + " as 'extensive', 'intensive' or 'atomic', got '" +
                                        printable(property.kind) + "'");
        if (property.scale.size() != p.scale.size() || property.shift.size() != p.scale.size())
            throw std::invalid_argument("expected " + what + " with a scale and a shift per element");
        if (!checker.is_computed(property.array) || p.arrays[property.array].shape != Shape{1, 1})
            throw std::invalid_argument("expected " + what + " as one number for each atom");
    }
}

}  // namespace

const char* name_of(Space space) { return kSpaces[static_cast<std::size_t>(space)]; }

Signature signature_of(const Program& program, const std::vector<Array>& arrays, const Instruction& in) {
    Signature s;
    for (const int v : in.inputs) s.inputs.push_back(arrays[v].shape);
    for (const int v : in.outputs) s.outputs.push_back(arrays[v].shape);
    for (const int w : in.weights) s.weights.push_back(program.weights[w].shape);
    s.n_elements = static_cast<std::int64_t>(program.scale.size());
    return s;
}

void check(const Program& p) {
    check_tables(p);
    for (const Weight& w : p.weights) check_weight(w);
    InstructionChecker checker(p, p.arrays, Space::atom, "the model's program");
    for (std::size_t k = 0; k < p.instructions.size(); ++k) checker.check(k, p.instructions[k]);
    const std::size_t n = p.scale.size();
    if (n == 0 || p.shift.size() != n) throw std::invalid_argument("expected a scale and a shift per element");
    for (const std::int64_t row : p.element_of)
        if (row < -1 || row >= static_cast<std::int64_t>(n))
            throw std::invalid_argument("expected elements with a scale and a shift");
    if (!(p.cutoff > kLeastCutoff)) throw std::invalid_argument("expected a positive cutoff, above 1e-24");
    const bool none = p.energies == -1 && !p.properties.empty();
    if (!none && (!checker.is_computed(p.energies) || p.arrays[p.energies].shape != Shape{1, 1}))
        throw std::invalid_argument("expected one energy for each atom");
    check_properties(p, checker);
}

}  // namespace mdgnn::engine
