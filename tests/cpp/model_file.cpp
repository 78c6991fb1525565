// The engine's reader of model files on files that were changed at random, for sanitizers (make fuzz-files): bytes of
// the file, or values in the JSON of its header, put together again with the right lengths. Whatever comes is refused
// with a sentence, or runs.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <sstream>

#include "engine/engine.hpp"
#include "engine/file.hpp"
#include "engine/json.hpp"

using namespace mdgnn;
using namespace mdgnn::engine;

namespace {

constexpr double kMostBytes = 64e6;  // of a run's arrays
std::map<std::string, int> outcomes;
std::mt19937_64 generator;
long long current_seed = 0;

std::size_t below(std::size_t n) { return n == 0 ? 0 : generator() % n; }

void expect(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "unexpected: %s\n", what.c_str());
    std::abort();
}

// A value in a text; `whole` is where its key begins, if it has one.
struct Span {
    std::size_t whole, begin, end;
};

void collect(const JsonValue& value, std::string_view text, std::vector<Span>& spans) {
    const std::size_t begin = static_cast<std::size_t>(value.text().data() - text.data());
    std::size_t whole = begin;
    const std::size_t before = begin == 0 ? std::string::npos : text.find_last_not_of(' ', begin - 1);
    if (before != std::string::npos && text[before] == ':')
        whole = text.rfind('"', text.rfind('"', before) - 1);  // no key here has a quote
    spans.push_back({whole, begin, begin + value.text().size()});
    if (text[begin] == '[')
        for (const JsonValue& item : value.items("")) collect(item, text, spans);
    if (text[begin] == '{')
        for (const auto& [key, item] : value.members("")) collect(item, text, spans);
}

struct Text {
    std::string text;
    std::vector<Span> spans;

    explicit Text(std::string of = "{}") : text(std::move(of)) {
        const Json json(text);
        collect(json.root(), json.root().text(), spans);
    }
};

// A valid file, taken apart: the header with a hole where the text of the mdgnn entry stands, and that text.
struct Parts {
    std::string all, data;
    Text header, entry;
    std::size_t program = 0;  // spans of the entry from here on are the program's

    explicit Parts(const char* path) {
        std::ifstream in(path, std::ios::binary);
        all.assign(std::istreambuf_iterator<char>(in), {});
        std::uint64_t length = 0;
        expect(all.size() > 8, path);
        for (int k = 8; k-- > 0;) length = length << 8 | static_cast<unsigned char>(all[k]);
        std::string text = all.substr(8, length);
        data = all.substr(8 + length);
        const Json json(text);
        const JsonValue hole = json.root().at("__metadata__", "").at("mdgnn", "");
        entry = Text(hole.string(""));
        text.replace(hole.text().data() - json.root().text().data(), hole.text().size(), "\"@\"");
        header = Text(text);
        const std::size_t first = entry.text.find("\"program\"");
        while (program < entry.spans.size() && entry.spans[program].whole < first) ++program;
        expect(program < entry.spans.size(), path);
    }
};

std::string joined(std::string header, const std::string& entry, const std::string& data) {
    std::string quoted = "\"";
    for (const char c : entry) quoted += c == '"' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
    const std::size_t hole = header.find("\"@\"");
    if (hole != std::string::npos) header.replace(hole, 3, quoted + '"');
    std::string length;
    for (int k = 0; k < 8; ++k) length += static_cast<char>(header.size() >> 8 * k);
    return length + header + data;
}

std::string some_number(const std::string& old) {
    constexpr const char* kNumbers[] = {"0",          "-1",         "1",          "2",          "3",
                                        "4",          "5",          "8",          "9",          "-2147483648",
                                        "2147483647", "4294967295", "4294967296", "-0.0",       "0.5",
                                        "1e5",        "1e-45",      "1e-320",     "1e308",      "9223372036854775807",
                                        "1e400",      "-9e99",      "1048576",    "4096",       "1e39",
                                        "-2",         "1e-39",      "1048577",    "3037000500", "9223372036854775808"};
    const int n = static_cast<int>(std::atoll(old.c_str()) % 1'000'000'000);
    switch (below(4)) {
        case 0:
            return kNumbers[below(std::size(kNumbers))];
        case 1:
            return std::to_string(n + (below(2) ? 1 : -1));
        case 2:
            return std::to_string(n * 2);
        default:
            return std::to_string(below(40));
    }
}

// Changes one value; `from`: of the spans from there on.
std::string changed(const Text& t, std::size_t from) {
    const Span s = t.spans[from + below(t.spans.size() - from)], o = t.spans[from + below(t.spans.size() - from)];
    const std::string value = t.text.substr(s.begin, s.end - s.begin), other = t.text.substr(o.begin, o.end - o.begin);
    std::string out = t.text;
    const bool number = value[0] == '-' || (value[0] >= '0' && value[0] <= '9');
    const auto kind = [](char c) { return c == '"' || c == '[' || c == '{' ? c : '0'; };
    switch (below(number ? 3 : 8)) {
        case 0:
            return out.replace(s.begin, s.end - s.begin, number ? some_number(value) : other);
        case 1:  // of the same kind
            return kind(value[0]) == kind(other[0]) ? out.replace(s.begin, s.end - s.begin, other) : changed(t, from);
        case 2:
            return number ? out.replace(s.begin, s.end - s.begin, some_number(value)) : changed(t, from);
        case 3:  // once more, with its key
            return out.insert(s.whole, t.text.substr(s.whole, s.end - s.whole) + ", ");
        case 4: {  // gone
            const std::size_t end = t.text.find_first_not_of(", ", s.end);
            return out.erase(s.whole, (end == std::string::npos ? s.end : end) - s.whole);
        }
        case 5: {  // deep
            const std::size_t depth = below(2) ? below(80) : below(100000);
            return out.replace(s.begin, s.end - s.begin, std::string(depth, '[') + "0" + std::string(depth, ']'));
        }
        case 6: {  // long
            std::string many = "[0";
            for (std::size_t k = below(9000); k > 0; --k) many += ", 0";
            return out.replace(s.begin, s.end - s.begin, many + "]");
        }
        default:
            return out.replace(s.begin, s.end - s.begin, below(2) ? "null" : "\"\\ud800\\u0041\"");
    }
}

// Changes some values, each in a text that is still JSON.
std::string changed_often(const Text& t, std::size_t from) {
    std::string text = changed(t, from);
    for (std::size_t more = below(3); more > 0; --more) try {
            const Text again(text);
            text = changed(again, std::min(from, again.spans.size() - 1));
        } catch (const std::invalid_argument&) {
            break;
        }
    return text;
}

// One more instruction on arrays of one shape, the result of which another one takes: programs that nobody wrote. In
// the words of either version.
std::string grown(const std::string& entry) {
    constexpr const char* kOps[] = {"add",  "add",    "subtract", "multiply",    "divide",   "sigmoid",
                                    "tanh", "exp",    "silu",     "sqrt",        "softplus", "copy",
                                    "abs",  "square", "cos",      "add_constant"};
    constexpr const char* kCodes[] = {"add", "add", "multiply", "plus", "at_least", "root", "silu", "shifted_softplus"};
    const Json json(entry);
    const std::string_view all = json.root().text();
    const auto place = [&](std::string_view part) { return static_cast<std::size_t>(part.data() - all.data()); };
    const JsonValue program = json.root().at("program", "");
    const bool old = program.at("version", "").integer("") == 1;
    const JsonValue values = program.at(old ? "values" : "arrays", "");
    const auto arrays = values.items(""), instructions = program.at("instructions", "").items("");
    const auto integer = [](const JsonValue& of, std::size_t k) { return of.items("")[k].integer(""); };
    const std::size_t first = old ? 0 : 1;  // place of the components of an array
    const std::size_t at = below(instructions.size());
    const auto inputs = instructions[at].at("inputs", "").items("");
    if (inputs.empty()) return entry;
    const JsonValue replaced = inputs[below(inputs.size())];
    const JsonValue& array = arrays[static_cast<std::size_t>(replaced.integer(""))];
    std::vector<std::int64_t> alike, computed;
    for (std::size_t k = 0; k < at; ++k) computed.push_back(integer(instructions[k].at("outputs", ""), 0));
    for (const std::int64_t v : computed)
        if (integer(arrays[v], first) == integer(array, first) &&
            integer(arrays[v], first + 1) == integer(array, first + 1))
            alike.push_back(v);
    if (alike.empty()) return entry;
    const std::string code = old ? kCodes[below(std::size(kCodes))] : kOps[below(std::size(kOps))];
    const bool two = code == "multiply" || code == "subtract" || code == "divide";
    std::string taken = std::string(replaced.text());
    for (std::size_t n = two ? 1 : code == "add" ? below(3) : 0; n > 0; --n)
        taken += ", " + std::to_string(alike[below(alike.size())]);
    const std::string number = std::to_string(arrays.size()), comps = std::to_string(integer(array, first)),
                      cols = std::to_string(integer(array, first + 1));
    const std::string constant = old                      ? "\"constant\": 0.5"
                                 : code == "add_constant" ? "\"numbers\": [0.5]"
                                                          : "\"numbers\": []";
    std::string out = entry;
    out.replace(place(replaced.text()), replaced.text().size(), number);
    out.insert(place(instructions[at].text()), std::string(old ? "{\"code\": \"" : "{\"op\": \"") + code +
                                                   "\", \"inputs\": [" + taken + "], \"outputs\": [" + number +
                                                   "], \"weights\": [], " + constant + "}, ");
    out.insert(place(values.text()) + values.text().size() - 1,
               old ? ", [" + comps + ", " + cols + ", -1, 0]" : ", [\"atom\", " + comps + ", " + cols + "]");
    return out;
}

void flip(std::string& bytes, std::size_t begin, std::size_t end) {
    for (std::size_t n = 1 + below(4); n > 0 && end > begin; --n)
        bytes[begin + below(end - begin)] ^= static_cast<char>(1 << below(8));
}

// Bytes of the file, whatever they mean.
std::string garbled(const Parts& parts) {
    std::string f = parts.all;
    const std::size_t header = f.size() - parts.data.size(), at = below(f.size()), n = below(20);
    switch (below(8)) {
        case 0:
            flip(f, 0, f.size());
            break;
        case 1:
            flip(f, 8, header);
            break;
        case 2:
            f.resize(at);
            break;
        case 3:
            f.insert(at, std::string(n, static_cast<char>(generator())));
            break;
        case 4:
            f.erase(at, n);
            break;
        case 5:  // digits
            for (std::size_t k = 8 + below(header - 8), left = 1 + below(4); k < header && left > 0; ++k)
                if (f[k] >= '0' && f[k] <= '9') f[k] = static_cast<char>('0' + below(10)), --left;
            break;
        case 6:
            for (std::size_t k = below(8); k < 8; ++k) f[k] = static_cast<char>(below(3) ? 0 : generator());
            break;
        default:
            f.insert(at, f.substr(below(f.size()), below(200)));
    }
    return f;
}

std::string mutated(const Parts& parts) {
    std::string data = parts.data;
    switch (below(10)) {
        case 0:
            return garbled(parts);
        case 1:
            return joined(changed_often(parts.header, 0), parts.entry.text, data);
        case 2:
            return joined(parts.header.text, changed_often(parts.entry, 0), data);
        case 3:
            flip(data, 0, data.size());
            return joined(parts.header.text, parts.entry.text, data);
        case 4:
        case 5: {
            std::string entry = parts.entry.text;
            for (std::size_t n = 1 + below(12); n > 0; --n) entry = grown(entry);
            return joined(parts.header.text, entry, data);
        }
        default:
            return joined(parts.header.text, changed_often(parts.entry, parts.program), data);
    }
}

bool same(const std::vector<double>& x, const std::vector<double>& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), sizeof(double) * x.size()) == 0);
}

// Three atoms, each a neighbour of the others; sometimes two at the same place, or none near another.
template <class T>
void run(const Engine<T>& engine) {
    const auto& elements = engine.program().element_of;
    std::vector<std::int64_t> known;
    for (std::size_t z = 0; z < elements.size(); ++z)
        if (elements[z] >= 0) known.push_back(static_cast<std::int64_t>(z));
    if (known.empty()) known.push_back(1);
    const std::vector<std::int64_t> row_ptr = {0, 2, 4, 6}, senders = {1, 2, 0, 2, 0, 1};
    std::vector<std::int64_t> numbers;
    std::vector<double> positions, vectors, energies(3), forces(9), virials(27);
    const double size = below(4) ? 2.0 : below(2) ? 1e-3 : 1e3;
    for (int k = 0; k < 3; ++k) numbers.push_back(known[below(known.size())]);
    for (int k = 0; k < 9; ++k) positions.push_back(static_cast<double>(below(1000)) / 1000 * size);
    if (below(4) == 0) std::copy(positions.begin(), positions.begin() + 3, positions.begin() + 6);
    for (std::int64_t i = 0; i < 3; ++i)
        for (std::int64_t k = row_ptr[i]; k < row_ptr[i + 1]; ++k)
            for (int c = 0; c < 3; ++c) vectors.push_back(positions[3 * senders[k] + c] - positions[3 * i + c]);
    Structure structure;
    structure.atomic_numbers = numbers.data();
    structure.rows = {row_ptr.data(), senders.data(), nullptr, 3};
    structure.vectors = vectors.data();
    const bool has_energy = engine.program().energies >= 0;
    std::vector<double> properties(3 * engine.program().properties.size()), some = properties;
    if (has_energy) {
        double* const values = below(2) ? properties.data() : nullptr;
        engine.run(structure, {energies.data(), forces.data(), below(2) ? virials.data() : nullptr, values},
                   {1, 0, nullptr});
        std::vector<double> alone(3);  // arrays stand in other places where no gradients are asked for
        engine.run(structure, {alone.data()}, {1, 0, nullptr});
        expect(same(alone, energies), "energies that depend on the forces");
        if (values == nullptr)
            engine.run(structure, {alone.data(), nullptr, nullptr, properties.data()}, {1, 0, nullptr});
    }
    engine.run(structure, {nullptr, nullptr, nullptr, some.data()}, {1, 0, nullptr});
    expect(!has_energy || same(some, properties), "properties that depend on the energies or the forces");
}

std::string stage(const std::string& message) {
    const auto has = [&](const char* part) { return message.find(part) != std::string::npos; };
    if (has("not a complete safetensors file")) return "1 refused: container";
    if (!has("does not fit")) return "2 refused: header";
    const bool check = has("of the model") || has("(expected tables of") || has("(expected weights and") ||
                       has("(expected a scale") || has("(expected elements with") || has("(expected a positive") ||
                       has("(expected one energy") || has("(expected properties of different") ||
                       has("(expected property") || has("(expected letters");
    return check ? "4 refused: check of the program" : "3 refused: reading of the program";
}

// Bytes of a run's arrays and of tables, and what it takes to make those.
double cost_of(const Program& program) {
    const auto size_of = [](const std::vector<Array>& arrays) {
        double size = 0;
        for (const Array& a : arrays) size += static_cast<double>(a.shape.size());
        return size;
    };
    double cost = 2.0 * 16 * sizeof(double) * size_of(program.arrays);
    for (const Table& t : program.tables) {
        double work = 8 * size_of(t.arrays);
        for (const Instruction& in : t.instructions)
            for (const int w : in.weights) {
                double size = 1;
                for (const std::int64_t n : program.weights[w].shape) size *= static_cast<double>(n);
                work += size;
            }
        cost += static_cast<double>(t.knots) * work;
    }
    return cost;
}

std::string outcome(const std::string& bytes) {
    const std::string name = "some.safetensors";
    std::istringstream in(bytes);
    Model model;
    try {
        model = read_model(in, bytes.size(), name);
    } catch (const std::invalid_argument& error) {
        const std::string message = error.what();
        expect(message.rfind(name + " ", 0) == 0 && printable(message, message.size()) == message, message);
        return stage(message);
    }
    if (cost_of(model.program) > kMostBytes) return "5 skipped: large arrays";
    return std::visit(
        [&]<class T>(Weights<T>& weights) -> std::string {
            std::unique_ptr<Engine<T>> engine;
            try {
                engine = std::make_unique<Engine<T>>(std::move(model.program), std::move(weights));
            } catch (const std::invalid_argument& error) {
                expect(std::strstr(error.what(), "expected finite numbers in table"), error.what());
                return "6 refused: tables";
            }
            try {
                run(*engine);
            } catch (const std::invalid_argument&) {
                return "7 refused: run";
            }
            return "8 ran";
        },
        model.weights);
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGABRT, [](int) { std::fprintf(stderr, "SEED=%lld COUNT=1 does so again\n", current_seed); });
    if (argc < 4) return std::fprintf(stderr, "expected a count, a seed and model files\n"), 2;
    std::vector<Parts> files;
    for (int k = 3; k < argc; ++k) {
        files.emplace_back(argv[k]);
        generator.seed(0);
        expect(outcome(files.back().all) == "8 ran", argv[k]);
        const Parts& p = files.back();
        expect(outcome(joined(p.header.text, p.entry.text, p.data)) == "8 ran", argv[k]);
    }
    const long long count = std::atoll(argv[1]), seed = std::atoll(argv[2]);
    for (long long k = 0; k < count; ++k) {
        generator.seed(static_cast<std::uint64_t>(current_seed = seed + k));
        ++outcomes[outcome(mutated(files[below(files.size())]))];
    }
    for (const auto& [what, n] : outcomes) std::printf("%8d %s\n", n, what.c_str());
}
