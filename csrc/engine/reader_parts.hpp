// What the readers of both versions of programs share.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/json.hpp"
#include "engine/program.hpp"
#include "engine/reader.hpp"

namespace mdgnn::engine {

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

std::vector<JsonValue> list(const JsonValue& value, const std::string& what);
std::vector<std::int64_t> integers(const JsonValue& value, const std::string& what);
std::vector<double> numbers(const JsonValue& value, const std::string& what);
std::vector<int> array_numbers(const JsonValue& value, const std::string& what);
int array_number(std::int64_t n, const std::string& what);
double cutoff_of(const JsonValue& value);
std::string readout_of(const JsonValue& value);

// Weights by name; each is read once, whoever takes it.
template <class T>
class WeightReader {
  public:
    WeightReader(Program& program, const WeightSource<T>& source) : program_(program), source_(source) {}

    // Reserves a place for the coefficients of a table.
    int add_table(const std::string& name, int table) {
        const auto [at, is_new] = numbers_.emplace(name, static_cast<int>(weights.size()));
        if (!is_new)
            throw std::invalid_argument("expected weights and tables of different names, got '" + printable(name) +
                                        "' twice");
        program_.weights.push_back({name, {}, table});
        weights.emplace_back();
        return at->second;
    }

    std::vector<int> read(const JsonValue& names, const std::string& what) {
        std::vector<int> out;
        for (const JsonValue& item : list(names, "the weights of " + what)) {
            const std::string name = item.string("a weight of " + what);
            const auto at = numbers_.find(name);
            if (at != numbers_.end()) {
                out.push_back(at->second);
                continue;
            }
            auto [shape, data] = source_(name, what);
            out.push_back(numbers_[name] = static_cast<int>(weights.size()));
            program_.weights.push_back({name, std::move(shape)});
            weights.push_back(std::move(data));
        }
        return out;
    }

    Weights<T> weights;

  private:
    Program& program_;
    const WeightSource<T>& source_;
    std::map<std::string, int> numbers_;
};

template <class T>
Model read_version_1(const JsonValue& from, const WeightSource<T>& source);

}  // namespace mdgnn::engine
