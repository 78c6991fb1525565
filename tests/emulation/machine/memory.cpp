#include "memory.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "report.hpp"

namespace emulation {
namespace {

constexpr std::size_t kAlignment = 512, kZone = 4096;  // between arrays, so that an access beyond one is in none
constexpr std::size_t kMostShared = 48 * 1024;         // of a block, without asking for more

bool is_checked = false;

std::size_t cells_of(std::uintptr_t begin, std::uintptr_t end) { return (end - begin + kCell - 1) / kCell; }

struct Arrays {
    std::mutex mutex;
    std::map<std::uintptr_t, Array> of_device;
    std::uint64_t n_made = 0;
    std::atomic<std::uint64_t> version = 0;
};
Arrays& arrays() {
    static auto* const all = new Arrays;  // tensors may outlive static objects
    return *all;
}

const Array* find(const std::map<std::uintptr_t, Array>& of_device, std::uintptr_t address) {
    auto next = of_device.upper_bound(address);
    if (next == of_device.begin()) return nullptr;
    const Array& array = std::prev(next)->second;
    return array.contains(address) ? &array : nullptr;
}

// Shared arrays that threads of the block have declared. Their cells stay for the next block.
struct SharedArray {
    Array array;
    bool declared = false;
};
std::map<std::uintptr_t, SharedArray> shared_arrays;
std::vector<SharedArray*> declared_arrays;

// Copies of arrays found lately, so that most accesses search nothing. Only the thread that runs kernels uses it.
struct Cache {
    Array arrays[256];
    std::uint64_t version = 0;
} cache;

}  // namespace

bool checked() { return is_checked; }

void* allocate(std::size_t n_bytes) {
    void* zone = nullptr;
    if (posix_memalign(&zone, kAlignment, n_bytes + 2 * kZone) != 0) throw std::bad_alloc();
    char* const p = static_cast<char*>(zone) + kZone;
    std::memset(p, 0xff, n_bytes);
    Array array;
    array.begin = reinterpret_cast<std::uintptr_t>(p), array.end = array.begin + n_bytes;
    // Of which pages are taken where cells are used.
    if (checked()) array.cells = static_cast<Cell*>(std::calloc(cells_of(array.begin, array.end), sizeof(Cell)));
    const std::lock_guard lock(arrays().mutex);
    array.number = ++arrays().n_made;
    arrays().of_device[array.begin] = array;
    return p;
}

void release(void* array) {
    if (!array) return;
    {
        const std::lock_guard lock(arrays().mutex);
        const auto at = arrays().of_device.find(reinterpret_cast<std::uintptr_t>(array));
        if (at == arrays().of_device.end()) stop("an array is released that the device does not have");
        std::free(at->second.cells);
        arrays().of_device.erase(at);
        ++arrays().version;
    }
    std::free(static_cast<char*>(array) - kZone);
}

const Array* array_of(std::uintptr_t address) {
    if (const std::uint64_t now = arrays().version; cache.version != now) cache = {}, cache.version = now;
    Array& likely = cache.arrays[address >> 12 & 255];
    if (likely.contains(address)) return &likely;
    for (const SharedArray* shared : declared_arrays)
        if (shared->array.contains(address)) return &shared->array;
    const std::lock_guard lock(arrays().mutex);
    const Array* const array = find(arrays().of_device, address);
    if (!array) return nullptr;
    likely = *array;
    return &likely;
}

std::string nearest_arrays(std::uintptr_t address) {
    const std::lock_guard lock(arrays().mutex);
    const auto& all = arrays().of_device;
    const auto next = all.upper_bound(address);
    std::string text;
    const auto add = [&](std::uintptr_t distance, const char* side, const Array& array) {
        if (distance <= kZone)
            text += ", " + std::to_string(distance) + " bytes " + side + " an array of " +
                    std::to_string(array.end - array.begin);
    };
    if (next != all.begin()) add(address - std::prev(next)->second.end, "behind", std::prev(next)->second);
    if (next != all.end()) add(next->second.begin - address, "before", next->second);
    return text;
}

bool is_of_device(const void* begin, std::size_t n_bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(begin);
    const std::lock_guard lock(arrays().mutex);
    const Array* const array = find(arrays().of_device, address);
    return array && address + n_bytes <= array->end;
}

void mark_written(const void* begin, std::size_t n_bytes) {
    if (!checked() || n_bytes == 0) return;
    const auto address = reinterpret_cast<std::uintptr_t>(begin);
    const std::lock_guard lock(arrays().mutex);
    if (const Array* array = find(arrays().of_device, address))
        mark_bytes_written(array->cells, address - array->begin, n_bytes);
}

void declare_shared(void* array, std::size_t n_bytes, const char* name) {
    SharedArray& shared = shared_arrays[reinterpret_cast<std::uintptr_t>(array)];
    if (shared.declared) return;
    Array& a = shared.array;
    a.begin = reinterpret_cast<std::uintptr_t>(array), a.end = a.begin + n_bytes, a.shared_name = name;
    std::memset(array, 0xff, n_bytes);
    if (checked()) {
        if (!a.cells) a.cells = static_cast<Cell*>(std::malloc(cells_of(a.begin, a.end) * sizeof(Cell)));
        std::memset(static_cast<void*>(a.cells), 0, cells_of(a.begin, a.end) * sizeof(Cell));
    }
    shared.declared = true;
    declared_arrays.push_back(&shared);
    std::size_t total = 0;
    for (const SharedArray* other : declared_arrays) total += other->array.end - other->array.begin;
    if (total > kMostShared)
        fail(std::to_string(total) + " bytes of shared memory, of which a block has " + std::to_string(kMostShared));
}

void forget_shared_arrays() {
    for (SharedArray* shared : declared_arrays) shared->declared = false;
    declared_arrays.clear();
}

struct Contents {
    std::map<std::uint64_t, std::vector<char>> of_array;  // by its number
};

Contents* save_contents() {
    auto* const contents = new Contents;
    const std::lock_guard lock(arrays().mutex);
    for (const auto& [begin, array] : arrays().of_device)
        contents->of_array[array.number].assign(reinterpret_cast<const char*>(begin),
                                                reinterpret_cast<const char*>(array.end));
    return contents;
}

void restore_contents(Contents* contents) {
    const std::lock_guard lock(arrays().mutex);
    for (const auto& [begin, array] : arrays().of_device) {
        const auto saved = contents->of_array.find(array.number);
        if (saved != contents->of_array.end()) {
            std::memcpy(reinterpret_cast<void*>(begin), saved->second.data(), saved->second.size());
            continue;
        }
        std::memset(reinterpret_cast<void*>(begin), 0xff, array.end - begin);
        if (array.cells) std::memset(static_cast<void*>(array.cells), 0, cells_of(begin, array.end) * sizeof(Cell));
    }
    delete contents;
}

}  // namespace emulation

// For Python.
extern "C" {
void emulation_set_checked(bool checked) { emulation::is_checked = checked; }
void emulation_mark_written(const void* begin, std::size_t n_bytes) { emulation::mark_written(begin, n_bytes); }
}
