// Functions of one number, which instructions apply to every number of an array: one row each. From these rows come
// names, counts and shape rules, what stays for the way back, values, gradients, and derivatives in tables.
//
// A row: name; how many constants (c is the first); what the derivative is worked out from (nothing, x, or y = f(x));
// the value, which sets y; the derivative, which sets d. x, y, d and `zero` are vectors. `each(x, y, f)` takes lane
// after lane through a function of the C library.
#pragma once

namespace mdgnn::engine {

// clang-format off
#define MDGNN_ELEMENTWISE(ROW)                                                                              \
    ROW(scale,            1, nothing, y = x * c,                                d = zero + c)                \
    ROW(add_constant,     1, nothing, y = x + c,                                d = zero + T(1))             \
    ROW(clamp_min,        1, x,       y = x < zero + c ? zero + c : x,          d = x < zero + c ? zero : zero + T(1)) \
    ROW(relu,             0, x,       y = x < zero ? zero : x,                  d = x > zero ? zero + T(1) : zero) \
    ROW(power,            1, x,       each(x, y, [c](T u) { return std::pow(u, c); }),                       \
        each(x, d, [c](T u) { return c == 0 ? T(0) : c * std::pow(u, c - 1); }))                             \
    ROW(reciprocal,       0, y,       y = T(1) / x,                             d = -(y * y))                \
    ROW(sqrt,             0, y,       each(x, y, [](T u) { return std::sqrt(u); }), d = T(0.5) / y)          \
    ROW(square,           0, x,       y = x * x,                                d = x + x)                   \
    ROW(exp,              0, y,       exp_of<T>(x, y),                          d = y)                       \
    ROW(log,              0, x,       each(x, y, [](T u) { return std::log(u); }), d = T(1) / x)             \
    ROW(expm1,            0, y,       each(x, y, [](T u) { return std::expm1(u); }), d = y + T(1))           \
    ROW(log1p,            0, x,       each(x, y, [](T u) { return std::log1p(u); }), d = T(1) / (x + T(1)))  \
    ROW(sin,              0, x,       each(x, y, [](T u) { return std::sin(u); }), each(x, d, [](T u) { return std::cos(u); })) \
    ROW(cos,              0, x,       each(x, y, [](T u) { return std::cos(u); }), each(x, d, [](T u) { return -std::sin(u); })) \
    ROW(tanh,             0, y,       tanh_of<T>(x, y),                         d = T(1) - y * y)            \
    ROW(sigmoid,          0, y,       sigmoid_of<T>(x, y),                      d = y * (T(1) - y))          \
    ROW(silu,             0, x,       (SiluParts<T, V>(x).value(y)),            (SiluParts<T, V>(x).slope(d))) \
    ROW(softplus,         0, x,       softplus_of<T>(x, T(0), y),               sigmoid_of<T>(x, d))         \
    ROW(shifted_softplus, 0, x,       softplus_of<T>(x, kLog2, y),              sigmoid_of<T>(x, d))         \
    ROW(abs,              0, x,       y = x < zero ? -x : x,                    d = x < zero ? zero - T(1) : x > zero ? zero + T(1) : zero)
// clang-format on

#define MDGNN_NAME(name, ...) name,
enum class Unary { MDGNN_ELEMENTWISE(MDGNN_NAME) };
#undef MDGNN_NAME

}  // namespace mdgnn::engine
