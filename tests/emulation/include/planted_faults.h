// The switches of the faults that mutants.py plants into copies of the kernels: one build has all of them, and one at a
// time is on.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

extern "C" {
inline int planted_fault = -1;                 // the one that is on
inline unsigned char reached_faults[1 << 13];  // by number: whether a kernel has come to its place
}

// Without the hooks of the checked mode: these variables are of the host.
#define PLANTED_SWITCH [[gnu::noinline]] __attribute__((no_sanitize("thread"))) inline

PLANTED_SWITCH bool planted(int fault) {
    reached_faults[fault] = 1;
    return planted_fault == fault;
}

// Added to an integer: 1 more with one fault, 1 less with another. Other numbers stay, and have no place.
struct PlantedStep {
    int more, less = -1;
};
template <class T>
PLANTED_SWITCH T operator+(PlantedStep step, T x) {
    if constexpr (std::is_integral_v<T>) {
        reached_faults[step.more] = 1;
        if (step.less >= 0) reached_faults[step.less] = 1;
        return static_cast<T>(x + (planted_fault == step.more) - (step.less >= 0 && planted_fault == step.less));
    }
    return x;
}

// A mask without its last lane.
PLANTED_SWITCH unsigned planted_mask(int fault, unsigned mask) { return planted(fault) ? mask & 0x7fffffffu : mask; }

// Lane 31 does without.
inline bool planted_in_a_lane(int fault) { return planted(fault) && threadIdx.x % 32 == 31; }

// Atomics that are none.
#define PLANTED_ATOMIC(NAME, RESULT)                                     \
    template <class T>                                                   \
    T planted_##NAME(int fault, T* address, std::type_identity_t<T> x) { \
        if (!planted(fault)) return NAME(address, x);                    \
        const T old = *address;                                          \
        *address = RESULT;                                               \
        return old;                                                      \
    }
PLANTED_ATOMIC(atomicAdd, old + x)
PLANTED_ATOMIC(atomicMin, x < old ? x : old)
PLANTED_ATOMIC(atomicMax, old < x ? x : old)
#undef PLANTED_ATOMIC
template <class T>
T planted_atomicCAS(int fault, T* address, std::type_identity_t<T> compare, std::type_identity_t<T> x) {
    if (!planted(fault)) return atomicCAS(address, compare, x);
    const T old = *address;
    if (old == compare) *address = x;
    return old;
}
#undef PLANTED_SWITCH
