// Parallelisation: none; a network has some 10,000 parameters, which take 10 us. Memory traffic: four numbers in and
// three out for each. Formulas and their order are those of torch's fused Adam, for which torch takes five times as
// long where there are dozens of small parameters: it goes over them in Python and adds one to a tensor for each.
#include <algorithm>
#include <cmath>

#include "core/host_device.hpp"
#include "core/simd.hpp"
#include "ops/adam/adam.hpp"

namespace mdgnn::cpu {
namespace {

template <class T>
struct Factors {
    T rate, decay, keep, mean, mean_square, new_square, bias, eps;
    bool decoupled;
};

// Pointers are copied, so that compilers see arrays that do not overlap; kMax: AMSGrad.
template <bool kMax, class T>
MDGNN_INLINE void update_all(const AdamParameter<T>& p, const Factors<T> by) {
    T* const __restrict w = p.values, * const __restrict m = p.mean, * const __restrict v = p.mean_square;
    T* const __restrict most = p.max_mean_square;
    const T* const __restrict grad = p.grad;
    const T keep = by.decoupled ? by.keep : T(1), decay = by.decoupled ? T(0) : by.decay;
    for (std::int64_t k = 0; k < p.size; ++k) {
        const T g = grad[k] + decay * w[k];
        const T mean = m[k] + by.mean * (g - m[k]);
        const T square = v[k] * by.mean_square + by.new_square * (g * g);
        T largest = square;
        if constexpr (kMax) largest = most[k] = most[k] < square ? square : most[k];
        m[k] = mean, v[k] = square;
        w[k] = w[k] * keep - by.rate * mean / (std::sqrt(largest) / by.bias + by.eps);
    }
}

#define MDGNN_LOOPS(T)                                                                \
    MDGNN_SIMD_CLONES void update(const AdamParameter<T>& p, const Factors<T>& by) {  \
        p.max_mean_square ? update_all<true, T>(p, by) : update_all<false, T>(p, by); \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

}  // namespace

template <class T>
void adam_step(const std::vector<AdamParameter<T>>& parameters, const AdamOptions& o) {
    for (const AdamParameter<T>& p : parameters) {
        const double step = *p.step += 1;
        Factors<T> by;
        by.rate = static_cast<T>(o.lr / (1 - std::pow(o.beta_1, step)));
        by.decay = static_cast<T>(o.weight_decay), by.keep = static_cast<T>(1 - o.lr * o.weight_decay);
        by.mean = static_cast<T>(1 - o.beta_1), by.mean_square = static_cast<T>(o.beta_2);
        by.new_square = static_cast<T>(1 - o.beta_2);
        by.bias = static_cast<T>(std::sqrt(1 - std::pow(o.beta_2, step))), by.eps = static_cast<T>(o.eps);
        by.decoupled = o.decoupled;
        update(p, by);
    }
}

template void adam_step<float>(const std::vector<AdamParameter<float>>&, const AdamOptions&);
template void adam_step<double>(const std::vector<AdamParameter<double>>&, const AdamOptions&);

}  // namespace mdgnn::cpu
