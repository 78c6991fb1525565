// A model file's energies and forces of a jittered lattice, twice and on one thread, for callgrind to count the second
// time; see instructions.py. Prints numbers of atoms and edges, and how often the second time has asked for memory.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <variant>
#include <vector>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_TOGGLE_COLLECT
#endif

#include "engine/engine.hpp"
#include "engine/file.hpp"

namespace {
long n_allocations = 0;
}

void* operator new(std::size_t size) {
    ++n_allocations;
    if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace mdgnn;

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "expected a model file and the number of atoms along an edge\n"), 1;
    const int m = std::atoi(argv[2]);
    engine::Model model = engine::load_model(argv[1]);
    std::mt19937 random(0);
    std::normal_distribution<double> jitter(0, 0.05);
    std::vector<double> positions;
    for (int k = 0; k < m * m * m; ++k)  // at the density of a liquid, 0.8442
        for (int at : {k / (m * m), k / m % m, k % m}) positions.push_back(1.058 * at + jitter(random));
    const std::int64_t n = m * m * m;
    std::visit(
        [&]<class T>(const engine::Weights<T>& weights) {
            const engine::Program& program = model.program;
            std::vector<std::int64_t> row_ptr{0}, senders, numbers(static_cast<std::size_t>(n), 0);
            while (program.element_of.at(static_cast<std::size_t>(numbers[0])) < 0) ++numbers[0];
            numbers.assign(numbers.size(), numbers[0]);
            std::vector<double> vectors;
            for (std::int64_t i = 0; i < n; ++i) {
                for (std::int64_t j = 0; j < n; ++j) {
                    double d[3], square = 0;
                    for (int c = 0; c < 3; ++c)
                        d[c] = positions[3 * j + c] - positions[3 * i + c], square += d[c] * d[c];
                    if (i == j || square >= program.cutoff * program.cutoff) continue;
                    senders.push_back(j);
                    vectors.insert(vectors.end(), d, d + 3);
                }
                row_ptr.push_back(static_cast<std::int64_t>(senders.size()));
            }
            engine::Structure structure;
            structure.atomic_numbers = numbers.data();
            structure.rows = {row_ptr.data(), senders.data(), nullptr, n};
            structure.vectors = vectors.data();
            const engine::Engine<T> compiled(program, weights);
            std::vector<double> energies(numbers.size()), forces(3 * numbers.size());
            const engine::Outputs out{energies.data(), forces.data(), nullptr};
            compiled.run(structure, out, {1, 0, nullptr});
            const long before = n_allocations;
            CALLGRIND_START_INSTRUMENTATION;
            CALLGRIND_TOGGLE_COLLECT;
            compiled.run(structure, out, {1, 0, nullptr});
            CALLGRIND_TOGGLE_COLLECT;
            std::printf("%ld %ld %ld\n", static_cast<long>(n), static_cast<long>(senders.size()),
                        n_allocations - before);
        },
        model.weights);
}
