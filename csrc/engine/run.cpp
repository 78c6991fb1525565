// What forwards and backwards share: elements, memory, lengths and directions of edges, edges by sender.
#include "engine/run.hpp"

#include <array>
#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>

#include "ops/polar/polar.hpp"

namespace mdgnn::engine {
namespace {

constexpr std::int64_t kEdges = 512;  // whose vectors are rounded at a time
}  // namespace

// What fits into the caches is kept.
template <class T>
Keep Run<T>::how(const Engine<T>& engine, const Structure& structure, bool with_gradients) {
    if (!with_gradients) return Keep::energies_only;
    constexpr std::int64_t kMuch = std::int64_t{1} << 25;
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(T)) * engine.plan(Keep::all).total;
    return structure.rows.n_rows > kMuch / std::max<std::int64_t>(bytes, 1) ? Keep::little : Keep::all;
}

// Atoms in a block: as many as a core's cache has room for. A multiple of the rows of a product's tile, and of the
// numbers in a cache line.
template <class T>
std::int64_t Run<T>::block_of(const Plan& plan) {
    constexpr std::int64_t kBytes = 1 << 18, kUnit = 48;
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(T)) * std::max<std::int64_t>(plan.local, 1);
    return std::clamp<std::int64_t>(kBytes / bytes / kUnit, 1, 20) * kUnit;
}

template <class T>
void Run<T>::find_elements() {
    memory_.elements.resize(static_cast<std::size_t>(n_));
    const std::int64_t known = static_cast<std::int64_t>(program_.element_of.size());
    std::atomic<std::int64_t> unknown = n_;  // the first atom
    parallel_for(n_, 32768, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t z = structure_.atomic_numbers[i];
            const std::int64_t row = z >= 0 && z < known ? program_.element_of[static_cast<std::size_t>(z)] : -1;
            memory_.elements[static_cast<std::size_t>(i)] = row;
            if (row >= 0) continue;
            for (std::int64_t now = unknown; i < now && !unknown.compare_exchange_weak(now, i);) {
            }
            break;
        }
    });
    if (unknown < n_)
        throw std::invalid_argument("the model does not know the atomic number " +
                                    std::to_string(structure_.atomic_numbers[unknown]) + " of atom " +
                                    std::to_string(unknown));
}

// By sender, in order. Blocks of rows are counted and placed by a thread each.
template <class T>
void Run<T>::sort_edges() {
    columns_ = structure_.columns;
    if (columns_.row_ptr) return;
    const Rows& rows = structure_.rows;
    const std::int64_t worth = n_edges_ > 32768 ? n_edges_ / (4 * n_) : 1;  // a block goes through all senders
    const std::int64_t n_blocks = std::clamp<std::int64_t>(worth, 1, std::max(context_.n_threads, 1));
    const auto first_row = [&](std::int64_t block) {
        if (block == n_blocks) return n_;
        return std::lower_bound(rows.row_ptr, rows.row_ptr + n_, block * n_edges_ / n_blocks) - rows.row_ptr;
    };
    memory_.next.assign(static_cast<std::size_t>(n_blocks * n_), 0);
    memory_.col_ptr.resize(static_cast<std::size_t>(n_ + 1));
    memory_.receivers.resize(static_cast<std::size_t>(n_edges_)), memory_.order.resize(memory_.receivers.size());
    std::int64_t *const next = memory_.next.data(), *const col_ptr = memory_.col_ptr.data();
    const auto each_block = [&](const auto& body) {
        parallel_for(n_blocks, 1, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t block = begin; block < end; ++block) body(block, next + block * n_);
        });
    };
    each_block([&](std::int64_t block, std::int64_t* count) {
        const std::int64_t last = rows.row_ptr[first_row(block + 1)];
        for (std::int64_t k = rows.row_ptr[first_row(block)]; k < last; ++k) ++count[rows.index[k]];
    });
    std::int64_t sum = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
        col_ptr[j] = sum;
        for (std::int64_t block = 0; block < n_blocks; ++block) sum += std::exchange(next[block * n_ + j], sum);
    }
    col_ptr[n_] = sum;
    each_block([&](std::int64_t block, std::int64_t* place) {
        const std::int64_t last = first_row(block + 1);
        for (std::int64_t i = first_row(block); i < last; ++i)
            for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
                const std::int64_t to = place[rows.index[k]]++;
                memory_.receivers[static_cast<std::size_t>(to)] = i, memory_.order[static_cast<std::size_t>(to)] = k;
            }
    });
    columns_ = {col_ptr, memory_.receivers.data(), memory_.order.data(), n_};
}

template <class T>
void Run<T>::make_room(bool with_gradients) {
    const auto room = [](AlignedVector<T>& memory, std::int64_t numbers) {
        const std::size_t size = static_cast<std::size_t>(numbers);
        if (memory.size() < size) AlignedVector<T>().swap(memory), memory.resize(size);
    };
    room(memory_.atoms, padded_ * (plan_.total + plan_.spare));
    const std::int64_t n = padded(n_edges_), back = with_gradients, turn = engine_.directions() ? 3 : 0;
    const std::array<std::pair<T**, std::int64_t>, 4> wanted = {
        {{&e_.r, 1}, {&e_.unit, turn}, {&e_.by_r, back}, {&e_.gradients, 3 * back}}};
    std::int64_t width = 0;
    for (const auto& w : wanted) width += w.second;
    room(memory_.edges, n * width);
    T* at = memory_.edges.data();
    for (const auto& [place, w] : wanted)
        if (w > 0) *place = at, at += n * w;
    if (turn > 0) e_.by_unit = e_.gradients;
}

template <class T>
void Run<T>::find_lengths() {
    parallel_for(n_edges_, 16 * kEdges, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        T rounded[3 * kEdges];
        for (std::int64_t k = begin; k < end; k += kEdges) {
            const std::int64_t n = std::min(kEdges, end - k);
            for (std::int64_t m = 0; m < 3 * n; ++m) rounded[m] = static_cast<T>(structure_.vectors[3 * k + m]);
            cpu::polar<T>(rounded, n, e_.r + k, e_.unit ? e_.unit + 3 * k : nullptr, kHere);
        }
    });
}

template <class T>
void Run<T>::find_gradients_of_vectors() {
    parallel_for(n_edges_, 16 * kEdges, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        T rounded[3 * kEdges], found[3 * kEdges];
        for (std::int64_t k = begin; k < end; k += kEdges) {
            const std::int64_t n = std::min(kEdges, end - k);
            for (std::int64_t m = 0; m < 3 * n; ++m) rounded[m] = static_cast<T>(structure_.vectors[3 * k + m]);
            cpu::PolarPair<const T> grad;
            if (written_) grad = {e_.by_r + k, unit_written_ ? e_.by_unit + 3 * k : nullptr};
            cpu::polar_backward<T>(rounded, n, grad, found, kHere);
            std::copy(found, found + 3 * n, e_.gradients + 3 * k);
        }
    });
}

template <class T>
Columns<T> Run<T>::columns(int v, const Place& place, const Block<T>& block) const {
    const Value& value = program_.values[v];
    const std::int64_t stride = value.base < 0 ? value.cols : program_.values[value.base].cols;
    T* const data = place.local ? block.local + place.at * block_
                                : memory_.atoms.data() + place.at * padded_ + block.first * value.blocks * stride;
    return {data + value.first, stride, value.cols};
}

template <class T>
Matrix<T> Run<T>::matrix(int v, const Place& place) const {
    const Value& value = program_.values[v];
    if (place.at < 0) return {nullptr, n_, value.blocks * value.cols};
    return {memory_.atoms.data() + place.at * padded_, n_, value.blocks * value.cols};
}

template <class T>
RadialTable<T> Run<T>::table(const Instruction& in) const {
    const Weight<T>& w = program_.weights[in.weights[0]];
    const double per_unit = static_cast<double>(w.shape[0]) / program_.cutoff;
    return {w.data.data(), w.shape[0], w.shape[2], static_cast<T>(program_.cutoff), static_cast<T>(per_unit)};
}

template <class T>
void Run<T>::clear(const std::vector<int>& arrays, const Block<T>& block, const Context& context) const {
    for (int v : arrays) {
        T* const data = gradient(v, block).data;
        parallel_for(rows_of(v, block) * program_.values[v].cols, 65536, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { std::fill(data + a, data + b, T(0)); });
    }
}

template <class T>
void Run<T>::exchange(const Instruction& in, bool backwards) {
    if (!structure_.exchange) return;
    std::int64_t number = 0;
    for (const Instruction* other = program_.instructions.data(); other != &in; ++other)
        if (is_message(other->code)) number += static_cast<std::int64_t>(other->inputs.size());
    for (int v : in.inputs) {
        const Matrix<T> m = backwards ? gradient(v) : value(v);
        if (!backwards || plan_.needs_gradient[v]) structure_.exchange(number, backwards, m.data, m.cols);
        ++number;
    }
}

template class Run<float>;
template class Run<double>;

}  // namespace mdgnn::engine
