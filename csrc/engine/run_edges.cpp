// Atoms and edges of a call: elements, memory, edges by sender, lengths and directions and their gradients.
//
// Without directions lengths are a loop that compilers vectorise, and the gradient of a vector needs no square root and
// no sums: of 156 edges 0.3 us instead of 1.4.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "engine/run.hpp"
#include "ops/polar/polar.hpp"

namespace mdgnn::engine {
namespace {

constexpr std::int64_t kEdges = 512;  // whose vectors are rounded at a time

// Of n edges, with the bits of polar_backward where nothing has taken directions: gradients of r times v / r.
template <class T>
MDGNN_INLINE void along(const double* vectors, std::int64_t n, const T* r, const T* grad_r, T* out) {
    T inverse[kEdges];
    for (std::int64_t k = 0; k < n; ++k) inverse[k] = T(1) / r[k];
    for (std::int64_t k = 0; k < n; ++k) inverse[k] = r[k] > T(0) ? inverse[k] : T(0);
    for (std::int64_t k = 0; k < n; ++k)
        for (int c = 0; c < 3; ++c) out[3 * k + c] = grad_r[k] * (static_cast<T>(vectors[3 * k + c]) * inverse[k]);
}

// Lengths of n edges, with the bits of polar.
template <class T>
MDGNN_INLINE void lengths(const double* vectors, std::int64_t n, T* r) {
    for (std::int64_t k = 0; k < n; ++k) {
        const T x = static_cast<T>(vectors[3 * k]), y = static_cast<T>(vectors[3 * k + 1]),
                z = static_cast<T>(vectors[3 * k + 2]);
        r[k] = std::sqrt(x * x + y * y + z * z);
    }
}

#define MDGNN_LOOPS(T)                                                                                              \
    MDGNN_SIMD_CLONES void lengths_loop(const double* vectors, std::int64_t n, T* r) { lengths<T>(vectors, n, r); } \
    MDGNN_SIMD_CLONES void along_loop(const double* vectors, std::int64_t n, const T* r, const T* grad_r, T* out) { \
        along<T>(vectors, n, r, grad_r, out);                                                                       \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)
#undef MDGNN_LOOPS

}  // namespace

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
    const std::int64_t n = padded(n_edges_), back = with_gradients, turn = engine_.takes_directions() ? 3 : 0;
    const std::array<std::pair<T**, std::int64_t>, 4> parts = {
        {{&edges_.r, 1}, {&edges_.unit, turn}, {&edges_.grad_r, back}, {&edges_.gradients, 3 * back}}};
    std::int64_t width = 0;
    for (const auto& w : parts) width += w.second;
    room(memory_.edges, n * width);
    T* at = memory_.edges.data();
    for (const auto& [place, w] : parts)
        if (w > 0) *place = at, at += n * w;
    if (turn > 0) edges_.grad_unit = edges_.gradients;
}

template <class T>
void Run<T>::find_lengths() {
    parallel_for(n_edges_, 16 * kEdges, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        T rounded[3 * kEdges];
        for (std::int64_t k = begin; k < end; k += kEdges) {
            const std::int64_t n = std::min(kEdges, end - k);
            if (!edges_.unit) {
                lengths_loop(structure_.vectors + 3 * k, n, edges_.r + k);
                continue;
            }
            for (std::int64_t m = 0; m < 3 * n; ++m) rounded[m] = static_cast<T>(structure_.vectors[3 * k + m]);
            cpu::polar<T>(rounded, n, edges_.r + k, edges_.unit + 3 * k, kHere);
        }
    });
}

template <class T>
void Run<T>::find_gradients_of_vectors() {
    parallel_for(n_edges_, 16 * kEdges, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        T rounded[3 * kEdges], gradients[3 * kEdges];
        for (std::int64_t k = begin; k < end; k += kEdges) {
            const std::int64_t n = std::min(kEdges, end - k);
            if (written_ && !unit_written_) {
                along_loop(structure_.vectors + 3 * k, n, edges_.r + k, edges_.grad_r + k, edges_.gradients + 3 * k);
                continue;
            }
            for (std::int64_t m = 0; m < 3 * n; ++m) rounded[m] = static_cast<T>(structure_.vectors[3 * k + m]);
            cpu::PolarPair<const T> grad;
            if (written_) grad = {edges_.grad_r + k, unit_written_ ? edges_.grad_unit + 3 * k : nullptr};
            cpu::polar_backward<T>(rounded, n, grad, gradients, kHere);
            std::copy(gradients, gradients + 3 * n, edges_.gradients + 3 * k);
        }
    });
}

#define MDGNN_INSTANTIATE(T)               \
    template void Run<T>::find_elements(); \
    template void Run<T>::sort_edges();    \
    template void Run<T>::make_room(bool); \
    template void Run<T>::find_lengths();  \
    template void Run<T>::find_gradients_of_vectors();
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
