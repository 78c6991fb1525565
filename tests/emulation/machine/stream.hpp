// What the host gives the device to do. All streams are one: each step is done before the next is given.
#pragma once

#include <cstddef>
#include <functional>

namespace emulation {

// The steps of a capture. As on a GPU, a capture leaves memory as it was: what it did to arrays is undone.
class Graph;
Graph* begin_capture();
void end_capture();
bool is_capturing();
// Adds a step, which has run, to the graph that is being captured, if one is.
void record(std::function<void()> step);
void replay(const Graph* graph);
void destroy(Graph* graph);

// Memory of the device for the host. What is made in a capture stays as long as the graph, whose steps use it.
void* make_array(std::size_t n_bytes);
void drop_array(void* array);

}  // namespace emulation
