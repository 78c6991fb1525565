#include "stream.hpp"

#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "memory.hpp"

namespace emulation {

class Graph {
  public:
    std::vector<std::function<void()>> steps;
    std::set<void*> dropped;  // arrays that only the steps use
};

namespace {

std::recursive_mutex mutex;  // threads of the host drop arrays at any time; a step that goes drops its own
Graph* capturing = nullptr;
Contents* before_capture = nullptr;

std::unordered_map<void*, Graph*>& graph_of_array() {
    static auto* const graphs = new std::unordered_map<void*, Graph*>;  // arrays may outlive static objects
    return *graphs;
}

}  // namespace

Graph* begin_capture() {
    const std::lock_guard lock(mutex);
    before_capture = save_contents();
    return capturing = new Graph;
}

void end_capture() {
    const std::lock_guard lock(mutex);
    capturing = nullptr;
    restore_contents(std::exchange(before_capture, nullptr));
}

bool is_capturing() { return capturing != nullptr; }

void record(std::function<void()> step) {
    const std::lock_guard lock(mutex);
    if (capturing) capturing->steps.push_back(std::move(step));
}

void replay(const Graph* graph) {
    for (const auto& step : graph->steps) step();
}

void destroy(Graph* graph) {
    const std::lock_guard lock(mutex);
    graph->steps.clear();
    std::erase_if(graph_of_array(), [&](const auto& entry) { return entry.second == graph; });
    for (void* array : graph->dropped) release(array);
    delete graph;
}

void* make_array(std::size_t n_bytes) {
    const std::lock_guard lock(mutex);
    void* const array = allocate(n_bytes);
    if (capturing) graph_of_array()[array] = capturing;
    return array;
}

void drop_array(void* array) {
    const std::lock_guard lock(mutex);
    const auto at = graph_of_array().find(array);
    if (at != graph_of_array().end())
        at->second->dropped.insert(array);
    else
        release(array);
}

}  // namespace emulation

// For Python. A replay returns what went wrong, or null.
extern "C" {
void* emulation_make_array(std::size_t n_bytes) { return emulation::make_array(n_bytes); }
void emulation_drop_array(void* array) { emulation::drop_array(array); }
void* emulation_begin_capture() { return emulation::begin_capture(); }
void emulation_end_capture() { emulation::end_capture(); }
bool emulation_is_capturing() { return emulation::is_capturing(); }
const char* emulation_replay(const void* graph) {
    emulation::replay(static_cast<const emulation::Graph*>(graph));
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
void emulation_destroy(void* graph) { emulation::destroy(static_cast<emulation::Graph*>(graph)); }
}
