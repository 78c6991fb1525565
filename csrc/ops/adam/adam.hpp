// A step of Adam for all parameters of a network.
#pragma once

#include <cstdint>
#include <vector>

namespace mdgnn::cpu {

// A parameter, its gradient and its state, as torch.optim.Adam keeps it; max_mean_square is null without AMSGrad.
template <class T>
struct AdamParameter {
    T* values = nullptr;
    const T* grad = nullptr;
    T *mean = nullptr, *mean_square = nullptr, *max_mean_square = nullptr;
    float* step = nullptr;
    std::int64_t size = 0;
};

struct AdamOptions {
    double lr = 0, beta_1 = 0, beta_2 = 0, eps = 0, weight_decay = 0;
    bool decoupled = false;  // AdamW's decay, of the parameter and not of the gradient
};

template <class T>
void adam_step(const std::vector<AdamParameter<T>>& parameters, const AdamOptions& options);

}  // namespace mdgnn::cpu
