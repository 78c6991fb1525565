#include "engine/prepare.hpp"

#include <map>
#include <utility>

namespace mdgnn::engine {
namespace {

template <class T>
RadialTable<T> radial_table(const Program& program, const Weights<T>& weights, int w) {
    const Weight& of = program.weights[w];
    const double cutoff = of.table < 0 ? program.cutoff : program.tables[of.table].cutoff;
    const double per_unit = static_cast<double>(of.shape[0]) / cutoff;
    return {weights[w].data(), of.shape[0], of.shape[2], static_cast<T>(cutoff), static_cast<T>(per_unit)};
}

}  // namespace

template <class T>
std::vector<Prepared<T>> prepare(const Program& program, const Weights<T>& weights,
                                 const std::vector<Instruction>& instructions, bool with_backward,
                                 std::deque<Packed<T>>& packed) {
    std::map<std::pair<int, bool>, const Packed<T>*> made;
    const auto pack = [&](int w, bool transposed) {
        const Packed<T>*& at = made[{w, transposed}];
        const std::vector<std::int64_t>& shape = program.weights[w].shape;
        if (!at) at = &packed.emplace_back(Matrix<const T>{weights[w].data(), shape[0], shape[1]}, transposed);
        return at;
    };
    std::vector<Prepared<T>> all(instructions.size());
    for (std::size_t k = 0; k < instructions.size(); ++k) {
        const Instruction& in = instructions[k];
        for (const int w : in.weights) all[k].weights.push_back(weights[w].data());
        if (in.type->message && !in.weights.empty()) all[k].table = radial_table(program, weights, in.weights[0]);
        if (!in.type->has_matrices) continue;
        for (std::size_t m = 0; m < in.inputs.size(); ++m) {
            all[k].forward.push_back(pack(in.weights[m], true));
            if (with_backward) all[k].backward.push_back(pack(in.weights[m], false));
        }
    }
    return all;
}

#define MDGNN_INSTANTIATE(T)                                                                                         \
    template std::vector<Prepared<T>> prepare<T>(const Program&, const Weights<T>&, const std::vector<Instruction>&, \
                                                 bool, std::deque<Packed<T>>&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
