// The first call gathers for every bin its candidates, sorted by (j, S). Each of the bin's atoms compares its distance
// to them in that order, so that rows come out in canonical order without being sorted, and keeps a mask of those that
// are neighbours: less than a byte an edge, and some 2 bytes an edge for the candidates. The second call writes rows in
// the order of atoms, so that memory is written from front to back.
//
// Parallelisation: first bins over threads, then rows; every row is written by one thread.
//
// Cost per edge of a liquid, float64 ijSD, one thread: 0.3 to 0.4 ns for bins, 1.2 to gather, 1.1 to select (5
// candidates an edge) and keep; to write 64 bytes 3.6 ns into the cache and 6 into memory, of which filling the same
// arrays from front to back takes 1.1 and 2.3.
//
// Alternatives that lost (ns per edge, ijSD). Liquid of 2,048 atoms, this one 7.2: the second call searches again and
// writes rows in the order of bins, 12.5 (32,000 atoms: 14.5 against 9.5); on top of that a loop for each array, 24,
// and numbers of edges packed without AVX-512 and triples stored one by one, 15; 16-bit numbers in place of masks, 7.4
// (and 2 bytes an edge), and 48-byte moves kept for every bin. Icosahedron of 147 atoms, this one 4: bins half as wide,
// a sort of every row, results in pieces that are joined, 40. 500 atoms with a few outside of the cell: a shift in
// every candidate instead of a table of them, 12 against 6.5. 97,556 atoms in random order: bins in the order of their
// first atoms took twice as long.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/thread_pool.hpp"
#include "neighbors/candidates.hpp"
#include "neighbors/neighbors.hpp"
#include "neighbors/select.hpp"
#include "neighbors/write.hpp"

namespace mdgnn::cpu {

namespace {

constexpr std::int64_t kAtoms = 64;        // that a thread takes at a time
constexpr std::size_t kLargest = 1 << 16;  // candidates; memory for more, which a long cutoff needs, is given back

thread_local Candidates candidates;

struct GiveBack {
    ~GiveBack() {
        if (std::max(candidates.place.capacity(), candidates.images.capacity()) > kLargest) candidates = {};
    }
};

// Half of the machine's memory.
std::size_t most_saved() {
    static const std::size_t bytes =
        static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 2;
    return bytes;
}

// One of several, for a thread at a time.
class Taken {
  public:
    explicit Taken(std::vector<std::atomic_flag>& all) {
        std::size_t k = 0;
        while (all[k].test_and_set(std::memory_order_acquire)) k = (k + 1) % all.size();
        flag_ = &all[k], number = k;
    }
    ~Taken() { flag_->clear(std::memory_order_release); }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;

    std::size_t number = 0;

  private:
    std::atomic_flag* flag_;
};

}  // namespace

template <class T>
NeighborSearch<T>::NeighborSearch(const Structures<T>& structures, const NeighborOptions<T>& options)
    : structures_(structures), options_(options), limit_(largest_square_below(options.cutoff)) {
    check_input(structures, options.cutoff);
    bins_ = std::make_unique<Bins<T>>(structures, options.cutoff, options.n_threads);
    saved_ = std::make_unique<SavedRows>();
}

template <class T>
NeighborSearch<T>::~NeighborSearch() = default;

template <class T>
void NeighborSearch<T>::search(std::int64_t b, Arena& arena, std::int64_t* row_ptr) {
    Candidates& c = candidates;
    const Bin& bin = bins_->bins[b];
    const Cell<T> cell = structures_.cell(bin.structure);
    gather(*bins_, bin, c);
    const std::size_t before = arena.bytes();
    // More than fits cannot be returned either: rows are counted on, so that the caller can say how many there are.
    const auto fits = [&] { return saved_->bytes + (arena.bytes() - before) <= most_saved(); };
    if (fits()) saved_->bins[b] = save_candidates(arena, *bins_, c);
    for (std::int64_t at = bin.first; at < bin.last; ++at) {
        // In a half list only what follows (i, 0) counts: the order is that of (j, S).
        const std::int64_t self = c.self[at - bin.first], first = options_.half ? self : 0;
        const std::int64_t skip = options_.self_interaction ? -1 : self, i = bins_->order[at];
        if (self >= c.size()) throw std::invalid_argument("positions changed while their neighbours were searched");
        std::int64_t n = select(*bins_, cell, c, self, limit_, first, skip);
        if (options_.pairs) n -= drop_pairs(c, cell, at);
        row_ptr[i + 1] = n;
        if (fits())
            saved_->rows[i] = {save_neighbors(arena, c), static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(at)};
        else
            saved_->complete = false;
    }
    saved_->bytes += arena.bytes() - before;
}

// Takes from the mask what is not below the cutoff of its pair, and returns how much.
template <class T>
std::int64_t NeighborSearch<T>::drop_pairs(Candidates& c, const Cell<T>& cell, std::int64_t at) const {
    const std::int64_t i = bins_->order[at];
    std::int64_t dropped = 0;
    for (std::int64_t w = 0; w < c.words(); ++w)
        for (std::uint64_t left = c.mask[w]; left; left &= left - 1) {
            const std::int64_t k = w * kWord + std::countr_zero(left);
            const T distance = std::sqrt(square_to(*bins_, cell, c, k, at));
            if (distance < static_cast<T>(options_.pairs.of(i, bins_->order[c.at[k]]))) continue;
            c.mask[w] &= ~(left & -left);
            ++dropped;
        }
    return dropped;
}

template <class T>
void NeighborSearch<T>::count(std::int64_t* row_ptr) {
    const std::int64_t n_atoms = structures_.positions.rows, n_bins = static_cast<std::int64_t>(bins_->bins.size());
    saved_->arenas.resize(std::clamp<std::int64_t>(options_.n_threads, 1, std::max<std::int64_t>(1, n_bins)));
    saved_->bins.resize(n_bins), saved_->rows.resize(n_atoms);
    std::vector<std::atomic_flag> in_use(saved_->arenas.size());
    const std::int64_t grain = kAtoms / (n_atoms / (n_bins + 1) + 1) + 1;
    const auto body = [&](std::int64_t begin, std::int64_t end) {
        const Taken arena(in_use);
        const GiveBack at_end;
        for (std::int64_t b = begin; b < end; ++b) search(b, saved_->arenas[arena.number], row_ptr);
    };
    parallel_for(n_bins, grain, options_.n_threads, body, Team::own);
    row_ptr[0] = 0;
    for (std::int64_t i = 0; i < n_atoms; ++i) row_ptr[i + 1] += row_ptr[i];
    bins_->forget_coordinates();
}

template <class T>
bool NeighborSearch<T>::complete() const {
    return saved_->complete;
}

template <class T>
void NeighborSearch<T>::fill(const std::int64_t* row_ptr, const EdgeArrays<T>& out) const {
    const Writer<T> write = choose_writer(out);
    const bool needs_moves = out.shifts || out.shifts32 || out.vectors || out.distances;
    const std::int64_t n_atoms = structures_.positions.rows;
    const auto body = [&](std::int64_t begin, std::int64_t end) {
        Moves<T> moves;
        std::vector<std::uint32_t> numbers;
        for (std::int64_t i = begin; i < end; ++i) {
            const SavedRow row = saved_->rows[i];
            const SavedBin& bin = saved_->bins[row.bin];
            const std::int64_t n = row_ptr[i + 1] - row_ptr[i];
            if (n == 0) continue;
            if (numbers.size() < n + kSpare) numbers.resize(n + kSpare);
            list_neighbors(bin, row, numbers.data());
            Source<T> from{*bins_, bin, row.place, numbers.data(), nullptr, false};
            if (needs_moves) {
                const Shift wrap = bins_->wraps ? bins_->wraps[row.place] : Shift{};
                const Cell<T> cell = structures_.cell(bins_->bins[row.bin].structure);
                from.by_edge = bin.images || bin.n_shifts > n;
                from.moves = from.by_edge ? moves.of_edges(*bins_, bin, numbers.data(), n, row.place, cell)
                                          : moves.of_shifts(bin, wrap, cell);
            }
            write(from, i, n, from_edge(out, row_ptr[i]));
        }
    };
    parallel_for(n_atoms, kAtoms, options_.n_threads, body, Team::own);
    if (out.reverse) reverse_edges(n_atoms, row_ptr, out.senders, out.reverse);
    if (out.reverse32) reverse_edges(n_atoms, row_ptr, out.senders32, out.reverse32);
}

template <class T>
void check_input(const Structures<T>& structures, T cutoff) {
    if (!(cutoff > 0)) throw std::invalid_argument("expected a positive cutoff, got " + in_words(cutoff));
    const Matrix<const T>& r = structures.positions;
    if (r.rows >= (std::int64_t{1} << 31)) throw std::invalid_argument("expected less than 2^31 atoms");
    for (std::int64_t i = 0; i < 3 * r.rows; ++i)
        if (!std::isfinite(r.data[i]))
            throw std::invalid_argument(
                neighbor_error(NeighborCode::position, i / 3, static_cast<double>(cutoff), in_words(r.data[i])));
    if (std::isinf(cutoff))
        for (std::int64_t k = 0; k < 3 * structures.n; ++k)
            if (structures.pbc[k])
                throw std::invalid_argument(
                    neighbor_error(NeighborCode::infinite_cutoff, -1, static_cast<double>(cutoff), ""));
}

template class NeighborSearch<float>;
template class NeighborSearch<double>;
template void check_input<float>(const Structures<float>&, float);
template void check_input<double>(const Structures<double>&, double);

}  // namespace mdgnn::cpu
