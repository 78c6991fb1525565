// Memory that a thread keeps from one loop to the next, so that a step of dynamics allocates nothing.
#pragma once

namespace mdgnn {

// One S for each thread and type. Its owner sets what it reads; nothing that it calls may ask for the same type. Not
// inlined: the compiler would ask for the address in inner loops, by a call each time.
template <class S>
[[gnu::noinline]] S& scratch_of_this_thread() {
    thread_local S memory;
    return memory;
}

}  // namespace mdgnn
