// Times a model file's energies and forces in turns with a loop of multiply-adds; see peak.py.
//
//   peak THREADS MODEL STRUCTURE ...   ->   a line for each structure: bytes of vectors, atoms, edges,
//                                           seconds a step, operations a second of the loop, 1 / (step x operations)
//
// A structure is a binary file: numbers of atoms and edges, atomic numbers, row_ptr, senders (int64), vectors
// (float64). Turns last some milliseconds; medians over turns.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <variant>
#include <vector>

#include "core/simd.hpp"
#include "core/vectors.hpp"
#include "engine/engine.hpp"
#include "engine/file.hpp"

using namespace mdgnn;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

constexpr long kChains = 12, kTurns = 2000000;  // so many chains that every unit has work in each cycle

template <int kBytes, class T>
MDGNN_INLINE void multiply_add(T* out) {
    using V = typename Wide<T, kBytes>::type;
    V sums[kChains], a = V{} + out[0], b = V{} + out[1];
    for (long c = 0; c < kChains; ++c) sums[c] = V{} + out[3 + c];  // or compilers see that all are the same
    for (long k = 0; k < kTurns; ++k) {
#pragma GCC unroll 12
        for (V& sum : sums) sum = sum * a + b;
    }
    for (const V& sum : sums) out[2] += sum[0];
}

#define LOOPS(T, target, bytes) \
    [[maybe_unused]] target void loop(Vectors<bytes>, T* out) { multiply_add<bytes, T>(out); }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

// On so many threads at once, in operations a second.
double peak(int n_threads) {
    std::vector<std::thread> threads;
    const auto work = [] {
        float numbers[3 + kChains] = {0.5f, 0.5f};
        for (long c = 0; c < kChains; ++c) numbers[3 + c] = static_cast<float>(c);
        with_vectors([&](auto v) { loop(v, numbers); });
        volatile float used = numbers[2];
        static_cast<void>(used);
    };
    const double begin = seconds();
    for (int t = 1; t < n_threads; ++t) threads.emplace_back(work);
    work();
    for (std::thread& t : threads) t.join();
    const double time = seconds() - begin, lanes = vector_bytes() / sizeof(float);
    return 2.0 * kChains * kTurns * lanes * n_threads / time;
}

double median(std::vector<double> x) {
    std::sort(x.begin(), x.end());
    return x[x.size() / 2];
}

template <class T>
std::vector<T> numbers(std::ifstream& in, std::int64_t n) {
    std::vector<T> x(static_cast<std::size_t>(n));
    in.read(reinterpret_cast<char*>(x.data()), n * static_cast<std::int64_t>(sizeof(T)));
    return x;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return std::fprintf(stderr, "expected the number of threads, a model file and structures\n"), 1;
    const int n_threads = std::atoi(argv[1]);
    engine::Model model = engine::load_model(argv[2]);
    std::visit(
        [&]<class T>(const engine::Weights<T>& weights) {
            const engine::Engine<T> compiled(model.program, weights, n_threads);
            for (int k = 3; k < argc; ++k) {
                std::ifstream in(argv[k], std::ios::binary);
                const auto sizes = numbers<std::int64_t>(in, 2);
                const auto atomic_numbers = numbers<std::int64_t>(in, sizes[0]);
                const auto row_ptr = numbers<std::int64_t>(in, sizes[0] + 1);
                const auto senders = numbers<std::int64_t>(in, sizes[1]);
                const auto vectors = numbers<double>(in, 3 * sizes[1]);
                if (!in) std::fprintf(stderr, "%s: expected more bytes\n", argv[k]), std::exit(1);
                engine::Structure structure;
                structure.atomic_numbers = atomic_numbers.data();
                structure.rows = {row_ptr.data(), senders.data(), nullptr, sizes[0]};
                structure.vectors = vectors.data();
                std::vector<double> energies(static_cast<std::size_t>(sizes[0])), forces(3 * energies.size());
                const engine::Outputs out{energies.data(), forces.data(), nullptr};
                compiled.run(structure, out, {n_threads, 0, nullptr});
                std::vector<double> steps, peaks, ratios;
                const double start = seconds();
                while (steps.size() < 7 || (seconds() - start < 1.5 && steps.size() < 200)) {
                    peaks.push_back(peak(n_threads));
                    const double begin = seconds();
                    compiled.run(structure, out, {n_threads, 0, nullptr});
                    steps.push_back(seconds() - begin);
                    ratios.push_back(1 / (steps.back() * peaks.back()));
                }
                std::printf("%d %ld %ld %.9g %.9g %.9g\n", vector_bytes(), static_cast<long>(sizes[0]),
                            static_cast<long>(sizes[1]), median(steps), median(peaks), median(ratios));
            }
        },
        model.weights);
}
