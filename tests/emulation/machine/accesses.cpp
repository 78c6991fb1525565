// Every access to memory of code that is compiled with -fsanitize=thread, whose library is not linked: the functions
// that the compiler calls are here. Also those of -fsanitize=undefined's checks.
//
// An access lies in the thread's own stack, in an array of the device or of the block, or, to be read, in the kernel's
// parameters or the constants of its library; anything else is memory of the host, or none.
#include <link.h>

#include <string>
#include <vector>

#include "block.hpp"
#include "fibers.hpp"
#include "memory.hpp"
#include "report.hpp"
#include "traffic.hpp"

namespace emulation {

extern Kernel launched;  // launch.cpp

namespace {

constexpr unsigned kStopOneIn = 64;  // accesses, in a random order of threads

struct Region {
    std::uintptr_t begin, end;
    bool contains(std::uintptr_t address) const { return address >= begin && address < end; }
};

// What cannot be written of the library that a kernel lies in, where the compiler puts constants.
bool is_constant(std::uintptr_t address) {
    static std::vector<Region> regions;
    static const void* of_kernel = nullptr;
    if (of_kernel != launched.function) {
        of_kernel = launched.function;
        regions.clear();
        dl_iterate_phdr(
            [](dl_phdr_info* library, std::size_t, void*) {
                std::vector<Region> segments;
                bool is_kernels = false;
                for (int k = 0; k < library->dlpi_phnum; ++k) {
                    const auto& segment = library->dlpi_phdr[k];
                    if (segment.p_type != PT_LOAD || segment.p_flags & PF_W) continue;
                    const std::uintptr_t begin = library->dlpi_addr + segment.p_vaddr;
                    segments.push_back({begin, begin + segment.p_memsz});
                    is_kernels |= segments.back().contains(reinterpret_cast<std::uintptr_t>(of_kernel));
                }
                if (is_kernels) regions = segments;
                return static_cast<int>(is_kernels);
            },
            nullptr);
    }
    for (const Region& region : regions)
        if (region.contains(address)) return true;
    return false;
}

template <class T>
bool lies_in(std::uintptr_t address, const T& object) {
    const auto begin = reinterpret_cast<std::uintptr_t>(&object);
    return address >= begin && address < begin + sizeof(T);
}

// What an access is for messages.
std::string in_words(const Touch& touch) {
    return std::string(touch.writes ? "write" : "read") + " of " + std::to_string(touch.n_bytes) + " bytes at " +
           place_of(touch.code) + " by " + thread_in_words(block.number, number_of(current));
}

// Whether it is what every thread may read.
bool is_constant_or_parameter(std::uintptr_t address, const Touch& touch) {
    if (lies_in(address, threadIdx) || lies_in(address, blockIdx) || lies_in(address, blockDim) ||
        lies_in(address, gridDim))
        return true;
    const auto parameters = reinterpret_cast<std::uintptr_t>(launched.parameters);
    const bool read_only = (address >= parameters && address < parameters + launched.n_bytes) || is_constant(address);
    if (read_only && touch.writes) fail("a parameter or a constant is changed: " + in_words(touch));
    return read_only;
}

[[gnu::noinline]] void refuse(std::uintptr_t address, const Touch& touch) {
    const std::uintptr_t all = stack_of(0);
    if (address >= all && address < all + kStackBytes * kMostThreads)
        fail("local memory of another thread is used: " + in_words(touch));
    const std::string arrays = nearest_arrays(address);
    fail((arrays.empty() ? "a pointer of the host is used (" : "out of bounds (") + hexadecimal(address) + arrays +
         "): " + in_words(touch));
}

[[gnu::noinline]] void check_access(const void* pointer, std::size_t n_bytes, bool reads, bool writes, Access access,
                                    const void* code, bool aligned) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    Touch touch = {nullptr, 0, n_bytes, reads, writes, access, code, nullptr};
    const std::uintptr_t own = stack_of(number_of(current));
    if (address >= own && address < own + kStackBytes) return;  // most are
    if (const Array* array = array_of(address)) {
        if (address + n_bytes > array->end)
            fail("out of bounds (" + std::to_string(address - array->begin) + " of an array of " +
                 std::to_string(array->end - array->begin) + " bytes): " + in_words(touch));
        if (aligned && address % n_bytes != 0) fail("misaligned (" + hexadecimal(address) + "): " + in_words(touch));
        touch.cells = array->cells, touch.offset = address - array->begin, touch.shared_name = array->shared_name;
        if (touch.cells) check_visit(touch);
        count_access(address, touch);
    } else if (!is_constant_or_parameter(address, touch)) {
        refuse(address, touch);
    }
    if (order() == Order::random && random_number() % kStopOneIn == 0) stop_for_a_while();
}

[[gnu::noinline]] void undefined(const char* what, const void* code) {
    const std::string text = std::string(what) + " at " + place_of(code);
    if (!current) stop(text + ", on the host");
    fail(text + " by " + thread_in_words(block.number, number_of(current)));
}

}  // namespace

void before_atomic(void* address, std::size_t n_bytes) {
    if (checked()) check_access(address, n_bytes, true, true, Access::atomic, __builtin_return_address(0), true);
}

}  // namespace emulation

using emulation::Access;

#define HOOK(NAME, N, READS, WRITES, ACCESS, ALIGNED)                                                           \
    void NAME(void* p) {                                                                                        \
        if (emulation::current)                                                                                 \
            emulation::check_access(p, N, READS, WRITES, Access::ACCESS, __builtin_return_address(0), ALIGNED); \
    }
#define HOOKS(N)                                                \
    HOOK(__tsan_read##N, N, true, false, plain, true)           \
    HOOK(__tsan_write##N, N, false, true, plain, true)          \
    HOOK(__tsan_volatile_read##N, N, true, false, atomic, true) \
    HOOK(__tsan_volatile_write##N, N, false, true, atomic, true)
#define HOOKS_OF_PIECES(N)                                       \
    HOOK(__tsan_unaligned_read##N, N, true, false, plain, false) \
    HOOK(__tsan_unaligned_write##N, N, false, true, plain, false)
#define HOOK_RANGE(NAME, READS, WRITES)                                                                      \
    void NAME(void* p, std::size_t n) {                                                                      \
        if (emulation::current && n > 0)                                                                     \
            emulation::check_access(p, n, READS, WRITES, Access::plain, __builtin_return_address(0), false); \
    }
#define HOOK_UNDEFINED(NAME, WHAT) \
    void __ubsan_handle_##NAME##_abort() { emulation::undefined(WHAT, __builtin_return_address(0)); }

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOKS_OF_PIECES(2)
HOOKS_OF_PIECES(4)
HOOKS_OF_PIECES(8)
HOOKS_OF_PIECES(16)
HOOK_RANGE(__tsan_read_range, true, false)
HOOK_RANGE(__tsan_write_range, false, true)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
HOOK_UNDEFINED(type_mismatch_v1, "a null or misaligned pointer")
HOOK_UNDEFINED(out_of_bounds, "an index beyond an array")
HOOK_UNDEFINED(shift_out_of_bounds, "a shift by too many bits")
HOOK_UNDEFINED(add_overflow, "an overflow of integers")
HOOK_UNDEFINED(sub_overflow, "an overflow of integers")
HOOK_UNDEFINED(mul_overflow, "an overflow of integers")
HOOK_UNDEFINED(negate_overflow, "an overflow of integers")
HOOK_UNDEFINED(divrem_overflow, "a division by zero, or an overflow of integers")
HOOK_UNDEFINED(float_cast_overflow, "a number beyond the range of an integer")
HOOK_UNDEFINED(load_invalid_value, "a bool or enum of another value")
}
