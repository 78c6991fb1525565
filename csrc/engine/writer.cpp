// The JSON of a program, in version 2 or 3.
#include <cmath>
#include <locale>
#include <sstream>
#include <string_view>

#include "engine/instruction.hpp"
#include "engine/reader.hpp"

namespace mdgnn::engine {
namespace {

class Writer {
  public:
    Writer() {
        out_.imbue(std::locale::classic());
        out_.precision(17);  // digits that give the same number again
    }

    std::string program(const Program& p, const std::string& dtype) {
        weights_ = &p.weights;
        out_ << "{\"version\": " << version_of(p) << ", \"dtype\": ";
        text(dtype);
        out_ << ", \"readout\": ";
        text(p.readout);
        out_ << ", \"cutoff\": ";
        number(p.cutoff);
        arrays(p.arrays);
        instructions(p.instructions);
        list(", \"tables\": ", p.tables, [&](const Table& t) { table(t); });
        out_ << ", \"energies\": ";
        if (p.energies < 0)
            out_ << "null";
        else
            out_ << p.energies;
        list(", \"scale\": ", p.scale, [&](double x) { number(x); });
        list(", \"shift\": ", p.shift, [&](double x) { number(x); });
        list(", \"element_of\": ", p.element_of, [&](std::int64_t n) { out_ << n; });
        if (!p.properties.empty()) list(", \"properties\": ", p.properties, [&](const Property& x) { property(x); });
        out_ << '}';
        return out_.str();
    }

  private:
    void property(const Property& p) {
        out_ << "{\"name\": ";
        text(p.name);
        out_ << ", \"kind\": ";
        text(p.kind);
        out_ << ", \"array\": " << p.array;
        list(", \"scale\": ", p.scale, [&](double x) { number(x); });
        list(", \"shift\": ", p.shift, [&](double x) { number(x); });
        out_ << '}';
    }

    void table(const Table& t) {
        out_ << "{\"name\": ";
        text(t.name);
        out_ << ", \"knots\": " << t.knots << ", \"cutoff\": ";
        number(t.cutoff);
        arrays(t.arrays);
        instructions(t.instructions);
        out_ << ", \"input\": " << t.input << ", \"output\": " << t.output << '}';
    }

    void arrays(const std::vector<Array>& all) {
        list(", \"arrays\": ", all, [&](const Array& a) {
            out_ << "[\"" << name_of(a.space) << "\", " << a.shape.components << ", " << a.shape.channels;
            if (a.base >= 0) out_ << ", " << a.base << ", " << a.first_component << ", " << a.first_channel;
            out_ << ']';
        });
    }

    void instructions(const std::vector<Instruction>& all) {
        list(", \"instructions\": ", all, [&](const Instruction& in) {
            out_ << "{\"op\": \"" << in.type->name << '"';
            list(", \"inputs\": ", in.inputs, [&](int v) { out_ << v; });
            list(", \"outputs\": ", in.outputs, [&](int v) { out_ << v; });
            list(", \"weights\": ", in.weights, [&](int w) { text((*weights_)[w].name); });
            list(", \"numbers\": ", in.numbers, [&](double x) { number(x); });
            out_ << '}';
        });
    }

    template <class Item, class Write>
    void list(const char* before, const std::vector<Item>& items, const Write& write) {
        out_ << before << '[';
        for (std::size_t k = 0; k < items.size(); ++k) {
            if (k > 0) out_ << ", ";
            write(items[k]);
        }
        out_ << ']';
    }

    // JSON has no infinity, which a cutoff may be.
    void number(double x) {
        if (std::isfinite(x))
            out_ << x;
        else
            out_ << "null";
    }

    void text(std::string_view characters) {
        constexpr std::string_view kHex = "0123456789abcdef";
        out_ << '"';
        for (const char c : characters) {
            if (static_cast<unsigned char>(c) < 0x20) {
                out_ << "\\u00" << kHex[static_cast<std::size_t>(c) >> 4] << kHex[static_cast<std::size_t>(c) & 15];
                continue;
            }
            if (c == '"' || c == '\\') out_ << '\\';
            out_ << c;
        }
        out_ << '"';
    }

    std::ostringstream out_;
    const std::vector<Weight>* weights_ = nullptr;
};

}  // namespace

std::string write_program(const Program& program, const std::string& dtype) { return Writer().program(program, dtype); }

}  // namespace mdgnn::engine
