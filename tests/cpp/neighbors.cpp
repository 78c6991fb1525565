// The neighbour list without Python, for sanitizers (make sanitize) and other instruction sets (make levels): random
// structures against all pairs and images, in the same precision and order of operations; filtering, reverse edges,
// reused memory; several callers at once. The last line has a hash of all results.
#include "neighbors/neighbors.hpp"

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "core/block.hpp"

using namespace mdgnn;

namespace {

using Edge = std::tuple<std::int64_t, std::int64_t, std::int32_t, std::int32_t, std::int32_t>;
std::atomic<std::int64_t> n_edges{0}, n_refused{0};
std::atomic<std::size_t> hash{0};  // a sum, since callers come in any order

void expect(bool holds, const char* what, unsigned seed) {
    if (holds) return;
    std::fprintf(stderr, "seed %u: %s\n", seed, what);
    std::abort();
}

template <class T>
struct System {
    std::vector<T> positions;
    T cells[18] = {};
    bool pbc[6] = {};
    std::int64_t first[3] = {};
    bool far = false;  // atoms lie many cells away from the cell, or in vacuum
    NeighborOptions<T> options;

    explicit System(unsigned seed) {
        std::mt19937 random(seed);
        const auto uniform = [&](double a, double b) { return std::uniform_real_distribution<double>(a, b)(random); };
        far = random() % 4 == 0;
        const bool on_grid = random() % 4 == 0;  // pairs at the very cutoff
        const auto number = [&](double x) { return static_cast<T>(on_grid ? std::round(2 * x) / 2 : x); };
        for (int s = 0; s < 2; ++s) first[s + 1] = first[s] + random() % 25;
        for (std::int64_t k = 0; k < 3 * first[2]; ++k) positions.push_back(number(uniform(-2, 3) * (far ? 30 : 1)));
        for (int k = 0; k < 18; ++k) cells[k] = number(uniform(-0.5, 0.5) + (k % 9 % 4 == 0 ? 3 : 0));
        for (bool& p : pbc) p = random() % 2;
        options = {number(uniform(on_grid ? 0.3 : 0.01, 3.5)), random() % 2 == 0, random() % 3 == 0, 3};
    }
    Structures<T> structures() const { return {{positions.data(), first[2], 3}, first, 2, cells, pbc}; }
};

// A list in memory of exact size.
template <class T>
struct List {
    std::vector<std::int64_t> row_ptr, receivers, senders, reverse;
    std::vector<std::int32_t> shifts;
    std::vector<T> vectors, distances;

    explicit List(std::int64_t n_atoms) : row_ptr(n_atoms + 1) {}

    EdgeArrays<T> arrays(bool with_reverse) {
        const auto e = static_cast<std::size_t>(row_ptr.back());
        receivers.resize(e), senders.resize(e), shifts.resize(3 * e), vectors.resize(3 * e), distances.resize(e);
        EdgeArrays<T> out;
        out.receivers = receivers.data(), out.senders = senders.data(), out.shifts32 = shifts.data();
        out.vectors = vectors.data(), out.distances = distances.data();
        if (with_reverse) reverse.resize(e), out.reverse = reverse.data();
        return out;
    }
    std::size_t bits() const {
        std::size_t sum = 0;
        const auto add = [&](const auto& values) {
            const auto* bytes = reinterpret_cast<const char*>(values.data());
            sum = 31 * sum + std::hash<std::string_view>()({bytes, values.size() * sizeof values[0]});
        };
        add(row_ptr), add(receivers), add(senders), add(reverse), add(shifts), add(vectors), add(distances);
        return sum;
    }
    Edge edge(std::size_t k) const {
        return {receivers[k], senders[k], shifts[3 * k], shifts[3 * k + 1], shifts[3 * k + 2]};
    }
};

template <class T>
std::vector<Edge> all_edges(const System<T>& system, int s) {
    std::vector<Edge> found;
    const Structures<T> structures = system.structures();
    const Cell<T> cell = structures.cell(s);
    const auto& o = system.options;
    // Lattice planes are at least 2 apart; atoms at most 9 (far: 260) and the cutoff 3.5.
    std::int32_t reach[3];
    for (int k = 0; k < 3; ++k) reach[k] = system.pbc[3 * s + k] ? (system.far ? 140 : 8) : 0;
    for (std::int64_t i = system.first[s]; i < system.first[s + 1]; ++i)
        for (std::int64_t j = system.first[s]; j < system.first[s + 1]; ++j)
            for (std::int32_t a = -reach[0]; a <= reach[0]; ++a)
                for (std::int32_t b = -reach[1]; b <= reach[1]; ++b)
                    for (std::int32_t c = -reach[2]; c <= reach[2]; ++c) {
                        const std::int32_t shift[3] = {a, b, c};
                        T d[3];
                        edge_vector(structures.positions.row(i), structures.positions.row(j), shift, cell, d);
                        if (!(std::sqrt(squared(d[0], d[1], d[2])) < o.cutoff)) continue;
                        const std::int32_t leading = a != 0 ? a : b != 0 ? b : c;
                        if (i == j && leading == 0 && !o.self_interaction) continue;
                        if (o.half && (j < i || (i == j && leading < 0))) continue;
                        found.push_back({i, j, a, b, c});
                    }
    return found;
}

template <class T>
void check(unsigned seed) {
    const System<T> system(seed);
    const Structures<T> structures = system.structures();
    List<T> list(system.first[2]);
    try {
        cpu::NeighborSearch<T> search(structures, system.options);
        search.count(list.row_ptr.data());
        search.fill(list.row_ptr.data(), list.arrays(!system.options.half));
    } catch (const std::invalid_argument&) {
        ++n_refused;  // a cell too skewed for its positions
        return;
    }
    n_edges += list.row_ptr.back();
    hash += list.bits();
    for (int s = 0; s < 2; ++s) {
        if (system.far && system.pbc[3 * s] + system.pbc[3 * s + 1] + system.pbc[3 * s + 2] > 1) continue;  // too many
        const std::vector<Edge> expected = all_edges(system, s);
        const auto begin = static_cast<std::size_t>(list.row_ptr[system.first[s]]);
        expect(static_cast<std::int64_t>(begin + expected.size()) == list.row_ptr[system.first[s + 1]], "count", seed);
        for (std::size_t k = 0; k < expected.size(); ++k) expect(list.edge(begin + k) == expected[k], "edge", seed);
    }
    for (std::size_t k = 0; k < list.reverse.size(); ++k) {
        const auto [i, j, a, b, c] = list.edge(k);
        expect(list.edge(static_cast<std::size_t>(list.reverse[k])) == Edge{j, i, -a, -b, -c}, "reverse", seed);
    }
    // One structure's list, filtered, is that of a search with the shorter cutoff.
    Structures<T> one = structures;
    one.n = 1, one.positions.rows = system.first[1];
    NeighborOptions<T> options{system.options.cutoff, false, false, 3};
    List<T> wide(one.positions.rows), narrow(one.positions.rows), expected(one.positions.rows);
    const auto search = [&](List<T>& into) {
        cpu::NeighborSearch<T> found(one, options);
        found.count(into.row_ptr.data());
        found.fill(into.row_ptr.data(), into.arrays(true));
    };
    search(wide);
    options.cutoff /= 2;
    search(expected);
    const cpu::ListView view{wide.row_ptr.data(), wide.senders.data(), wide.shifts.data()};
    cpu::count_within(one, options, view, narrow.row_ptr.data());
    cpu::fill_within(one, options, view, narrow.row_ptr.data(), narrow.arrays(false));
    expect(narrow.row_ptr == expected.row_ptr && narrow.senders == expected.senders &&
               narrow.shifts == expected.shifts && narrow.vectors == expected.vectors &&
               narrow.distances == expected.distances,
           "filter", seed);
}

// Two atoms with more neighbours than bits of a mask's first word number, one of them in another cell.
template <class T>
void check_many_images() {
    System<T> system(0);
    system.positions = {T(0.1), T(0.2), T(0.3), T(1.7), T(-0.4), T(0.6)};
    for (int k = 0; k < 18; ++k) system.cells[k] = T(k % 9 % 4 == 0 ? 1 : 0);
    for (bool& p : system.pbc) p = true;
    system.first[1] = system.first[2] = 2;
    for (const bool half : {false, true}) {
        system.options = {T(10.2), false, half, 1};
        List<T> list(2);
        cpu::NeighborSearch<T> search(system.structures(), system.options);
        search.count(list.row_ptr.data());
        search.fill(list.row_ptr.data(), list.arrays(!half));
        const std::vector<Edge> expected = all_edges(system, 0);
        expect(static_cast<std::size_t>(list.row_ptr[2]) == expected.size(), "images", half);
        for (std::size_t k = 0; k < expected.size(); ++k) expect(list.edge(k) == expected[k], "image", half);
        n_edges += list.row_ptr[2];
        hash += list.bits();
    }
}

// Enough atoms that threads share the work, the second of two structures with atoms in several cells.
template <class T>
void check_threads(unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(0, 12);
    constexpr std::int64_t kHalf = 1500;
    const std::int64_t first[3] = {0, kHalf, 2 * kHalf};
    std::vector<T> positions(6 * kHalf), cells(18);
    for (T& x : positions) x = static_cast<T>(uniform(random));
    for (std::size_t k = 3 * kHalf; k < positions.size(); ++k) positions[k] += static_cast<T>(12 * (random() % 3));
    for (int k = 0; k < 18; ++k) cells[k] = T(k % 9 % 4 == 0 ? 12 : 0);
    const bool pbc[6] = {true, true, true, true, false, true};
    const Structures<T> structures{{positions.data(), 2 * kHalf, 3}, first, 2, cells.data(), pbc};
    List<T> alone(2 * kHalf), together(2 * kHalf);
    for (const int n_threads : {1, 3}) {
        List<T>& list = n_threads == 1 ? alone : together;
        cpu::NeighborSearch<T> search(structures, {T(2.5), false, false, n_threads});
        search.count(list.row_ptr.data());
        search.fill(list.row_ptr.data(), list.arrays(true));
    }
    expect(alone.row_ptr == together.row_ptr && alone.bits() == together.bits(), "threads", seed);
    n_edges += alone.row_ptr.back();
    hash += alone.bits();
}

// Memory that is kept and taken by several threads belongs to one of them at a time.
void check_blocks(unsigned seed) {
    std::mt19937 random(seed);
    for (int k = 0; k < 200; ++k) {
        const std::size_t n = (kSmallestBlock + random() % (16 * kSmallestBlock)) / sizeof(unsigned);
        auto* block = static_cast<unsigned*>(allocate_block(n * sizeof(unsigned)));
        for (std::size_t m = 0; m < n; m += 512) block[m] = seed;
        block[n - 1] = seed;
        for (std::size_t m = 0; m < n; m += 512) expect(block[m] == seed, "block", seed);
        expect(block[n - 1] == seed, "block", seed);
        free_block(block);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const unsigned count = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 400;
    std::vector<std::thread> callers;
    for (unsigned caller = 0; caller < 3; ++caller)
        callers.emplace_back([=] {
            for (unsigned seed = caller; seed < count; seed += 3) check<double>(seed), check<float>(seed);
            check_blocks(caller + 1);
        });
    for (std::thread& caller : callers) caller.join();
    check_many_images<double>(), check_many_images<float>();
    check_threads<double>(1), check_threads<float>(2);  // alone: one caller at a time has helpers
    expect(n_refused < count / 50 + 1, "refused", count);
    std::printf("%u batches in both precisions, %lld edges, hash %016zx\n", count, static_cast<long long>(n_edges),
                hash.load());
}
