// A table's program at its knots by dual numbers: every instruction gives its value and, from the values and
// derivatives of its inputs, its derivative with respect to r.
//
// Parallelisation: blocks of knots over threads; knots do not depend on each other. Memory traffic: a block's arrays,
// which are in the cache, and the coefficients once. Floor: two products of float64 a linear layer and knot; three
// tables of 1,024 knots, 20 -> 192, are 24 million multiply-adds. The kernels are those of the engine in float64.
#include "engine/tables.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "core/scratch.hpp"
#include "core/thread_pool.hpp"
#include "engine/instruction.hpp"
#include "engine/json.hpp"
#include "engine/prepare.hpp"

namespace mdgnn::engine {
namespace {

constexpr std::int64_t kMostNumbers = 1 << 15;  // of a block's values: a core's cache has room for them

struct TableMemory {
    std::vector<double> numbers;
};

struct Knots {
    std::vector<double> values, tangents;  // (knots, width); the latter times the spacing of knots
};

// As torch.linspace: from either end, so that the last knot is the cutoff.
double knot(const Table& table, std::int64_t k) {
    const double spacing = table.cutoff / static_cast<double>(table.knots - 1);
    return k < table.knots / 2 ? spacing * static_cast<double>(k)
                               : table.cutoff - spacing * static_cast<double>(table.knots - 1 - k);
}

Knots evaluate(const Table& table, const std::vector<Prepared<double>>& prepared, int n_threads) {
    std::vector<Place> values(table.arrays.size()), tangents(table.arrays.size());
    std::int64_t width = 0;
    for (std::size_t v = 0; v < table.arrays.size(); ++v)
        if (table.arrays[v].base < 0) {
            const std::int64_t n = table.arrays[v].shape.size();
            values[v] = {true, width}, tangents[v] = {true, width + n}, width += 2 * n;
        }
    for (std::size_t v = 0; v < table.arrays.size(); ++v) {
        const int base = whole(table.arrays, static_cast<int>(v));
        values[v] = values[base], tangents[v] = tangents[base];
    }
    const std::int64_t room = std::clamp<std::int64_t>(kMostNumbers / width / 6 * 6, 6, 96);
    const std::int64_t n_channels = table.arrays[table.output].shape.channels;
    const double spacing = table.cutoff / static_cast<double>(table.knots - 1);
    Knots knots;
    knots.values.resize(static_cast<std::size_t>(table.knots * n_channels));
    knots.tangents.resize(knots.values.size());
    parallel_for((table.knots + room - 1) / room, 1, n_threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<double>& memory = scratch_of_this_thread<TableMemory>().numbers;
        memory.resize(std::max(memory.size(), static_cast<std::size_t>(room * width)));
        for (std::int64_t b = begin; b < end; ++b) {
            const std::int64_t first = b * room, n = std::min(room, table.knots - first);
            const Block<double> block{&table.arrays, &values, &tangents, 0, n, nullptr, memory.data(), 0, room};
            for (std::int64_t i = 0; i < n; ++i)
                *block.value(table.input).at(i, 0) = knot(table, first + i),
                                                *block.gradient(table.input).at(i, 0) = spacing;
            for (std::size_t k = 0; k < table.instructions.size(); ++k) {
                const Step<double> step{table.instructions[k], prepared[k], block};
                table.instructions[k].type->float64.forward(step);
                table.instructions[k].type->float64.tangent(step);
            }
            for (std::int64_t i = 0; i < n; ++i) {
                const std::int64_t to = (first + i) * n_channels;
                std::copy_n(block.value(table.output).at(i, 0), n_channels, knots.values.data() + to);
                std::copy_n(block.gradient(table.output).at(i, 0), n_channels, knots.tangents.data() + to);
            }
        }
    });
    return knots;
}

// In float32, zero where value and tangent are below 1e-30: with subnormal numbers, which they and their products with
// gradients would be, additions take a hundred times as long.
void remove_subnormal(Knots& knots) {
    for (std::size_t k = 0; k < knots.values.size(); ++k)
        if (std::max(std::abs(knots.values[k]), std::abs(knots.tangents[k])) < 1e-30)
            knots.values[k] = knots.tangents[k] = 0;
}

// Of 1, t, t^2 and t^3 on each interval, t from 0 to 1.
template <class T>
AlignedVector<T> hermite(const Knots& knots, std::int64_t n_knots, std::int64_t width, int n_threads) {
    AlignedVector<T> out(static_cast<std::size_t>((n_knots - 1) * 4 * width));
    parallel_for(n_knots - 1, 128, n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t g = begin; g < end; ++g) {
            const double *const f = knots.values.data() + g * width, *const s = knots.tangents.data() + g * width;
            T* const to = out.data() + g * 4 * width;
            for (std::int64_t c = 0; c < width; ++c) {
                const double d = f[width + c] - f[c], s0 = s[c], s1 = s[width + c];
                to[c] = static_cast<T>(f[c]);
                to[width + c] = static_cast<T>(s0);
                to[2 * width + c] = static_cast<T>(3 * d - 2 * s0 - s1);
                to[3 * width + c] = static_cast<T>(s0 + s1 - 2 * d);
            }
        }
    });
    return out;
}

// Weights may be finite and their function is not. Names the layer: who takes the table, and the weights of its
// network.
template <class T>
void check_finite(const Program& program, int weight, const AlignedVector<T>& coefficients) {
    const auto bad = std::find_if(coefficients.begin(), coefficients.end(), [](T x) { return !std::isfinite(x); });
    if (bad == coefficients.end()) return;
    const Table& table = program.tables[program.weights[weight].table];
    std::string taken, made;
    for (std::size_t k = 0; k < program.instructions.size() && taken.empty(); ++k)
        if (std::count(program.instructions[k].weights.begin(), program.instructions[k].weights.end(), weight))
            taken = ", which " + std::string(program.instructions[k].type->name) + ", instruction " +
                    std::to_string(k) + ", takes";
    for (const Instruction& in : table.instructions)
        for (const int w : in.weights)
            if (in.type->has_matrices)
                made += (made.empty() ? " of weights '" : ", '") + printable(program.weights[w].name) + "'";
    const auto interval = (bad - coefficients.begin()) / (4 * table.arrays[table.output].shape.channels);
    throw std::invalid_argument("expected finite numbers in table '" + printable(table.name) + "'" + made + taken +
                                ", got " + (std::isnan(*bad) ? "NaN" : "infinity") + " from knot " +
                                std::to_string(interval) + " on");
}

}  // namespace

template <class T>
void make_tables(const Program& program, Weights<T>& weights, int n_threads) {
    if (program.tables.empty()) return;
    Weights<double> exact(weights.size());
    for (const Table& table : program.tables)
        for (const Instruction& in : table.instructions)
            for (const int w : in.weights)
                if (exact[w].empty()) exact[w].assign(weights[w].begin(), weights[w].end());
    for (std::size_t w = 0; w < weights.size(); ++w) {
        if (program.weights[w].table < 0) continue;
        const Table& table = program.tables[program.weights[w].table];
        std::deque<Packed<double>> packed;
        const auto prepared = prepare(program, exact, table.instructions, false, packed);
        Knots knots = evaluate(table, prepared, n_threads);
        if constexpr (std::is_same_v<T, float>) remove_subnormal(knots);
        weights[w] = hermite<T>(knots, table.knots, table.arrays[table.output].shape.channels, n_threads);
        check_finite(program, static_cast<int>(w), weights[w]);
    }
}

template void make_tables<float>(const Program&, Weights<float>&, int);
template void make_tables<double>(const Program&, Weights<double>&, int);

}  // namespace mdgnn::engine
