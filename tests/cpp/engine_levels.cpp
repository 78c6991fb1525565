// The engine on a structure and model files, against what the package made of them (tests/support/wide_model_files.py):
// compiled for other levels of SIMD (make levels-engine) and another architecture (make neon). Between them results
// agree to rounding; within one they have the same bits for any number of threads.
//
//   engine_levels STRUCTURE MODEL ...
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "core/simd.hpp"
#include "engine/engine.hpp"
#include "engine/file.hpp"

using namespace mdgnn;

namespace {

// Roundings of the largest number: where a length lies between two knots loses the digits of the knot's number, 64.
constexpr double kBound = 500;

[[noreturn]] void fail(const std::string& sentence) {
    std::fprintf(stderr, "%s\n", sentence.c_str());
    std::exit(1);
}

template <class T>
std::vector<T> numbers(std::ifstream& in, std::int64_t n) {
    std::vector<T> x(static_cast<std::size_t>(n));
    in.read(reinterpret_cast<char*>(x.data()), n * static_cast<std::int64_t>(sizeof(T)));
    if (!in) fail("expected more bytes");
    return x;
}

struct System {
    std::vector<std::int64_t> sizes, atomic_numbers, row_ptr, senders;
    std::vector<double> vectors;

    explicit System(const char* path) {
        std::ifstream in(path, std::ios::binary);
        sizes = numbers<std::int64_t>(in, 2);
        atomic_numbers = numbers<std::int64_t>(in, n()), row_ptr = numbers<std::int64_t>(in, n() + 1);
        senders = numbers<std::int64_t>(in, sizes[1]), vectors = numbers<double>(in, 3 * sizes[1]);
    }
    std::int64_t n() const { return sizes[0]; }
};

// Energies, forces and virials, one after the other.
template <class T>
std::vector<double> run(const engine::Engine<T>& engine, const System& system, int n_threads) {
    std::vector<double> result(static_cast<std::size_t>(13 * system.n()));
    engine::Structure structure;
    structure.atomic_numbers = system.atomic_numbers.data();
    structure.rows = {system.row_ptr.data(), system.senders.data(), nullptr, system.n()};
    structure.vectors = system.vectors.data();
    double* const begin = result.data();
    engine.run(structure, {begin, begin + system.n(), begin + 4 * system.n()}, {n_threads, 0, nullptr});
    return result;
}

// The largest difference of numbers begin .. end, in roundings of the largest number.
template <class T>
double difference(const std::vector<double>& x, const std::vector<double>& expected, std::int64_t begin,
                  std::int64_t end) {
    double most = 0, size = 0;
    for (std::int64_t k = begin; k < end; ++k) {
        if (!std::isfinite(x[k])) fail("expected finite numbers");
        most = std::max(most, std::abs(x[k] - expected[k])), size = std::max(size, std::abs(expected[k]));
    }
    return most / size / static_cast<double>(std::numeric_limits<T>::epsilon());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) fail("expected a structure and model files");
    const System system(argv[1]);
    double largest = 0;
    for (int k = 2; k < argc; ++k) {
        const std::string path = argv[k];
        std::ifstream in(path.substr(0, path.rfind('.')) + ".expected", std::ios::binary);
        const std::vector<double> expected = numbers<double>(in, 13 * system.n());
        engine::Model model = engine::load_model(path);
        std::visit(
            [&]<class T>(engine::Weights<T>& weights) {
                const engine::Engine<T> compiled(std::move(model.program), std::move(weights));
                const std::vector<double> x = run(compiled, system, 1);
                if (run(compiled, system, 3) != x) fail(path + ": other bits on three threads");
                const std::int64_t n = system.n(), parts[] = {0, n, 4 * n, 13 * n};
                for (int p = 0; p < 3; ++p) {
                    const double d = difference<T>(x, expected, parts[p], parts[p + 1]);
                    largest = std::max(largest, d);
                    if (!(d < kBound)) fail(path + ": differs by " + std::to_string(d) + " roundings");
                }
            },
            model.weights);
    }
    std::printf("vectors of %d bytes: %d models, on 1 and 3 threads the same bits, largest difference %.1f roundings\n",
                vector_bytes(), argc - 2, largest);
}
