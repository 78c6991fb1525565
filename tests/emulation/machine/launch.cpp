// Launches: the blocks of a grid one after another, in some order; and the few calls of the CUDA runtime.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "block.hpp"
#include "fibers.hpp"
#include "memory.hpp"
#include "report.hpp"
#include "stream.hpp"
#include "traffic.hpp"

namespace emulation {

Kernel launched;

namespace {

std::mutex launches;  // one kernel runs at a time, also where the host has threads
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_message;
std::map<const void*, std::uint64_t> counts;  // launches of each kernel

void set_error(cudaError_t error, const std::string& message) { last_error = error, last_message = message; }

std::vector<std::uint64_t> order_of_blocks(std::uint64_t n) {
    std::vector<std::uint64_t> numbers(n);
    std::iota(numbers.begin(), numbers.end(), 0);
    if (order() == Order::backward) std::reverse(numbers.begin(), numbers.end());
    if (order() == Order::random)
        for (std::size_t k = n; k > 1; --k) std::swap(numbers[k - 1], numbers[random_number() % k]);
    return numbers;
}

std::string in_words(dim3 size) {
    return "(" + std::to_string(size.x) + ", " + std::to_string(size.y) + ", " + std::to_string(size.z) + ")";
}

void run_grid(const Kernel& kernel, dim3 grid, dim3 block_size) {
    const std::lock_guard lock(launches);
    launched = kernel;
    gridDim = grid, blockDim = block_size;
    failure().clear();
    begin_launch_of_visits();
    begin_launch_of_traffic(kernel, std::uint64_t{grid.x} * grid.y * grid.z,
                            std::uint64_t{block_size.x} * block_size.y * block_size.z);
    ++counts[kernel.function];
    for (const std::uint64_t number : order_of_blocks(std::uint64_t{grid.x} * grid.y * grid.z)) {
        blockIdx = dim3(static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                        static_cast<unsigned>(number / grid.x / grid.y));
        forget_shared_arrays();
        if (checked()) begin_block_of_visits(static_cast<int>(block_size.x * block_size.y * block_size.z));
        run_block(kernel, number);
        end_accesses_of_block();
        if (!failure().empty()) break;
    }
    if (checked())
        for (int t = 0; t < block.n_threads; ++t)
            if (has_used_too_much(t))
                fail("a thread needs more than " + std::to_string(kMostStackBytes) + " bytes of stack");
    if (!failure().empty())
        set_error(cudaErrorLaunchFailure, failure() + "; kernel " + name_of_function(kernel.function) + ", grid " +
                                              in_words(grid) + ", block " + in_words(block_size));
}

}  // namespace

void launch_kernel(const Kernel& kernel, dim3 grid, dim3 block_size, cudaStream_t) {
    const std::uint64_t n_threads = std::uint64_t{block_size.x} * block_size.y * block_size.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || n_threads == 0 || n_threads > kMostThreads ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || block_size.z > 64)
        return set_error(cudaErrorInvalidConfiguration, "emulated CUDA: a kernel cannot have the grid " +
                                                            in_words(grid) + " and the block " + in_words(block_size));
    run_grid(kernel, grid, block_size);
    if (!is_capturing()) return;
    const auto* const bytes = static_cast<const char*>(kernel.parameters);
    record([=, parameters = std::vector<char>(bytes, bytes + kernel.n_bytes)] {
        run_grid({kernel.call, kernel.function, parameters.data(), kernel.n_bytes}, grid, block_size);
    });
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess              ? "no error"
           : error == cudaErrorInvalidDevice ? "no such device"
                                             : last_message.c_str();
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n_bytes, cudaStream_t) {
    if (n_bytes > 0 && !is_of_device(to, n_bytes)) {
        set_error(cudaErrorInvalidValue, "emulated CUDA: cudaMemsetAsync beyond an array of the device");
        return cudaErrorInvalidValue;
    }
    const auto fill = [=] {
        std::memset(to, value, n_bytes);
        mark_written(to, n_bytes);
    };
    fill();
    record(fill);
    return cudaSuccess;
}

extern "C" {

// For Python: the order of blocks and threads; the kernels that were launched, one a line.
void emulation_set_order(const char* text) { set_order(text); }
const char* emulation_launched_kernels() {
    static std::string text;
    text.clear();
    for (const auto& [function, n] : counts) text += std::to_string(n) + " " + name_of_function(function) + "\n";
    return text.c_str();
}
}
