// Arrays that begin on a cache line. std::vector's begin 16 bytes behind a page where they are large: then each vector
// of AVX-512 lies across two lines: the messages of PaiNN for 6,525 atoms took a fifth longer.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace mdgnn {

constexpr std::size_t kCacheLine = 64;

template <class T>
struct AlignedAllocator {
    using value_type = T;

    AlignedAllocator() = default;
    template <class U>
    AlignedAllocator(const AlignedAllocator<U>&) {}

    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{kCacheLine})); }
    void deallocate(T* p, std::size_t) { ::operator delete(p, std::align_val_t{kCacheLine}); }
    bool operator==(const AlignedAllocator&) const { return true; }
};

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace mdgnn
