#include "engine/plan.hpp"

#include <algorithm>
#include <utility>

namespace mdgnn::engine {
namespace {

// An array or a gradient, and the times at which it is needed.
struct Span {
    std::int64_t width = 0;
    int first = -1, last = -1;

    void touch(int time) {
        first = first < 0 ? time : std::min(first, time);
        last = std::max(last, time);
    }
};

// The lowest places such that what is needed at the same time does not overlap; returns the room for all.
std::int64_t place(const std::vector<Span>& spans, std::vector<std::int64_t>& at) {
    at.assign(spans.size(), -1);
    std::int64_t total = 0;
    for (std::size_t k = 0; k < spans.size(); ++k) {
        const Span& s = spans[k];
        if (s.first < 0) continue;
        std::vector<std::pair<std::int64_t, std::int64_t>> taken;
        for (std::size_t m = 0; m < k; ++m)
            if (at[m] >= 0 && spans[m].first <= s.last && s.first <= spans[m].last)
                taken.push_back({at[m], at[m] + spans[m].width});
        std::sort(taken.begin(), taken.end());
        at[k] = 0;
        for (const auto& [begin, end] : taken) {
            if (at[k] + s.width <= begin) break;
            at[k] = std::max(at[k], end);
        }
        total = std::max(total, at[k] + s.width);
    }
    return total;
}

// Arrays that an instruction reads on its way back.
std::vector<int> read_backwards(const Instruction& in) {
    switch (in.code) {
        case Code::embed:
        case Code::zeros:
        case Code::linear:
        case Code::add:
        case Code::plus:
            return {};
        case Code::root:
            return {in.outputs[0]};
        case Code::concat_message_table:
            return {in.inputs[0], in.outputs[2]};
        default:
            return in.inputs;
    }
}

template <class T>
class Planner {
  public:
    Planner(const Program<T>& program, Keep keep)
        : program_(program),
          keep_(keep),
          n_values_(static_cast<int>(program.values.size())),
          n_(program.instructions.size()),
          phase_of_(n_) {}

    Plan make() {
        plan_.back.resize(n_);
        find_phases();
        find_gradients();
        order_gradients();
        find_local();
        for (std::size_t p = 0; p < plan_.phases.size(); ++p) find_again(p);
        place_of_all();
        for (Phase& phase : plan_.phases)
            if (!phase.message) place_of_blocks(phase);
        for (int v = 0; v < n_values_; ++v)
            plan_.value[v] = plan_.value[base(v)], plan_.gradient[v] = plan_.gradient[base(v)];
        return std::move(plan_);
    }

  private:
    int base(int v) const { return program_.values[v].base < 0 ? v : static_cast<int>(program_.values[v].base); }
    const Instruction& instruction(std::size_t k) const { return program_.instructions[k]; }
    std::int64_t width(int v) const { return program_.values[v].blocks * program_.values[v].cols; }

    void find_phases() {
        for (std::size_t k = 0; k < n_; ++k) {
            const bool message = is_message(instruction(k).code);
            if (message || plan_.phases.empty() || plan_.phases.back().message)
                plan_.phases.push_back({k, k, message, {}});
            Phase& phase = plan_.phases.back();
            phase.last = k + 1;
            phase_of_[k] = static_cast<int>(plan_.phases.size()) - 1;
            for (int w : instruction(k).weights)  // an embedding is looked up
                if (instruction(k).code == Code::linear)
                    phase.work += static_cast<std::int64_t>(program_.weights[w].data.size());
            for (int v : instruction(k).outputs) phase.work += 16 * width(v);
        }
    }

    // Reached from the edges, going forwards; and reaching the energy, going backwards.
    void find_gradients() {
        std::vector<char> moves(n_values_, 0), matters(n_values_, 0);
        for (const Instruction& in : program_.instructions) {
            bool any = is_message(in.code);
            for (int v : in.inputs) any = any || moves[base(v)];
            for (int v : in.outputs) moves[v] = any;
        }
        matters[base(program_.energies)] = 1;
        for (std::size_t k = n_; k-- > 0;) {
            bool any = false;
            for (int v : instruction(k).outputs) any = any || matters[v];
            for (int v : instruction(k).inputs)
                if (any) matters[base(v)] = 1;
        }
        std::vector<char>& needs = plan_.needs_gradient;
        needs.assign(n_values_, 0);
        if (keep_ == Keep::energies_only) return;
        for (int v = 0; v < n_values_; ++v) needs[v] = moves[base(v)] && matters[base(v)];
        for (bool changed = true; changed;) {  // a kernel that gives both gradients or none; arrays may be in several
            changed = false;
            for (const Instruction& in : program_.instructions) {
                if (in.code != Code::painn_message) continue;
                const char x = needs[in.inputs[0]], v = needs[in.inputs[1]];
                changed = changed || x != v;
                needs[in.inputs[0]] = needs[in.inputs[1]] = x || v;
            }
        }
        for (const Instruction& in : program_.instructions) {
            if (!is_message(in.code)) continue;
            bool active = false;
            for (int v : in.outputs) active = active || needs[v];
            for (std::size_t m = 0; active && m < in.outputs.size() && m < 2; ++m)
                needs[in.outputs[m]] = 1;  // the kernel takes the gradients of both
        }
    }

    // Which gradient is the first to be written, and which is added.
    void order_gradients() {
        std::vector<char> written(n_values_, 0);
        const auto write = [&](int v, std::vector<int>& clear) {  // returns whether to add
            const bool add = written[base(v)];
            written[base(v)] = 1;
            if (add || base(v) == v) return add;
            clear.push_back(base(v));
            return true;
        };
        if (plan_.needs_gradient[program_.energies]) write(program_.energies, plan_.clear_seed);
        for (std::size_t k = n_; k-- > 0;) {
            const Instruction& in = instruction(k);
            Back& back = plan_.back[k];
            for (int v : in.outputs) back.active = back.active || (plan_.needs_gradient[v] && written[v]);
            if (!back.active) continue;
            std::int64_t spare = 0;
            for (int v : in.inputs) {
                const bool add = plan_.needs_gradient[v] && write(v, back.clear);
                back.add.push_back(add);
                if (add && is_message(in.code)) spare += width(v);
            }
            for (int v : in.outputs)
                if (plan_.needs_gradient[v] && !written[v]) back.clear.push_back(v);
            plan_.spare = std::max(plan_.spare, spare);
        }
    }

    void find_local() {
        std::vector<int> phase(n_values_, -1);
        alone_.assign(n_values_, 1);
        for (std::size_t k = 0; k < n_; ++k) {
            const auto see = [&](int v) {
                if (phase[base(v)] < 0) phase[base(v)] = phase_of_[k];
                if (phase[base(v)] != phase_of_[k]) alone_[base(v)] = 0;
            };
            for (int v : instruction(k).inputs) see(v);
            for (int v : instruction(k).outputs) {
                see(v);
                if (plan_.phases[phase_of_[k]].message) alone_[v] = 0;
            }
        }
        alone_[base(program_.energies)] = 0;
        local_ = alone_;
        for (std::size_t k = 0; keep_ == Keep::all && k < n_; ++k)
            if (plan_.back[k].active)
                for (int v : read_backwards(instruction(k))) local_[base(v)] = 0;
    }

    void find_again(std::size_t p) {
        Phase& phase = plan_.phases[p];
        std::vector<char> wanted(n_values_, 0);
        for (std::size_t k = phase.first; k < phase.last; ++k)
            if (plan_.back[k].active)
                for (int v : read_backwards(instruction(k))) wanted[base(v)] = local_[base(v)];
        for (std::size_t k = phase.last; k-- > phase.first;) {
            const Instruction& in = instruction(k);
            bool any = false;
            for (int v : in.outputs) any = any || wanted[v];
            if (!any) continue;
            phase.again.push_back(k);
            for (int v : in.inputs) wanted[base(v)] = local_[base(v)];
        }
        std::reverse(phase.again.begin(), phase.again.end());
    }

    // Of arrays that are kept for all atoms; times are phases, whose blocks are treated in any order.
    void place_of_all() {
        const int n_phases = static_cast<int>(plan_.phases.size());
        std::vector<Span> spans(2 * n_values_);
        for (int v = 0; v < n_values_; ++v) spans[2 * v].width = spans[2 * v + 1].width = width(v);
        const auto touch = [&](int v, int time) {
            if (!local_[base(v)]) spans[2 * base(v)].touch(time);
        };
        const auto touch_gradient = [&](int v, int time) {
            if (plan_.needs_gradient[v] && !alone_[base(v)]) spans[2 * base(v) + 1].touch(time);
        };
        for (std::size_t k = 0; k < n_; ++k) {
            const Instruction& in = instruction(k);
            for (int v : in.inputs) touch(v, phase_of_[k]);
            for (int v : in.outputs) touch(v, phase_of_[k]);
            if (!plan_.back[k].active) continue;
            const int back = 2 * n_phases - phase_of_[k];
            for (int v : read_backwards(in)) touch(v, back);
            for (int v : in.inputs) touch_gradient(v, back);
            for (int v : in.outputs) touch_gradient(v, back);
        }
        for (const Phase& phase : plan_.phases)
            for (std::size_t k : phase.again)
                for (int v : instruction(k).inputs) touch(v, 2 * n_phases - phase_of_[k]);
        for (const Instruction& in : program_.instructions)  // slopes for a gradient that nobody wants
            if (in.code == Code::concat_message_table && !plan_.needs_gradient[in.inputs[0]])
                spans[2 * in.outputs[2]] = {};
        touch(program_.energies, n_phases);
        touch_gradient(program_.energies, n_phases);
        std::vector<std::int64_t> at;
        plan_.total = place(spans, at);
        plan_.value.resize(n_values_), plan_.gradient.resize(n_values_);
        for (int v = 0; v < n_values_; ++v)
            plan_.value[v] = {false, at[2 * v]}, plan_.gradient[v] = {false, at[2 * v + 1]};
    }

    // Of arrays that one phase alone sees; times are instructions forwards, or again, and backwards.
    void place_of_blocks(const Phase& phase) {
        const int n = static_cast<int>(phase.last - phase.first);
        std::vector<Span> spans(2 * n_values_);
        for (int v = 0; v < n_values_; ++v) spans[2 * v].width = spans[2 * v + 1].width = width(v);
        const auto touch = [&](int v, int time) {
            if (local_[base(v)]) spans[2 * base(v)].touch(time);
        };
        const auto touch_gradient = [&](int v, int time) {
            if (plan_.needs_gradient[v] && alone_[base(v)]) spans[2 * base(v) + 1].touch(time);
        };
        for (int time = 0; time < n; ++time) {
            const std::size_t k = phase.first + static_cast<std::size_t>(time);
            const Instruction& in = instruction(k);
            for (int v : in.inputs) touch(v, time);
            for (int v : in.outputs) touch(v, time);
            if (!plan_.back[k].active) continue;
            const int back = 2 * n - 1 - time;
            for (int v : read_backwards(in)) touch(v, back);
            for (int v : in.inputs) touch_gradient(v, back);
            for (int v : in.outputs) touch_gradient(v, back);
        }
        std::vector<std::int64_t> at;
        plan_.local = std::max(plan_.local, place(spans, at));
        for (int v = 0; v < n_values_; ++v) {
            if (at[2 * v] >= 0) plan_.value[v] = {true, at[2 * v]};
            if (at[2 * v + 1] >= 0) plan_.gradient[v] = {true, at[2 * v + 1]};
        }
    }

    const Program<T>& program_;
    const Keep keep_;
    const int n_values_;
    const std::size_t n_;
    std::vector<int> phase_of_;        // by instruction
    std::vector<char> alone_, local_;  // seen by one phase; and not kept for the way back
    Plan plan_;
};

}  // namespace

template <class T>
Plan plan(const Program<T>& program, Keep keep) {
    return Planner<T>(program, keep).make();
}

template Plan plan<float>(const Program<float>&, Keep);
template Plan plan<double>(const Program<double>&, Keep);

}  // namespace mdgnn::engine
