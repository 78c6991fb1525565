#include "engine/instructions/all.hpp"

#include <map>
#include <stdexcept>
#include <string_view>

namespace mdgnn::engine {

// Those that have a file, or a folder, of their own.
extern const Declaration kLinear, kConcatMessageTable, kCfConv, kPainnMessage;

namespace {

std::map<std::string_view, const Declaration*> all_by_name() {
    std::map<std::string_view, const Declaration*> all;
    for (const auto& some : {elementwise(), arithmetic(), reductions(), sources()})
        for (const Declaration& one : some) all[one.name] = &one;
    for (const Declaration* one : {&kLinear, &kConcatMessageTable, &kCfConv, &kPainnMessage}) all[one->name] = one;
    return all;
}

}  // namespace

const Declaration& declaration_of(const std::string& name) {
    static const std::map<std::string_view, const Declaration*> all = all_by_name();
    const auto at = all.find(name);
    if (at != all.end()) return *at->second;
    throw std::invalid_argument("expected an instruction that this engine knows, got '" + name + "'");
}

}  // namespace mdgnn::engine
