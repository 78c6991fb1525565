// The edges at the present positions: those of a list with a skin that are within the cutoff. They are the edges of a
// fresh search, bit for bit, whenever the list was made.
//
// Which edges are within the cutoff stays from step to step where few are near it, as in clusters, or changes with
// nearly every step, as in liquids. So each step computes vectors as if nothing had changed, and looks whether that
// holds; senders, and the order of edges by sender, are there already then.
//
// Parallelisation: rows over threads; of a small system none. Memory traffic: the list once, the vectors once. Floor:
// 13 atoms have 156 edges, of 4 loads and 12 operations each: 0.3 us. Lost: to count and then to write the edges of
// every step, and to sort them by sender, 5 times as long.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "core/scratch.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "dynamics/system.hpp"
#include "neighbors/math.hpp"
#include "neighbors/write.hpp"

namespace mdgnn::dynamics {
namespace {

constexpr std::int64_t kGrain = 128;  // rows

using V = cpu::Four<double>::type;

struct Place {
    double r[4];
};

// Of the thread: positions in fours, and the vectors of edges.
struct Memory {
    std::vector<Place> places;
    std::vector<double> vectors;
};

struct Filter {
    const SkinList& list;
    const Place* places;
};

// The vector of edge k of a list, from ri on; the order of operations is that of edge_vector.
inline __attribute__((always_inline)) double vector_of(const Filter& f, const V& ri, std::size_t k, V& d) {
    V rj, offset = {};
    cpu::load_four<double>(f.places[f.list.senders[k]].r, rj);
    if (!f.list.offsets.empty()) cpu::load_four<double>(f.list.offsets.data() + 4 * k, offset);
    d = (rj - ri) + offset;
    return squared(d[0], d[1], d[2]);
}

// Vectors of the rows begin .. end, where the same edges are within the cutoff as before; false where others are. The
// smallest square goes to `smallest`.
MDGNN_SIMD_CLONES bool fill_rows(const Filter& f, std::int64_t begin, std::int64_t end, double* vectors,
                                 double* smallest) {
    bool same = true;
    double least = std::numeric_limits<double>::infinity();
    for (std::int64_t i = begin; i < end; ++i) {
        V ri, d;
        cpu::load_four<double>(f.places[i].r, ri);
        double* to = vectors + 3 * f.list.near_row_ptr[static_cast<std::size_t>(i)];
        double* const last = vectors + 3 * f.list.near_row_ptr[static_cast<std::size_t>(i) + 1];
        const std::size_t stop = static_cast<std::size_t>(f.list.row_ptr[static_cast<std::size_t>(i) + 1]);
        for (std::size_t k = static_cast<std::size_t>(f.list.row_ptr[static_cast<std::size_t>(i)]); k < stop; ++k) {
            const double square = vector_of(f, ri, k, d);
            const bool within = square <= f.list.limit;
            least = std::min(least, square);
            same &= within == static_cast<bool>(f.list.within[k]);
            // Every edge is written, before the row's end; the next one takes its place if it is too long.
            if (to < last) std::memcpy(to, &d, 3 * sizeof(double));
            to += within ? 3 : 0;
        }
    }
    *smallest = least;
    return same;
}

// Which edges are within the cutoff; whether others are than before.
MDGNN_SIMD_CLONES bool mark_rows(const Filter& f, std::int64_t begin, std::int64_t end, char* within,
                                 std::int64_t* counts) {
    bool changed = false;
    for (std::int64_t i = begin; i < end; ++i) {
        V ri, d;
        cpu::load_four<double>(f.places[i].r, ri);
        std::int64_t count = 0;
        const std::size_t stop = static_cast<std::size_t>(f.list.row_ptr[static_cast<std::size_t>(i) + 1]);
        for (std::size_t k = static_cast<std::size_t>(f.list.row_ptr[static_cast<std::size_t>(i)]); k < stop; ++k) {
            const char is = vector_of(f, ri, k, d) <= f.list.limit;
            changed |= is != within[k], within[k] = is, count += is;
        }
        counts[i] = count;
    }
    return changed;
}

// Whether other edges are within the cutoff than before; which, is in the list then.
bool choose(System& s, const Filter& f, int n_threads) {
    SkinList& list = s.list;
    std::atomic<bool> changed = list.near_row_ptr.empty();
    list.within.resize(list.senders.size()), list.near_row_ptr.resize(list.row_ptr.size());
    parallel_for(s.n, kGrain, n_threads, [&](std::int64_t begin, std::int64_t end) {
        if (mark_rows(f, begin, end, list.within.data(), list.near_row_ptr.data() + 1)) changed = true;
    });
    list.near_row_ptr[0] = 0;
    for (std::size_t i = 1; i < list.near_row_ptr.size(); ++i) list.near_row_ptr[i] += list.near_row_ptr[i - 1];
    if (!changed) return false;
    list.near_senders.resize(static_cast<std::size_t>(list.near_row_ptr.back()));
    parallel_for(s.n, kGrain, n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::size_t i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            std::int64_t* to = list.near_senders.data() + list.near_row_ptr[i];
            const std::int64_t* const last = list.near_senders.data() + list.near_row_ptr[i + 1];
            for (std::int64_t k = list.row_ptr[i]; k < list.row_ptr[i + 1]; ++k) {
                if (to < last) *to = list.senders[static_cast<std::size_t>(k)];
                to += list.within[static_cast<std::size_t>(k)];
            }
        }
    });
    list.columns.row_ptr.clear();
    return true;
}

// Edges by sender. Their row_ptr, which says that they are there, comes last: memory may not suffice.
void sort_by_sender(std::int64_t n, const SkinList& list, SkinList::Columns& columns) {
    const std::size_t n_edges = list.near_senders.size();
    columns.receivers.resize(n_edges), columns.edges.resize(n_edges);
    std::vector<std::int64_t> row_ptr(static_cast<std::size_t>(n + 1), 0);
    for (const std::int64_t j : list.near_senders) ++row_ptr[static_cast<std::size_t>(j) + 1];
    for (std::size_t j = 1; j < row_ptr.size(); ++j) row_ptr[j] += row_ptr[j - 1];
    std::vector<std::int64_t> next(row_ptr.begin(), row_ptr.end() - 1);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t k = list.near_row_ptr[static_cast<std::size_t>(i)];
             k < list.near_row_ptr[static_cast<std::size_t>(i) + 1]; ++k) {
            const std::size_t sender = static_cast<std::size_t>(list.near_senders[static_cast<std::size_t>(k)]);
            const std::size_t to = static_cast<std::size_t>(next[sender]++);
            columns.receivers[to] = i, columns.edges[to] = k;
        }
    columns.row_ptr = std::move(row_ptr);
}

bool fill(const System& s, const Filter& f, int n_threads, double* vectors, double& smallest) {
    std::atomic<bool> same = true;
    std::atomic<double> least = std::numeric_limits<double>::infinity();
    parallel_for(s.n, kGrain, n_threads, [&](std::int64_t begin, std::int64_t end) {
        double mine;
        if (!fill_rows(f, begin, end, vectors, &mine)) same = false;
        for (double now = least; mine < now && !least.compare_exchange_weak(now, mine);) {
        }
    });
    smallest = least;
    return same;
}

double largest(const double* numbers, std::size_t n) {
    double most = 0;
    for (std::size_t k = 0; k < n; ++k) most = std::max(most, std::abs(numbers[k]));
    return most;
}

// Whether no pair outside of the list can have come within the cutoff. False for positions that are not finite.
bool is_valid(const System& s) {
    const std::vector<double>&r = s.positions, &r0 = s.list.positions;
    if (r0.size() != r.size() || r.empty()) return false;
    bool valid = true;
    for (std::size_t k = 0; k < r.size(); k += 3) {
        const double x = r[k] - r0[k], y = r[k + 1] - r0[k + 1], z = r[k + 2] - r0[k + 2];
        valid &= x * x + y * y + z * z < s.list.largest_square;
    }
    return valid;
}

void search(System& s, const Model& model, int n_threads) {
    SkinList& list = s.list;
    list.positions.clear(), list.near_row_ptr.clear(), list.steady = false;
    const std::int64_t first[2] = {0, s.n};
    const Structures<double> structure{{s.positions.data(), s.n, 3}, first, 1, s.cell, s.pbc};
    const double reach = model.cutoff + model.skin;
    cpu::NeighborSearch<double> search(structure, {reach, false, false, n_threads, {}});
    list.row_ptr.resize(static_cast<std::size_t>(s.n + 1));
    search.count(list.row_ptr.data());
    if (!search.complete()) throw std::bad_alloc();
    const std::size_t n_edges = static_cast<std::size_t>(list.row_ptr.back());
    list.senders.resize(n_edges);
    // Room for `choose`, which must not fail half-way: its marks would say that nothing has changed.
    list.within.reserve(n_edges), list.near_senders.reserve(n_edges), list.near_row_ptr.reserve(list.row_ptr.size());
    std::vector<std::int32_t> shifts(3 * n_edges);
    EdgeArrays<double> out;
    out.senders = list.senders.data(), out.shifts32 = shifts.data();
    search.fill(list.row_ptr.data(), out);
    const bool periodic = s.pbc[0] || s.pbc[1] || s.pbc[2];
    list.offsets.assign(periodic ? 4 * n_edges : 0, 0.0);
    const Cell<double> cell = structure.cell(0);
    for (std::size_t k = 0; k < n_edges && periodic; ++k)
        for (std::size_t c = 0; c < 3; ++c)
            list.offsets[4 * k + c] =
                translation<double>(shifts[3 * k], shifts[3 * k + 1], shifts[3 * k + 2], cell, static_cast<int>(c));
    // Two atoms may come nearer by the skin; positions are within half of it of these.
    const double size = 2 * largest(s.positions.data(), s.positions.size()) + largest(s.cell, 9) + reach + model.skin;
    const double rounding = 64 * std::numeric_limits<double>::epsilon() * size * s.condition;
    const double most = std::max(0.5 * (model.skin - rounding) * (1 - 1e-12), 0.0);
    list.largest_square = most * most, list.limit = largest_square_below(model.cutoff);
    list.positions = s.positions;
}

}  // namespace

Edges find_edges(System& s, const Model& model, int n_threads) {
    Memory& memory = scratch_of_this_thread<Memory>();
    if (!is_valid(s)) search(s, model, n_threads);
    memory.places.resize(static_cast<std::size_t>(s.n));
    for (std::size_t i = 0; i < memory.places.size(); ++i)
        std::memcpy(memory.places[i].r, s.positions.data() + 3 * i, 3 * sizeof(double));
    SkinList& list = s.list;
    const Filter filter{list, memory.places.data()};
    const auto fill_vectors = [&](double& smallest) {
        memory.vectors.resize(3 * list.near_senders.size());
        return fill(s, filter, n_threads, memory.vectors.data(), smallest);
    };
    double smallest = 0;
    if (!list.steady || !fill_vectors(smallest)) {
        list.steady = !choose(s, filter, n_threads);
        fill_vectors(smallest);
    } else if (list.columns.row_ptr.empty()) {
        sort_by_sender(s.n, list, list.columns);
    }
    const bool sorted = !list.columns.row_ptr.empty();
    Edges edges;
    edges.rows = {list.near_row_ptr.data(), list.near_senders.data(), nullptr, s.n};
    if (sorted)
        edges.columns = {list.columns.row_ptr.data(), list.columns.receivers.data(), list.columns.edges.data(), s.n};
    edges.vectors = memory.vectors.data();
    edges.shortest = std::sqrt(smallest);
    return edges;
}

}  // namespace mdgnn::dynamics
