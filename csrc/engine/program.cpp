#include "engine/program.hpp"

#include <array>
#include <stdexcept>

namespace mdgnn::engine {
namespace {

constexpr std::array<const char*, 16> kNames = {
    "embed", "zeros",    "linear", "add",  "multiply",         "scale_vectors",        "dot",    "divide",
    "plus",  "at_least", "root",   "silu", "shifted_softplus", "concat_message_table", "cfconv", "painn_message"};

[[noreturn]] void refuse(std::size_t number, const std::string& what) {
    throw std::invalid_argument("instruction " + std::to_string(number) + " of the model's program: expected " + what);
}

// Inputs, outputs and weights that an instruction has; -1: one or more.
struct Counts {
    int inputs, outputs, weights;
};

Counts counts(Code code) {
    switch (code) {
        case Code::embed:
            return {0, 1, 1};
        case Code::zeros:
            return {0, 1, 0};
        case Code::linear:
            return {-1, 1, -1};
        case Code::add:
            return {-1, 1, 0};
        case Code::multiply:
        case Code::scale_vectors:
        case Code::dot:
        case Code::divide:
            return {2, 1, 0};
        case Code::plus:
        case Code::at_least:
        case Code::root:
        case Code::silu:
        case Code::shifted_softplus:
            return {1, 1, 0};
        case Code::concat_message_table:
            return {1, 3, 1};
        case Code::cfconv:
            return {1, 1, 1};
        case Code::painn_message:
            return {2, 2, 1};
    }
    throw std::logic_error("a code without counts");
}

bool fits(std::size_t n, int expected) { return expected < 0 ? n > 0 : n == static_cast<std::size_t>(expected); }

template <class T>
class Checker {
  public:
    explicit Checker(const Program<T>& program)
        : p_(program), defined_(program.values.size(), false), hidden_(defined_) {}

    void run() {
        for (std::size_t v = 0; v < p_.values.size(); ++v) check_value(v);
        for (const Weight<T>& w : p_.weights) check_weight(w);
        for (number_ = 0; number_ < p_.instructions.size(); ++number_) check_instruction(p_.instructions[number_]);
        const std::size_t n = p_.scale.size();
        if (n == 0 || p_.shift.size() != n) throw std::invalid_argument("expected a scale and a shift per element");
        for (std::int64_t row : p_.element_of)
            if (row < -1 || row >= static_cast<std::int64_t>(n))
                throw std::invalid_argument("expected elements with a scale and a shift");
        if (!(p_.cutoff > kLeast)) throw std::invalid_argument("expected a positive cutoff, above 1e-24");
        if (!known(p_.energies) || shape(p_.energies) != Shape{1, 1})
            throw std::invalid_argument("expected one energy for each atom");
    }

  private:
    using Shape = std::array<std::int64_t, 2>;  // blocks, columns
    static constexpr std::int64_t kMost = 1 << 20;
    static constexpr double kLeast = 1e-24;  // intervals of tables, 2^40 at most, are finitely many per unit of length

    Shape shape(int v) const { return {p_.values[v].blocks, p_.values[v].cols}; }

    bool exists(int v) const { return v >= 0 && v < static_cast<int>(p_.values.size()); }

    bool known(int v) const {
        if (!exists(v)) return false;
        const std::int64_t whole = p_.values[v].base < 0 ? v : p_.values[v].base;
        return defined_[whole] && !hidden_[whole];
    }

    void check_value(std::size_t v) const {
        const Value& value = p_.values[v];
        bool good = (value.blocks == 1 || value.blocks == 3) && value.cols > 0 && value.cols <= kMost &&
                    (value.base != -1 || value.first == 0);
        if (good && value.base != -1) {
            good = value.base >= 0 && value.base < static_cast<std::int64_t>(p_.values.size());
            if (good) {
                const Value& base = p_.values[value.base];
                good = base.base == -1 && base.blocks == value.blocks && value.first >= 0 && value.first <= kMost &&
                       value.first + value.cols <= base.cols;
            }
        }
        if (!good)
            throw std::invalid_argument("array " + std::to_string(v) + " of the model's program has a bad shape");
    }

    void check_weight(const Weight<T>& w) const {
        std::int64_t size = 1;
        for (std::int64_t n : w.shape) {
            if (n <= 0 || n > (std::int64_t{1} << 40) / size)
                throw std::invalid_argument("a weight of the model has a bad shape");
            size *= n;
        }
        if (size != static_cast<std::int64_t>(w.data.size()))
            throw std::invalid_argument("a weight of the model has not as many numbers as its shape says");
    }

    void check_instruction(const Instruction& in) {
        const Counts expected = counts(in.code);
        if (!fits(in.inputs.size(), expected.inputs) || !fits(in.outputs.size(), expected.outputs) ||
            !fits(in.weights.size(), expected.weights))
            refuse(number_, "as many inputs, outputs and weights as it takes");
        for (int v : in.inputs)
            if (!known(v)) refuse(number_, "inputs that have been computed");
        for (int w : in.weights)
            if (w < 0 || w >= static_cast<int>(p_.weights.size())) refuse(number_, "weights that exist");
        for (int v : in.outputs) {
            if (!exists(v) || p_.values[v].base != -1 || defined_[v]) refuse(number_, "outputs of its own");
            defined_[v] = true;
        }
        if (in.code == Code::concat_message_table) hidden_[in.outputs[2]] = true;  // the backward's alone
        check_shapes(in);
    }

    bool weight_is(const Instruction& in, std::size_t k, const std::vector<std::int64_t>& expected) const {
        return p_.weights[in.weights[k]].shape == expected;
    }

    bool table_is(const Instruction& in, std::int64_t width) const {
        const std::vector<std::int64_t>& s = p_.weights[in.weights[0]].shape;
        return s.size() == 3 && s[1] == 4 && s[2] == width;
    }

    void check_shapes(const Instruction& in) const {
        const Shape out = shape(in.outputs[0]);
        const Shape x = in.inputs.empty() ? Shape{} : shape(in.inputs[0]);
        const auto whole = [&](int v) { return p_.values[v].base == -1; };
        bool good = true;
        switch (in.code) {
            case Code::embed:
                good = out[0] == 1 && weight_is(in, 0, {static_cast<std::int64_t>(p_.scale.size()), out[1]});
                break;
            case Code::zeros:
                break;
            case Code::linear: {
                const std::size_t n = in.inputs.size();
                good = in.weights.size() == n || in.weights.size() == n + 1;
                for (std::size_t k = 0; good && k < n; ++k)
                    good = shape(in.inputs[k])[0] == out[0] && weight_is(in, k, {out[1], shape(in.inputs[k])[1]});
                if (good && in.weights.size() == n + 1) good = weight_is(in, n, {out[1]});
                break;
            }
            case Code::add:
            case Code::multiply:
                for (int v : in.inputs) good = good && shape(v) == out;
                break;
            case Code::scale_vectors:
                good = x == Shape{1, out[1]} && out[0] == 3 && shape(in.inputs[1]) == out;
                break;
            case Code::dot:
                good = x == Shape{3, out[1]} && out[0] == 1 && shape(in.inputs[1]) == x;
                break;
            case Code::divide:
                good = x == out && shape(in.inputs[1]) == Shape{out[0], 1};
                break;
            case Code::plus:
            case Code::at_least:
            case Code::root:
            case Code::silu:
            case Code::shifted_softplus:
                good = x == out;
                break;
            case Code::concat_message_table:
                good = whole(in.inputs[0]) && x == Shape{1, 2 * out[1]} && out[0] == 1 && table_is(in, out[1] + 1) &&
                       shape(in.outputs[1]) == Shape{1, 1} && shape(in.outputs[2]) == out;
                break;
            case Code::cfconv:
                good = whole(in.inputs[0]) && x == out && out[0] == 1 && table_is(in, out[1]);
                break;
            case Code::painn_message:
                good = whole(in.inputs[0]) && whole(in.inputs[1]) && x == Shape{1, 3 * out[1]} && out[0] == 1 &&
                       shape(in.inputs[1]) == Shape{3, out[1]} && shape(in.outputs[1]) == Shape{3, out[1]} &&
                       table_is(in, 3 * out[1]);
                break;
        }
        if (!good) refuse(number_, "shapes that fit (" + std::string(kNames[static_cast<std::size_t>(in.code)]) + ")");
    }

    const Program<T>& p_;
    std::vector<bool> defined_, hidden_;
    std::size_t number_ = 0;
};

}  // namespace

bool is_message(Code code) {
    return code == Code::concat_message_table || code == Code::cfconv || code == Code::painn_message;
}

Code code_of(const std::string& name) {
    for (std::size_t k = 0; k < kNames.size(); ++k)
        if (name == kNames[k]) return static_cast<Code>(k);
    throw std::invalid_argument("expected an instruction that this engine knows, got '" + name + "'");
}

const char* name_of(Code code) { return kNames[static_cast<std::size_t>(code)]; }

template <class T>
void check(const Program<T>& program) {
    Checker<T>(program).run();
}

template void check<float>(const Program<float>&);
template void check<double>(const Program<double>&);

}  // namespace mdgnn::engine
