#include "engine/plan.hpp"

#include <algorithm>
#include <utility>

#include "engine/instruction.hpp"

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

std::int64_t size_of(const Weight& w) {
    std::int64_t size = 1;
    for (const std::int64_t n : w.shape) size *= n;
    return size;
}

// Arrays that an instruction reads on its way back.
std::vector<int> read_backwards(const Instruction& in) {
    std::vector<int> read = in.saved;
    if (in.type->reads.inputs) read.insert(read.end(), in.inputs.begin(), in.inputs.end());
    if (in.type->reads.outputs) read.insert(read.end(), in.outputs.begin(), in.outputs.end());
    return read;
}

class Planner {
  public:
    Planner(const Program& program, Keep keep, bool properties)
        : program_(program),
          keep_(keep),
          n_arrays_(static_cast<int>(program.arrays.size())),
          n_(program.instructions.size()),
          phase_of_(n_) {
        if (program.energies >= 0) results_.push_back(program.energies);
        for (const Property& p : program.properties)
            if (properties) results_.push_back(p.array);
    }

    Plan make() {
        plan_.back.resize(n_);
        plan_.runs = lead_to(results_);
        find_phases();
        find_gradients();
        order_gradients();
        find_local();
        for (std::size_t p = 0; p < plan_.phases.size(); ++p) find_rematerialised(p);
        place_of_all();
        for (Phase& phase : plan_.phases)
            if (!phase.message) place_of_blocks(phase);
        for (int v = 0; v < n_arrays_; ++v)
            plan_.value[v] = plan_.value[base(v)], plan_.gradient[v] = plan_.gradient[base(v)];
        return std::move(plan_);
    }

  private:
    int base(int v) const { return whole(program_.arrays, v); }
    const Instruction& instruction(std::size_t k) const { return program_.instructions[k]; }
    std::int64_t width(int v) const { return program_.arrays[v].shape.size(); }

    // By instruction: whether one of these arrays follows from it.
    std::vector<char> lead_to(const std::vector<int>& results) const {
        std::vector<char> needed(n_arrays_, 0), lead(n_, 0);
        for (int v : results) needed[base(v)] = 1;
        for (std::size_t k = n_; k-- > 0;) {
            for (int v : instruction(k).outputs) lead[k] = lead[k] || needed[v];
            for (int v : instruction(k).inputs)
                if (lead[k]) needed[base(v)] = 1;
        }
        return lead;
    }

    void find_phases() {
        for (std::size_t k = 0; k < n_; ++k) {
            if (!plan_.runs[k]) continue;
            const bool message = instruction(k).type->message;
            if (message || plan_.phases.empty() || plan_.phases.back().message)
                plan_.phases.push_back({k, k, message, {}});
            Phase& phase = plan_.phases.back();
            phase.last = k + 1;
            phase_of_[k] = static_cast<int>(plan_.phases.size()) - 1;
            for (int w : instruction(k).weights)
                if (instruction(k).type->has_matrices) phase.work += size_of(program_.weights[w]);
            for (int v : instruction(k).outputs) phase.work += 16 * width(v);
        }
    }

    // Reached from the edges, going forwards; and reaching the energy, going backwards.
    void find_gradients() {
        std::vector<char>& needs = plan_.needs_grad;
        needs.assign(n_arrays_, 0);
        if (keep_ == Keep::nothing || program_.energies < 0) return;
        std::vector<char> moves(n_arrays_, 0);
        for (const Instruction& in : program_.instructions) {
            bool any = in.type->message;
            for (int v : in.inputs) any = any || moves[base(v)];
            for (int v : in.outputs) moves[v] = any;
        }
        const std::vector<char> lead = lead_to({program_.energies});
        std::vector<char> matters(n_arrays_, 0);
        matters[base(program_.energies)] = 1;
        for (std::size_t k = 0; k < n_; ++k)
            for (int v : instruction(k).inputs)
                if (lead[k]) matters[base(v)] = 1;
        for (int v = 0; v < n_arrays_; ++v) needs[v] = moves[base(v)] && matters[base(v)];
        for (bool changed = true; changed;) {  // a kernel that gives both gradients or none; arrays may be in several
            changed = false;
            for (std::size_t k = 0; k < n_; ++k) {
                const Instruction& in = instruction(k);
                if (!lead[k] || !in.type->joint_gradients) continue;
                char any = 0, all = 1;
                for (int v : in.inputs) any = any || needs[v], all = all && needs[v];
                changed = changed || any != all;
                for (int v : in.inputs) needs[v] = any;
            }
        }
        for (std::size_t k = 0; k < n_; ++k) {
            const Instruction& in = instruction(k);
            if (!lead[k] || !in.type->message) continue;
            bool active = false;
            for (int v : in.outputs) active = active || needs[v];
            for (int v : in.outputs)
                if (active) needs[v] = 1;  // the kernel takes the gradients of all
        }
    }

    // Which gradient is the first to be written, and which is added.
    void order_gradients() {
        std::vector<char> written(n_arrays_, 0);
        const auto write = [&](int v, std::vector<int>& clear) {  // returns whether to add
            const bool add = written[base(v)];
            written[base(v)] = 1;
            if (add || base(v) == v) return add;
            clear.push_back(base(v));
            return true;
        };
        if (program_.energies >= 0 && plan_.needs_grad[program_.energies])
            write(program_.energies, plan_.clear_energies);
        for (std::size_t k = n_; k-- > 0;) {
            const Instruction& in = instruction(k);
            Back& back = plan_.back[k];
            for (int v : in.outputs) back.active = back.active || (plan_.needs_grad[v] && written[v]);
            if (!back.active) continue;
            std::int64_t spare = 0;
            for (int v : in.inputs) {
                const bool add = plan_.needs_grad[v] && write(v, back.clear);
                back.needs_grad.push_back(plan_.needs_grad[v]);
                back.add.push_back(add);
                if (add && in.type->message) spare += width(v);
            }
            for (int v : in.outputs)
                if (plan_.needs_grad[v] && !written[v]) back.clear.push_back(v);
            plan_.spare = std::max(plan_.spare, spare);
        }
    }

    void find_local() {
        std::vector<int> phase(n_arrays_, -1);
        alone_.assign(n_arrays_, 1);
        for (std::size_t k = 0; k < n_; ++k) {
            if (!plan_.runs[k]) continue;
            const auto see = [&](int v) {
                if (phase[base(v)] < 0) phase[base(v)] = phase_of_[k];
                if (phase[base(v)] != phase_of_[k]) alone_[base(v)] = 0;
            };
            for (int v : instruction(k).inputs) see(v);
            for (const std::vector<int>* list : {&instruction(k).outputs, &instruction(k).saved})
                for (int v : *list) {
                    see(v);
                    if (plan_.phases[phase_of_[k]].message) alone_[v] = 0;
                }
        }
        for (int v : results_) alone_[base(v)] = 0;
        local_ = alone_;
        for (std::size_t k = 0; keep_ == Keep::all && k < n_; ++k)
            if (plan_.back[k].active)
                for (int v : read_backwards(instruction(k))) local_[base(v)] = 0;
    }

    void find_rematerialised(std::size_t p) {
        Phase& phase = plan_.phases[p];
        std::vector<char> needed(n_arrays_, 0);
        for (std::size_t k = phase.first; k < phase.last; ++k)
            if (plan_.back[k].active)
                for (int v : read_backwards(instruction(k))) needed[base(v)] = local_[base(v)];
        for (std::size_t k = phase.last; k-- > phase.first;) {
            const Instruction& in = instruction(k);
            bool any = false;
            for (int v : in.outputs) any = any || needed[v];
            if (!any) continue;
            phase.rematerialise.push_back(k);
            for (int v : in.inputs) needed[base(v)] = local_[base(v)];
        }
        std::reverse(phase.rematerialise.begin(), phase.rematerialise.end());
    }

    // Of arrays that stand for all atoms; times are phases, whose blocks are treated in any order.
    void place_of_all() {
        const int n_phases = static_cast<int>(plan_.phases.size());
        std::vector<Span> spans(2 * n_arrays_);
        for (int v = 0; v < n_arrays_; ++v) spans[2 * v].width = spans[2 * v + 1].width = width(v);
        const auto touch = [&](int v, int time) {
            if (!local_[base(v)]) spans[2 * base(v)].touch(time);
        };
        const auto touch_gradient = [&](int v, int time) {
            if (plan_.needs_grad[v] && !alone_[base(v)]) spans[2 * base(v) + 1].touch(time);
        };
        for (std::size_t k = 0; k < n_; ++k) {
            if (!plan_.runs[k]) continue;
            const Instruction& in = instruction(k);
            for (int v : in.inputs) touch(v, phase_of_[k]);
            for (int v : in.outputs) touch(v, phase_of_[k]);
            if (!plan_.back[k].active) continue;
            for (int v : in.saved) touch(v, phase_of_[k]);
            const int back = 2 * n_phases - phase_of_[k];
            for (int v : read_backwards(in)) touch(v, back);
            for (int v : in.inputs) touch_gradient(v, back);
            for (int v : in.outputs) touch_gradient(v, back);
        }
        for (const Phase& phase : plan_.phases)
            for (std::size_t k : phase.rematerialise)
                for (int v : instruction(k).inputs) touch(v, 2 * n_phases - phase_of_[k]);
        for (std::size_t k = 0; k < n_; ++k) {  // for gradients that nobody needs nothing is saved
            const std::vector<char>& needs = plan_.back[k].needs_grad;
            if (std::find(needs.begin(), needs.end(), 1) == needs.end())
                for (int v : instruction(k).saved) spans[2 * v] = {};
        }
        for (int v : results_) touch(v, n_phases);
        if (program_.energies >= 0) touch_gradient(program_.energies, n_phases);
        std::vector<std::int64_t> at;
        plan_.total = place(spans, at);
        plan_.value.resize(n_arrays_), plan_.gradient.resize(n_arrays_);
        for (int v = 0; v < n_arrays_; ++v)
            plan_.value[v] = {false, at[2 * v]}, plan_.gradient[v] = {false, at[2 * v + 1]};
    }

    // Of arrays that one phase alone sees; times are instructions forwards, or again, and backwards.
    void place_of_blocks(const Phase& phase) {
        const int n = static_cast<int>(phase.last - phase.first);
        std::vector<Span> spans(2 * n_arrays_);
        for (int v = 0; v < n_arrays_; ++v) spans[2 * v].width = spans[2 * v + 1].width = width(v);
        const auto touch = [&](int v, int time) {
            if (local_[base(v)]) spans[2 * base(v)].touch(time);
        };
        const auto touch_gradient = [&](int v, int time) {
            if (plan_.needs_grad[v] && alone_[base(v)]) spans[2 * base(v) + 1].touch(time);
        };
        for (int time = 0; time < n; ++time) {
            const std::size_t k = phase.first + static_cast<std::size_t>(time);
            if (!plan_.runs[k]) continue;
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
        for (int v = 0; v < n_arrays_; ++v) {
            if (at[2 * v] >= 0) plan_.value[v] = {true, at[2 * v]};
            if (at[2 * v + 1] >= 0) plan_.gradient[v] = {true, at[2 * v + 1]};
        }
    }

    const Program& program_;
    const Keep keep_;
    const int n_arrays_;
    const std::size_t n_;
    std::vector<int> results_;         // arrays
    std::vector<int> phase_of_;        // by instruction
    std::vector<char> alone_, local_;  // seen by one phase; and not needed from there on the way back
    Plan plan_;
};

}  // namespace

Plan plan(const Program& program, Keep keep, bool properties) { return Planner(program, keep, properties).make(); }

}  // namespace mdgnn::engine
