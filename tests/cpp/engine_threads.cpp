// Eight threads that begin at once, for the thread sanitiser: each reads the model files, makes engines of its own and
// runs them, and runs the engines that all share; the first uses of everything fall together. The bits are the same.
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.hpp"
#include "engine/file.hpp"

using namespace mdgnn;
using namespace mdgnn::engine;

namespace {

constexpr int kThreads = 8, kRounds = 3;
constexpr std::int64_t kAtoms = 300, kNeighbours = 12;

// A ring in which each atom has the next six on either side: a full list, so that no other order is needed.
struct Ring {
    std::vector<std::int64_t> numbers, row_ptr{0}, senders;
    std::vector<double> vectors;

    Ring() {
        std::mt19937 random(1);
        std::vector<double> shift(3 * kAtoms);
        for (double& x : shift) x = std::uniform_real_distribution<double>(-0.05, 0.05)(random);
        for (std::int64_t i = 0; i < kAtoms; ++i) {
            numbers.push_back(i % 2 ? 1 : 8);
            std::vector<std::int64_t> row;
            for (std::int64_t k = 1; k <= kNeighbours / 2; ++k)
                row.push_back((i + k) % kAtoms), row.push_back((i + kAtoms - k) % kAtoms);
            std::sort(row.begin(), row.end());
            for (const std::int64_t j : row) {
                std::int64_t steps = (j - i + kAtoms) % kAtoms;
                if (steps > kAtoms / 2) steps -= kAtoms;
                for (int c = 0; c < 3; ++c)
                    vectors.push_back((c == 0 ? 0.3 * steps : 0.0) + shift[3 * j + c] - shift[3 * i + c]);
                senders.push_back(j);
            }
            row_ptr.push_back(static_cast<std::int64_t>(senders.size()));
        }
    }
};

template <class T>
std::vector<double> run(const Engine<T>& engine, const Ring& ring, int n_threads) {
    const Program& program = engine.program();
    std::vector<double> result((13 + program.properties.size()) * kAtoms);
    Structure structure;
    structure.atomic_numbers = ring.numbers.data();
    structure.rows = {ring.row_ptr.data(), ring.senders.data(), nullptr, kAtoms};
    structure.vectors = ring.vectors.data();
    double* const begin = result.data();
    Outputs out{begin, begin + kAtoms, begin + 4 * kAtoms, begin + 13 * kAtoms};
    if (program.energies < 0) out.energies = out.forces = out.virials = nullptr;
    engine.run(structure, out, {n_threads, 0, nullptr});
    return result;
}

using Either = std::variant<std::unique_ptr<Engine<float>>, std::unique_ptr<Engine<double>>>;

Either made(const std::string& path) {
    Model model = load_model(path);
    return std::visit(
        [&]<class T>(Weights<T>& weights) -> Either {
            return std::make_unique<Engine<T>>(std::move(model.program), std::move(weights), 2);
        },
        model.weights);
}

std::vector<double> result(const Either& engine, const Ring& ring, int n_threads) {
    return std::visit([&](const auto& e) { return run(*e, ring, n_threads); }, engine);
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> paths(argv + 1, argv + argc);
    const Ring ring;
    std::vector<Either> shared;
    for (const std::string& path : paths) shared.push_back(made(path));
    std::vector<std::vector<std::vector<double>>> results(kThreads);
    std::barrier together(kThreads);
    std::vector<std::thread> threads;
    for (int id = 0; id < kThreads; ++id)
        threads.emplace_back([&, id] {
            together.arrive_and_wait();
            for (int round = 0; round < kRounds; ++round)
                for (std::size_t k = 0; k < paths.size(); ++k) {
                    const int n_threads = 1 + (id + round) % 3;
                    results[id].push_back(result(made(paths[k]), ring, n_threads));
                    results[id].push_back(result(shared[k], ring, n_threads));
                }
        });
    for (std::thread& thread : threads) thread.join();
    for (int id = 0; id < kThreads; ++id)
        for (std::size_t n = 0; n < results[id].size(); ++n) {
            const auto& expected = results[0][n / 2 % paths.size() * 2];
            if (std::memcmp(results[id][n].data(), expected.data(), expected.size() * sizeof(double)) == 0) continue;
            std::fprintf(stderr, "other bits in thread %d, result %zu\n", id, n);
            return 1;
        }
    std::printf("%d threads, %zu models, %zu results each: the same bits\n", kThreads, paths.size(), results[0].size());
}
